// The panel of an alignment, for a run of this tab, a watched one and a recorded one alike: reward against held-out judge,
// guard rails, the reward's two parts, strips of pictures, and the verdict at the end. All of it comes from the run's view
// and its folder.

import "./longtail.css";
import { useEffect, useState } from "preact/hooks";
import { signed } from "../../evaluation/format.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import type { RunSource } from "../run_source.ts";
import type { RunView } from "../run_view.ts";
import { alarmSteps, EVAL_REWARD, guardName, guardStateOf, guardTiles, parseReport } from "./align_view.ts";
import { PartsChart, RewardChart } from "./charts.tsx";
import { Guards } from "./guards_view.tsx";
import { ensureCatalogue } from "./load.ts";
import { catalogue } from "./state.ts";
import { Strips } from "./strips_view.tsx";
import { KeepView, VerdictView } from "./verdict_view.tsx";

interface Props {
  /** Grows in place. */
  view: RunView;
  source: RunSource;
  /** Whether no more lines will come. */
  ended?: boolean;
  /** Changes with the view. A wrapper that keeps state, as `lazy` does, draws nothing anew while all properties are the same. */
  version?: number;
}

/**
 * Whoever draws this draws it anew when the view has grown. It keeps no state itself, so that it always looks; what is below
 * is drawn again where the view is another one than before.
 */
export function AlignPanel({ view, source, ended = false }: Props) {
  return <Panel view={view} version={versionOf(view)} source={source} ended={ended} />;
}

/** Another text whenever the view has grown. */
function versionOf({ last, step, notes, samples }: RunView): string {
  let pictures = 0;
  for (const list of samples.values()) pictures += list.length;
  return `${last} ${step} ${notes.length} ${pictures}`;
}

function Panel({ view, version, source, ended }: Required<Omit<Props, "version">> & { version: string }) {
  const report = useReport(source, ended, view.notes.length);
  useEffect(ensureCatalogue, []);
  const guards = guardStateOf(view, report);
  const alarms = alarmSteps(view);
  const hasCurves = view.series.size > 0;
  return (
    <div class="stack lt-panel">
      {report && <VerdictView report={report} />}
      {hasCurves && (
        <div class="two">
          <section class="section" aria-label="Reward and judge">
            <h3>Reward and held-out judge</h3>
            <RewardChart view={view} alarms={alarms} guards={guards} />
            <p class="small quiet">{pairSentence(view)}</p>
          </section>
          <section class="section" aria-label="Parts of the reward">
            <h3>The reward’s two parts</h3>
            <PartsChart view={view} />
            <p class="small quiet">
              Mean score of an update’s pictures with the positive text and with the negative one. Each update draws
              other items, so single updates scatter.
            </p>
          </section>
        </div>
      )}
      <Guards tiles={guardTiles(view, guards)} guards={guards} />
      <Strips view={view} version={version} source={source} report={report} catalogue={catalogue.value} />
      {ended && <KeepView source={source} report={report} stamp={view.notes.length} />}
    </div>
  );
}

/** Report of the run, once it is there. */
function useReport(source: RunSource, ended: boolean, stamp: number): ReportData | null {
  const [report, setReport] = useState<ReportData | null>(null);
  useEffect(() => {
    if (!ended) return setReport(null);
    let gone = false;
    void source.text("report.json").then((text) => {
      if (!gone) setReport(parseReport(text));
    });
    return () => {
      gone = true;
    };
  }, [source, ended, stamp]);
  return report;
}

/** What the two curves say together, as far as it can be said before the report. */
function pairSentence(view: RunView): string {
  const reward = view.series.get(EVAL_REWARD)?.values ?? [];
  const judge = view.series.get(guardName("judge"))?.values ?? [];
  if (reward.length < 2 || judge.length < 2)
    return "The reward is what is optimised; the judge never trains. Both are measured on the same pictures, from the same noise.";
  const [r, j] = [reward.at(-1)! - reward[0]!, judge.at(-1)! - judge[0]!];
  const words =
    r > 0.01 && j < -0.005
      ? "the reward rises and the judge does not follow: a sign of fitting the reward"
      : r > 0.01 && j > 0.005
        ? "both rise"
        : "no clear movement yet";
  return `Since the start: reward ${signed(r)}, judge ${signed(j)}: ${words}.`;
}
