// A recorded run by itself: what is shown where nothing can be computed, so that nobody meets a page without a run. It plays on
// its own, whatever the Watch mode shows.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import "./watch.css";
import { Button, Card } from "../components/basic.tsx";
import { recordings } from "../sources/recorded.ts";
import { AlignmentCard, isAlignment } from "./alignment_card.tsx";
import { PlayedRun } from "./played_run.ts";
import { RunDetails, RunPanel } from "./run_panel.tsx";
import { SamplesCard } from "./samples_card.tsx";
import { recorded } from "./shown_runs.ts";

/** Plays one of the recordings that come along. `command` chooses the first: "train" or "demo". */
export function RecordedRun({ command = "train" }: { command?: string }) {
  const chosen = useSignal<string | null>(null);
  const run = useSignal<PlayedRun | null>(null);
  const missing = useSignal(false);
  useEffect(() => {
    void recordings().then((all) => {
      recorded.value = all;
      missing.value = all.length === 0;
      chosen.value = (all.find((one) => one.command === command) ?? all[0])?.name ?? null;
    });
  }, [command]);
  const name = chosen.value;
  useEffect(() => {
    const recording = recorded.value.find((one) => one.name === name);
    if (!recording) return;
    const played = new PlayedRun(recording);
    played.start();
    run.value = played;
    return () => played.close();
  }, [name]);
  if (missing.value)
    return (
      <Card title="A recorded run">
        <p class="quiet">The recordings did not arrive with this page.</p>
      </Card>
    );
  const played = run.value;
  if (!played) return <p class="quiet small">Loading a recorded run …</p>;
  // What kind of run it is shows with its first lines.
  played.version.value;
  return (
    <div class="cards">
      <fieldset class="choice" aria-label="Recordings">
        {recorded.value.map((one) => (
          <Button
            key={one.name}
            pressed={name === one.name}
            onClick={() => {
              chosen.value = one.name;
            }}
          >
            {one.title}
          </Button>
        ))}
      </fieldset>
      <RunPanel key={played.name} run={played} />
      {isAlignment(played) ? (
        <AlignmentCard key={`${played.name} alignment`} run={played} />
      ) : (
        <SamplesCard runs={[{ id: `recorded:${played.name}`, slot: 0, run: played }]} />
      )}
      <RunDetails key={`${played.name} details`} run={played} />
    </div>
  );
}
