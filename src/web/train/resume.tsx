// What was left unfinished, to go on with: offered above a mode's form once after the page was loaded, and again when a run ends.
// For every mode that trains.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../components/basic.tsx";
import { Notice, toastError } from "../components/feedback.tsx";
import type { StoredRun } from "../protocol.ts";
import { activeRun, resumable, resumeRun, storage, verdict, wireError } from "../store.ts";

/** A run that says it is running and that nobody holds was cut off. */
const STATE_TEXT: Readonly<Record<string, string>> = {
  stopped: "It was stopped",
  failed: "It failed",
  running: "It was cut off",
};

const WORK = { train: "training", align: "aligning" } as const;

/** Offers the run of a kind that was left unfinished. */
export function ResumeOffer({ command }: { command: "train" | "align" }) {
  const offer = useSignal<{ run: StoredRun; elsewhere: boolean } | null>(null);
  const ready = verdict.value !== null && verdict.value.level !== "none";
  const stored = storage.value;
  const active = activeRun.value?.active ?? false;
  useEffect(() => {
    if (ready && !active)
      void resumable(command).then((found) => {
        offer.value = found;
      });
  }, [ready, active, stored?.runs.length, activeRun.value]);
  const found = offer.value;
  if (!found || active) return null;
  const { run, elsewhere } = found;
  // The panel of an alignment has the button itself.
  if (command === "align" && activeRun.value?.name === run.name) return null;
  const close = () => {
    offer.value = null;
  };
  if (elsewhere)
    return (
      <Notice kind="info" title={`Another tab is ${WORK[command]} “${run.name}”`}>
        <p class="small">It goes on there. A second run can be started here, and both share the GPU.</p>
      </Notice>
    );
  const actions = (
    <>
      <ResumeButton run={run} onBegin={close} />
      <Button small kind="quiet" onClick={close}>
        Not now
      </Button>
    </>
  );
  return (
    <Notice kind="info" title={`Resume the run “${run.name}”?`} actions={actions}>
      <p class="small">
        {STATE_TEXT[run.state] ?? "It was left"} at update {run.step} and goes on from its last checkpoint.
      </p>
    </Notice>
  );
}

interface ResumeButtonProps {
  run: Pick<StoredRun, "name" | "command">;
  onBegin?: () => void;
  text?: string;
}

/** Goes on with a run of this browser. */
export function ResumeButton({ run, onBegin, text = "Resume" }: ResumeButtonProps) {
  const busy = useSignal(false);
  const resume = async () => {
    busy.value = true;
    onBegin?.();
    try {
      await resumeRun(run);
    } catch (error) {
      toastError(wireError(error));
    }
    busy.value = false;
  };
  return (
    <Button small kind="primary" disabledReason={busy.value ? "it is starting" : null} onClick={() => void resume()}>
      {text}
    </Button>
  );
}
