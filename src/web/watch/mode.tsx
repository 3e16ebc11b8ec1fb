// The Watch mode: a list of runs on the left, what is shown of them on the right. One run with all its panels; two or more with
// their curves in one chart, and each run's own panel below.

import { useEffect } from "preact/hooks";
import "./watch.css";
import { Button } from "../components/basic.tsx";
import { AlignmentCard, isAlignment } from "./alignment_card.tsx";
import { CompareCard } from "./compare_card.tsx";
import { RunList } from "./run_list.tsx";
import { RunDetails, RunPanel } from "./run_panel.tsx";
import { SamplesCard } from "./samples_card.tsx";
import {
  playRun,
  recorded,
  refreshBrowserRuns,
  refreshLocal,
  refreshServed,
  served,
  shown,
  takeToken,
  watchServed,
} from "./shown_runs.ts";

/** Milliseconds between two looks at the lists of the server and of this browser. */
const LIST_EVERY = 4000;

export default function WatchMode() {
  useEffect(() => {
    takeToken();
    void refreshLocal();
    void refreshServed().then(() => {
      const newest = served.value?.runs[0];
      if (newest && shown.value.length === 0) watchServed(newest.name);
    });
    const timer = setInterval(() => {
      if (document.visibilityState !== "visible" || document.getElementById("panel-watch")?.hidden) return;
      if (served.value) void refreshServed();
      void refreshBrowserRuns();
    }, LIST_EVERY);
    return () => clearInterval(timer);
  }, []);
  const runs = shown.value;
  // What kind of run it is shows with its first lines.
  if (runs.length === 1) runs[0]!.run.version.value;
  return (
    <>
      <div class="lead">
        <h1>Watch a run</h1>
        <p>
          A run of a server, of this browser, or of a folder on this machine: its curves, samples and events, live while
          it goes on. Lay several over each other to compare them.
        </p>
      </div>
      <div class="watch">
        <RunList />
        <div class="watch-main">
          {runs.length === 0 && <Nothing />}
          {runs.length === 1 && <RunPanel key={runs[0]!.id} run={runs[0]!.run} />}
          {runs.length > 1 && <CompareCard />}
          {runs.length === 1 && isAlignment(runs[0]!.run) ? (
            <AlignmentCard key={`${runs[0]!.id} alignment`} run={runs[0]!.run} />
          ) : (
            runs.length > 0 && <SamplesCard runs={runs} />
          )}
          {runs.length === 1 && <RunDetails key={`${runs[0]!.id} details`} run={runs[0]!.run} />}
          {runs.length > 1 && runs.map(({ id, run }) => <RunPanel key={id} run={run} brief />)}
        </div>
      </div>
    </>
  );
}

function Nothing() {
  const first = recorded.value[0];
  return (
    <div class="live live-empty">
      <p>Choose a run, or drop a run’s folder anywhere on this page.</p>
      {first && (
        <div>
          <Button onClick={() => playRun(first)}>Play a recorded run</Button>
        </div>
      )}
    </div>
  );
}
