// An alignment that is watched: the long-tail mode's own panel with reward and judge, guard rails, strips and verdict, over
// whatever the run's folder holds. Its code is fetched when the first alignment is shown.

import { useMemo } from "preact/hooks";
import { Card } from "../components/basic.tsx";
import { lazy } from "../components/lazy.tsx";
import type { RunSource } from "../run_source.ts";
import { PlayedRun } from "./played_run.ts";
import type { WatchableRun } from "./shown_runs.ts";

const AlignPanel = lazy(
  () => import("../longtail/panel.tsx").then((module) => module.AlignPanel),
  "the alignment’s panel",
);

/** Measurements that only alignments log. */
const ALIGNMENT = ["reward", "eval_reward"];

/** Whether a run aligns rather than trains, by what it logs or by its command. */
export function isAlignment(run: WatchableRun): boolean {
  const command = run.facts.value.record?.command;
  return command === "align" || command === "demo" || ALIGNMENT.some((name) => run.view.series.has(name));
}

export function AlignmentCard({ run }: { run: WatchableRun }) {
  const source = useMemo(() => lightSource(run.source), [run.source]);
  const ended = run instanceof PlayedRun ? run.player.ended : run.hearing.value === "ended";
  if (run.view.began === null) return null;
  return (
    <Card title="Alignment">
      <AlignPanel view={run.view} source={source} ended={ended} version={run.version.value} />
    </Card>
  );
}

/** The same folder without its weights: they are megabytes, and whoever watches a run has not asked for them. */
function lightSource(source: RunSource): RunSource {
  return {
    name: source.name,
    origin: source.origin,
    text: (path) => source.text(path),
    blob: async (path) => (path.startsWith("samples/") ? await source.blob(path) : null),
    follow: (take, ended) => source.follow(take, ended),
  };
}
