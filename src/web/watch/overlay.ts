// Curves of several runs on one axis: by update, or by the time that each run has worked. Pure; what comes out is what a
// chart library takes, one ascending axis and for each curve a value or a gap at every point of it.

import type { Series } from "../run_view.ts";

export type Alignment = "update" | "time";

/** When each update was measured: seconds of work since the run began, ascending like `steps`. */
export interface StepTimes {
  steps: number[];
  seconds: number[];
}

export interface OverlayCurve {
  series: Series;
  times: StepTimes;
}

export interface OverlayData {
  /** Ascending positions: updates, or seconds. */
  x: number[];
  /** For each curve a value at every position: undefined where it has no point, null where it was not finite there. */
  ys: (number | null | undefined)[][];
}

/** Points of one curve that a screen can show; more only cost time. */
export const MOST_POINTS = 2000;

/**
 * At most about `most` points of a curve: of each stretch the lowest and the highest, so that no peak is lost, and always
 * the first and the last. Returns indices, ascending.
 */
export function thinned(values: readonly number[], most = MOST_POINTS): number[] {
  if (values.length <= most) return values.map((_, i) => i);
  const stretches = Math.max(1, Math.floor((most - 2) / 2));
  const length = (values.length - 2) / stretches;
  const kept = [0];
  for (let stretch = 0; stretch < stretches; stretch++) {
    const from = 1 + Math.floor(stretch * length);
    const to = 1 + Math.floor((stretch + 1) * length);
    let low = from;
    let high = from;
    for (let i = from; i < to; i++) {
      if (!(values[i]! >= values[low]!)) low = i;
      if (!(values[i]! <= values[high]!)) high = i;
    }
    kept.push(...(low === high ? [low] : [Math.min(low, high), Math.max(low, high)]));
  }
  kept.push(values.length - 1);
  return kept;
}

/** Seconds of work at an update; the nearest earlier measured one where the update itself is missing. */
export function secondsAt(times: StepTimes, step: number): number | undefined {
  const at = lastAtMost(times.steps, step);
  return at < 0 ? undefined : times.seconds[at];
}

/** Index of the last entry that is not above `value`, or -1. */
export function lastAtMost(ascending: readonly number[], value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Curves of one measurement, aligned. */
export function overlay(curves: readonly OverlayCurve[], alignment: Alignment, most = MOST_POINTS): OverlayData {
  const points = curves.map(({ series, times }) => {
    const kept = thinned(series.values, most);
    const found = new Map<number, number | null>();
    for (const i of kept) {
      const step = series.steps[i]!;
      const x = alignment === "update" ? step : secondsAt(times, step);
      // Not finite: a gap in the curve tells more than a curve that runs over it.
      if (x !== undefined) found.set(x, Number.isFinite(series.values[i]) ? series.values[i]! : null);
    }
    return found;
  });
  const x = [...new Set(points.flatMap((found) => [...found.keys()]))].sort((a, b) => a - b);
  return { x, ys: points.map((found) => x.map((position) => found.get(position))) };
}

/** Value of each curve at a position: the last one at or before it; undefined before the first and well after the last. */
export function valuesAt(curves: readonly OverlayCurve[], alignment: Alignment, x: number): (number | undefined)[] {
  return curves.map(({ series, times }) => {
    const last = alignment === "update" ? (series.steps.at(-1) ?? -Infinity) : (times.seconds.at(-1) ?? -Infinity);
    if (x > last) return undefined;
    const step = alignment === "update" ? x : times.steps[lastAtMost(times.seconds, x)];
    return step === undefined ? undefined : series.values[lastAtMost(series.steps, step)];
  });
}

/** What a comparison is usually about, most wanted first. */
const USUAL = ["reward", "loss_mean", "val_loss", "loss"];

/** Measurements that can be drawn: those that most runs share first, of these what a comparison is usually about. */
export function sharedMetrics(runs: readonly ReadonlyMap<string, Series>[]): string[] {
  const counts = new Map<string, number>();
  for (const run of runs) for (const name of run.keys()) counts.set(name, (counts.get(name) ?? 0) + 1);
  const rank = (name: string) => (USUAL.indexOf(name) + USUAL.length + 1) % (USUAL.length + 1);
  return [...counts].sort(([a, n], [b, m]) => m - n || rank(a) - rank(b)).map(([name]) => name);
}

/** A break of more seconds than this between two lines is a run that was stopped and resumed later, not work. */
export const LONGEST_WORK = 600;

/** Adds when an update was logged; `t` in seconds. Keeps `times` ascending where a resumed run repeats updates. */
export class WorkClock {
  readonly times: StepTimes = { steps: [], seconds: [] };
  /** Seconds of work so far. */
  seconds = 0;
  private last: number | null = null;

  add(t: number, step: number, measured: boolean): void {
    if (this.last !== null && t > this.last && t - this.last <= LONGEST_WORK) this.seconds += t - this.last;
    this.last = t;
    if (!measured) return;
    const { steps, seconds } = this.times;
    while (steps.length > 0 && steps.at(-1)! >= step) {
      steps.pop();
      seconds.pop();
    }
    steps.push(step);
    seconds.push(this.seconds);
  }
}
