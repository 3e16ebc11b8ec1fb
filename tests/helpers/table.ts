// Runs rows of the table of operations on a device and measures them against float64: values directly, gradients by
// central differences of the float64 reference.

import { type Case, Draw, type Entry, tolerance } from "../ops/table/types.ts";
import { type DeviceOptions, type Job, noise, type RunResult, relativeError, runMany } from "./gpu.ts";

/** Step of the differences; in float64 truncation and cancellation both stay near 1e-10. */
const STEP = 1e-5;
/** Elements of an input whose slopes are taken one by one; two dense directions cover the rest. */
const SAMPLES = 10;
/** Workgroups a dimension in the runs that fold their grids. */
export const SMALL_GRID = 3;

export interface Measured {
  label: string;
  /** Largest error over outputs and gradients, in units of the tolerance. */
  worst: number;
  error: number;
  tolerance: number;
  what: string;
}

export interface EntryResult {
  measured: Measured[];
  results: RunResult[];
  /** Files of src/shaders texts that ran with a folded grid. */
  folded: Set<string>;
  sources: Set<string>;
}

/** Every entry's own cases, and `extra` ones of random shape. */
export function casesOf(entry: Entry, extra: number, seed: number): Case[] {
  const draw = new Draw(seed);
  return [...entry.cases, ...(entry.draw ? Array.from({ length: extra }, () => entry.draw!(draw)) : [])];
}

/** A case as a job; `small` gives it tiny dispatch limits. */
export function jobOf(entry: Entry, c: Case, repeat: boolean, small: boolean): Job {
  const values = c.inputs.map((spec) => Float64Array.from(spec.values));
  return {
    inputs: c.inputs,
    body: c.body,
    repeat,
    seeds: entry.gradient === "" ? undefined : c.reference(values).map((y, i) => noise(y.length, 50 + i)),
    target: small
      ? (own) => ({
          maxWorkgroups: SMALL_GRID,
          kernels: { ...own.kernels, maxComputeWorkgroupsPerDimension: SMALL_GRID },
        })
      : undefined,
  };
}

/**
 * Runs the cases, each a second time for the same bits, and each with tiny dispatch limits, which must give the same
 * bits as well.
 */
export async function runEntry(
  entry: Entry,
  cases: readonly Case[],
  options: DeviceOptions & { fold?: boolean } = {},
): Promise<EntryResult> {
  const { fold = true, ...device } = options;
  const jobs = cases.map((c) => jobOf(entry, c, true, false));
  const small = fold ? cases.map((c) => jobOf(entry, c, false, true)) : [];
  const results = await runMany([...jobs, ...small], device);
  const folded = new Set<string>();
  const sources = new Set<string>();
  results.slice(cases.length).forEach((result, i) => {
    const plain = results[i]!;
    const all = (r: RunResult) => [...r.outputs, ...r.gradients].flatMap((x) => (x ? [...x] : []));
    const [a, b] = [all(result), all(plain)];
    if (!a.every((x, k) => Object.is(x, b[k])))
      throw new Error(`${entry.name} ${cases[i]!.label}: a folded grid gave other bits`);
    for (const k of result.kernels) if (k.grid[1] > 1) folded.add(k.source);
  });
  const measured = cases.map((c, i) => {
    for (const k of results[i]!.kernels) sources.add(k.source);
    return measure(entry, c, results[i]!, jobs[i]!.seeds as Float64Array[] | undefined);
  });
  return { measured, results, folded, sources };
}

/** Compares one result with the float64 reference. */
export function measure(entry: Entry, c: Case, result: RunResult, seeds: Float64Array[] | undefined): Measured {
  const values = c.inputs.map((spec) => Float64Array.from(spec.values));
  const bound = tolerance(entry, c);
  const out: Measured = { label: c.label, worst: -1, error: 0, tolerance: bound, what: "" };
  const note = (error: number, what: string) => {
    // NaN is never below anything: it has to win by itself.
    if (Number.isNaN(error) || error / bound > out.worst)
      Object.assign(out, { worst: Number.isNaN(error) ? Number.POSITIVE_INFINITY : error / bound, error, what });
  };
  c.reference(values).forEach((y, i) =>
    note(relativeError(result.outputs[i]!, y) * Math.min(1, norm(y) / (c.floor ?? 0) || 1), `output ${i}`),
  );
  if (!seeds) return out;
  const loss = (inputs: Float64Array[]) => c.reference(inputs).reduce((total, y, i) => total + dot(y, seeds[i]!), 0);
  c.inputs.forEach((spec, which) => {
    if (spec.dtype === "u32") return;
    const gradient = result.gradients[which];
    if (!gradient) return note(Number.NaN, `gradient ${which} is missing`);
    if (!gradient.every(Number.isFinite)) return note(Number.NaN, `gradient ${which} is not finite`);
    const x = values[which]!;
    const slope = (direction: (i: number) => number) => {
      const moved = (h: number) =>
        loss(values.map((v, k) => (k === which ? v.map((e, i) => e + h * direction(i)) : v)));
      return (moved(STEP) - moved(-STEP)) / (2 * STEP);
    };
    const count = x.length;
    const size = norm(gradient);
    const places =
      count <= SAMPLES
        ? [...x.keys()]
        : [...new Set([0, count - 1, ...noise(SAMPLES - 2, count).map((v) => Math.floor(((v + 1) / 2) * count))])];
    const slopes = places.map((at) => slope((i) => (i === at ? 1 : 0)));
    const difference = Math.hypot(...places.map((at, i) => gradient[at]! - slopes[i]!));
    const floor = Math.max(c.gradientFloor ?? 0, c.floor ?? 0);
    // A sample of a gradient that is mostly zero is measured against the whole gradient's size.
    const scale = Math.max(Math.hypot(...slopes), size * Math.sqrt(places.length / count), floor, 1e-30);
    note(difference / scale, `gradient ${which}`);
    for (const seed of [1, 2]) {
      const direction = noise(count, 90 + seed).map((v) => (v < 0 ? -1 : 1));
      const expected = slope((i) => direction[i]!);
      // Errors of the elements add up like a random walk: four times the norm is far in its tail.
      note(
        Math.abs(dot(gradient, direction) - expected) / (4 * Math.max(size, floor, 1e-30)),
        `gradient ${which} along a direction`,
      );
    }
  });
  return out;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

function norm(a: ArrayLike<number>): number {
  return Math.sqrt(dot(a, a));
}
