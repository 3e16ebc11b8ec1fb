// The statistics of every number that an evaluation reports: means over items, medians, paired changes, and percentile
// intervals from the bootstrap over items (Efron and Tibshirani, «An Introduction to the Bootstrap», chapter 13).
// Items are resampled and not pictures, because the question is what would happen to other items of the same kind.

import { RandomStream } from "../base/random.ts";

/** Resamples of a bootstrap: percentile ends of 2,000 resamples move by about a fiftieth of the interval's width. */
export const RESAMPLES = 2000;

/**
 * Fewest items for which an interval is given. Where all n changes have one sign the percentile interval excludes 0,
 * and
 * that happens by chance with probability 2^(1 - n): 6 is the first n for which it is below 5 %.
 */
export const MINIMUM_ITEMS = 6;

/** Uniform numbers in [0, 1), one a call. */
export type NextUniform = () => number;

/** A mean of paired differences with its 95 % interval; `low` and `high` are null where there are too few items. */
export interface Change {
  /** Items that have both values. */
  n: number;
  /** Mean before. */
  before: number;
  /** Mean after. */
  after: number;
  /** Mean of (after - before) over the items. */
  change: number;
  low: number | null;
  high: number | null;
}

/** A mean with its 95 % interval. */
export interface Estimate {
  n: number;
  mean: number;
  low: number | null;
  high: number | null;
}

/** Uniform numbers of the stream `name` under `seed`, in the order of their index: the same on every machine. */
export function uniformsOf(seed: number, name: string): NextUniform {
  const stream = new RandomStream(seed, name);
  const block = 1024;
  let values = new Float32Array(0);
  let step = 0;
  let at = 0;
  return () => {
    if (at === values.length) {
      values = new Float32Array(stream.uniforms(step++, block));
      at = 0;
    }
    return values[at++]!;
  };
}

/** Arithmetic mean; NaN for no values. */
export function mean(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

/** Median; the mean of the two middle values where their number is even; NaN for no values. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Standard deviation with the divisor n - 1; 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  let sum = 0;
  for (const value of values) sum += (value - centre) ** 2;
  return Math.sqrt(sum / (values.length - 1));
}

/**
 * Quantile `q` in [0, 1] by linear interpolation between order statistics (numpy's default rule); NaN for no values.
 */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  const place = q * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (sorted[above]! - sorted[below]!) * (place - below);
}

/** Draws `resamples` lists of n item numbers with replacement; one flat array [resamples, n]. */
export function resampleIndices(n: number, nextUniform: NextUniform, resamples = RESAMPLES): Uint32Array {
  const indices = new Uint32Array(n * resamples);
  for (let i = 0; i < indices.length; i++) indices[i] = Math.min(n - 1, Math.floor(nextUniform() * n));
  return indices;
}

/** Means of the resampled lists: `indices` is [resamples, values.length] as `resampleIndices` made it. */
export function resampledMeans(values: readonly number[], indices: Uint32Array): number[] {
  const n = values.length;
  const means: number[] = [];
  for (let start = 0; start < indices.length; start += n) {
    let sum = 0;
    for (let i = start; i < start + n; i++) sum += values[indices[i]!]!;
    means.push(sum / n);
  }
  return means;
}

/**
 * Bootstrap percentile interval (2.5 % and 97.5 %) of the mean over items.
 * @param source where the resampled item numbers come from: uniform numbers, or indices [resamples, n] drawn before, so
 *   that several measures of the same items share their resamples
 */
export function bootstrapMean(values: readonly number[], source: NextUniform | Uint32Array): Estimate {
  const n = values.length;
  const estimate: Estimate = { n, mean: mean(values), low: null, high: null };
  if (n < MINIMUM_ITEMS) return estimate;
  const indices = typeof source === "function" ? resampleIndices(n, source) : source;
  const means = resampledMeans(values, indices);
  return { ...estimate, low: quantile(means, 0.025), high: quantile(means, 0.975) };
}

/** Paired change of the same items: mean before, mean after, mean difference and its bootstrap interval over items. */
export function pairedChange(
  before: readonly number[],
  after: readonly number[],
  source: NextUniform | Uint32Array,
): Change {
  const differences = before.map((value, i) => after[i]! - value);
  const { n, mean: change, low, high } = bootstrapMean(differences, source);
  return { n, before: mean(before), after: mean(after), change, low, high };
}

/**
 * What an interval allows to say. `better` and `worse` need an interval that excludes 0; without one nothing is said.
 * @param goodDirection 1 where more is better, -1 where less is better
 */
export function judgement(
  change: Pick<Change, "low" | "high">,
  goodDirection: 1 | -1 = 1,
): "better" | "worse" | "no significant change" | "too few items" {
  const { low, high } = change;
  if (low === null || high === null) return "too few items";
  if (low > 0) return goodDirection > 0 ? "better" : "worse";
  if (high < 0) return goodDirection > 0 ? "worse" : "better";
  return "no significant change";
}
