// What a run under way asks of the browser: a warning before the tab is closed while updates are not saved, a screen that stays
// on, and the speed remembered for the next estimate.

import { useEffect, useRef } from "preact/hooks";
import { compact } from "../../evaluation/format.ts";
import { toast } from "../components/feedback.tsx";
import { runFlops } from "../estimates.ts";
import type { LiveRun } from "../live_run.ts";
import { effective } from "../settings.ts";
import { machine, settings } from "../store.ts";
import { recordSpeed } from "./speeds.ts";

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
  useEffect(() => (status === "running" ? watchHidden(run) : undefined), [run, status]);
  const paused = useRef<LiveRun | null>(null);
  useEffect(() => {
    if (status === "paused") paused.current = run;
    if (status === "finished" && run.command === "train" && paused.current !== run) measureSpeed(run);
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

/** Only whole runs of this visit that were never paused say how fast the adapter is. */
function measureSpeed(run: LiveRun): void {
  const trained = run.view.phases.filter((phase) => phase.name === "train" || phase.name.startsWith("draw samples"));
  const seconds = trained.reduce((sum, { began, last }) => sum + last - began, 0);
  const values = effective(settings.value, machine.value);
  const made = run.view.series.get("loss")?.steps.length ?? 0;
  if (seconds > 0 && made === values.updates) recordSpeed(runFlops(values, machine.value) / seconds);
}

/** Seconds that a tab must have been hidden before its speed says anything. */
const HIDDEN_SECONDS = 10;

/** Browsers slow hidden tabs down: on return it is said by how much, where it can be noticed. */
function watchHidden(run: LiveRun): () => void {
  let left: { time: number; step: number; seconds: number } | null = null;
  const turn = () => {
    const { step } = run.view;
    if (document.visibilityState === "hidden") {
      const seconds = run.view.series.get("seconds")?.values.slice(-20) ?? [];
      const mean = seconds.reduce((sum, s) => sum + s, 0) / seconds.length;
      left = seconds.length > 0 ? { time: performance.now(), step, seconds: mean } : null;
    } else if (left) {
      const text = hiddenText((performance.now() - left.time) / 1000, step - left.step, left.seconds);
      if (text) toast({ kind: "info", title: "The run went on while the tab was hidden", text });
      left = null;
    }
  };
  document.addEventListener("visibilitychange", turn);
  return () => document.removeEventListener("visibilitychange", turn);
}

/** What to say of `updates` updates in `seconds` hidden seconds, where one took `each` before; null where nothing is. Pure. */
export function hiddenText(seconds: number, updates: number, each: number): string | null {
  if (seconds < HIDDEN_SECONDS) return null;
  const rate = updates / seconds;
  if (rate > 0.75 / each) return null;
  return `It made ${compact(rate)} updates a second instead of ${compact(1 / each)}: the browser slows hidden tabs down.`;
}
