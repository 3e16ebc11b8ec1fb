// What a run under way asks of the browser: a warning before the tab is closed while updates are not saved, a screen that stays
// on, and the speed remembered for the next estimate.

import { useEffect } from "preact/hooks";
import { runFlops } from "../estimates.ts";
import type { LiveRun } from "../live_run.ts";
import { effective } from "../settings.ts";
import { recall, remember } from "../small_state.ts";
import { device, machine, settings, verdict } from "../store.ts";

/** Whether closing the tab now would cost updates. */
export const hasUnsaved = (run: LiveRun): boolean => run.active && run.view.step > run.saved.value;

export function useRunGuards(run: LiveRun): void {
  const status = run.status.value;
  const working = status === "starting" || status === "running" || status === "stopping";
  useEffect(() => {
    if (!run.active) return;
    const warn = (event: BeforeUnloadEvent) => {
      if (hasUnsaved(run)) event.preventDefault();
    };
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [run, run.active]);
  useEffect(() => (working ? keepAwake() : undefined), [working]);
  useEffect(() => {
    if (status === "finished") void rememberSpeed(run);
  }, [run, status]);
}

/** Holds a screen wake lock while the page is seen. Returns the way to let go. */
function keepAwake(): () => void {
  let lock: WakeLockSentinel | null = null;
  let over = false;
  const take = async () => {
    if (over || document.visibilityState !== "visible") return;
    try {
      lock = (await navigator.wakeLock?.request("screen")) ?? null;
      if (over) void lock?.release();
    } catch {
      // A battery that is low may refuse; the run goes on without.
    }
  };
  document.addEventListener("visibilitychange", take);
  void take();
  return () => {
    over = true;
    document.removeEventListener("visibilitychange", take);
    void lock?.release();
  };
}

/** Only whole runs of this visit say how fast the adapter is. */
async function rememberSpeed(run: LiveRun): Promise<void> {
  const name = device.value?.name ?? verdict.value?.adapter;
  const trained = run.view.phases.filter((phase) => phase.name === "train" || phase.name.startsWith("draw samples"));
  const seconds = trained.reduce((sum, { began, last }) => sum + last - began, 0);
  const values = effective(settings.value, machine.value);
  const made = run.view.series.get("loss")?.steps.length ?? 0;
  if (!name || seconds <= 0 || made !== values.updates) return;
  const speeds = (await recall("speeds")) ?? {};
  await remember("speeds", { ...speeds, [name]: runFlops(values, machine.value) / seconds });
}
