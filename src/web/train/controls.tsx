// The buttons that steer a run under way, for every mode that trains: pause, resume, one update, sample and save now, stop.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { Button } from "../components/basic.tsx";
import { toastError } from "../components/feedback.tsx";
import type { LiveRun } from "../live_run.ts";
import type { Engine } from "../protocol.ts";
import { engine, wireError } from "../store.ts";

export function RunControls({ run }: { run: LiveRun }) {
  const status = run.status.value;
  const asked = useSignal<string | null>(null);
  const act = (name: string, work: (engine: Engine) => Promise<void>) => async () => {
    asked.value = name;
    try {
      await work(await engine());
    } catch (error) {
      toastError(wireError(error));
    }
    asked.value = null;
  };
  const starting = status === "starting" ? "the run is being prepared" : null;
  const stopping = status === "stopping" ? "the run is being saved" : null;
  const paused = status === "paused";
  const place = useRef<HTMLDivElement>(null);
  // The Start button that was pressed is gone: the keyboard goes on here.
  useEffect(() => {
    if (document.activeElement === document.body)
      place.current?.querySelector("button")?.focus({ preventScroll: true });
  }, []);
  return (
    <div class="stack" ref={place}>
      <div class="controls">
        {paused ? (
          <Button kind="primary" onClick={act("resume", (to) => to.resume())}>
            Resume
          </Button>
        ) : (
          <Button kind="primary" disabledReason={starting ?? stopping} onClick={act("pause", (to) => to.pause())}>
            {asked.value === "pause" ? "Pausing …" : "Pause"}
          </Button>
        )}
        <Button
          disabledReason={stopping ?? (paused ? null : "pause first")}
          title="Makes one update and pauses again"
          onClick={act("step", (to) => to.step(1))}
        >
          Step
        </Button>
        <Button kind="danger" disabledReason={stopping} onClick={act("stop", (to) => to.stop())}>
          {stopping ? "Saving …" : "Stop"}
        </Button>
      </div>
      <div class="row">
        <Button small disabledReason={starting ?? stopping} onClick={act("sample", (to) => to.sampleNow())}>
          Sample now
        </Button>
        <Button small disabledReason={starting ?? stopping} onClick={act("save", (to) => to.saveNow())}>
          Save now
        </Button>
      </div>
      <p class="field-hint">Stop saves first; a stopped run can be resumed.</p>
    </div>
  );
}
