// How fast a run goes and how long it will still take, read off its view. Pure.

import type { RunView, Series } from "../run_view.ts";

/** Updates over which the speed is averaged. */
const RECENT = 20;

export interface RunPace {
  /** Null until an update was made. */
  updatesPerSecond: number | null;
  /** Seconds left, samplings included; null until it can be said. */
  left: number | null;
  /** Seconds in phases; pauses between two visits do not count. */
  elapsed: number;
}

const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** @param every updates between two samplings; 0 where that is not known */
export function runPace(view: RunView, every: number): RunPace {
  const elapsed = view.phases.reduce((sum, { began, last }) => sum + Math.max(0, last - began), 0);
  const seconds = view.series.get("seconds")?.values.slice(-RECENT) ?? [];
  if (seconds.length === 0) return { updatesPerSecond: null, left: null, elapsed };
  const each = mean(seconds);
  const todo = Math.max(0, view.steps - view.step);
  const samplings = view.phases.filter(({ name }) => name.startsWith("draw samples")).map((p) => p.last - p.began);
  const still = every > 0 ? Math.floor((view.steps - 1) / every) - Math.floor(view.step / every) + 1 : 1;
  const drawing = samplings.length > 0 ? Math.max(0, still) * mean(samplings) : 0;
  return { updatesPerSecond: each > 0 ? 1 / each : null, left: todo * each + drawing, elapsed };
}

export const lastOf = (series: Series | undefined): number | null => series?.values.at(-1) ?? null;

/** What a phase is called for people. */
export function phaseText(name: string): string {
  const known: Readonly<Record<string, string>> = {
    "compile encoders": "Compiling the text encoders",
    "encode captions": "Reading captions",
    "encode pictures": "Reading pictures",
    "trace and tune": "Choosing kernels",
    "compile and load": "Compiling kernels and loading weights",
    train: "Training",
    align: "Aligning",
    save: "Saving the checkpoint",
    "save weights": "Writing the LoRA",
  };
  const step = /^draw samples, step (\d+)$/.exec(name)?.[1];
  if (step) return step === "0" ? "Drawing what the model knows before" : `Drawing samples at update ${step}`;
  return known[name] ?? name.charAt(0).toUpperCase() + name.slice(1);
}
