// A recorded run by itself: what is shown where nothing can be computed, so that nobody meets a page without a run.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import "./watch.css";
import { Button, Card } from "../components/basic.tsx";
import { recordings } from "../sources/recorded.ts";
import { AlignmentCard, isAlignment } from "./alignment_card.tsx";
import { RunDetails, RunPanel } from "./run_panel.tsx";
import { SamplesCard } from "./samples_card.tsx";
import { playRun, recorded, shown } from "./shown_runs.ts";

/** Plays one of the recordings that come along. `command` chooses the first: "train" or "demo". */
export function RecordedRun({ command = "train" }: { command?: string }) {
  const missing = useSignal(false);
  useEffect(() => {
    void recordings().then((all) => {
      recorded.value = all;
      const first = all.find((one) => one.command === command) ?? all[0];
      missing.value = !first;
      if (first) playRun(first);
    });
  }, [command]);
  const run = shown.value.find(({ id }) => id.startsWith("recorded:"));
  if (missing.value)
    return (
      <Card title="A recorded run">
        <p class="quiet">The recordings did not arrive with this page.</p>
      </Card>
    );
  if (!run) return <p class="quiet small">Loading a recorded run …</p>;
  run.run.version.value;
  return (
    <div class="cards">
      <fieldset class="choice" aria-label="Recordings">
        {recorded.value.map((one) => (
          <Button key={one.name} pressed={run.id === `recorded:${one.name}`} onClick={() => playRun(one)}>
            {one.title}
          </Button>
        ))}
      </fieldset>
      <RunPanel key={run.id} run={run.run} />
      {isAlignment(run.run) ? <AlignmentCard key={`${run.id} alignment`} run={run.run} /> : <SamplesCard />}
      <RunDetails key={`${run.id} details`} run={run.run} />
    </div>
  );
}
