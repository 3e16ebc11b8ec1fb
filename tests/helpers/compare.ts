// Collects comparisons with a dump and fails once with all of them, so that one look tells whether a single tensor or the
// whole model is off. LONGTAIL_PARITY=print prints the worst relative error of each group beside its bound.

import { expect } from "vitest";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import type { Safetensors } from "../../src/formats/safetensors.ts";
import { relativeError } from "./gpu.ts";

/** Gradients this much smaller than the model's largest are zero but for rounding (a key bias behind a softmax). */
const MEANINGFUL = 1e-4;

export class Comparison {
  private readonly title: string;
  private readonly failures: string[] = [];
  private readonly worst = new Map<string, { error: number; bound: number; name: string }>();

  constructor(title: string) {
    this.title = title;
  }

  /** Relative L2 difference below `bound`. */
  values(
    group: string,
    name: string,
    actual: ArrayLike<number> | undefined,
    expected: ArrayLike<number>,
    bound: number,
  ): void {
    this.note(group, name, actual ? relativeError(actual, expected) : Number.NaN, bound);
  }

  /** A number that was worked out elsewhere, below `bound`. */
  note(group: string, name: string, error: number, bound: number): void {
    if (!(error < bound)) this.failures.push(`${group} ${name}: ${error} is not below ${bound}`);
    const old = this.worst.get(group);
    if (!old || !(error / bound <= old.error / old.bound)) this.worst.set(group, { error, bound, name });
  }

  /**
   * Every tensor of `expected`. A tensor that is zero in exact arithmetic is held to the same bound relative to the
   * largest gradient of all.
   */
  async gradients(
    group: string,
    actual: Readonly<Record<string, Float32Array>>,
    expected: Safetensors & TensorSource,
    bound: number,
    skip: (name: string) => boolean = () => false,
  ): Promise<void> {
    const names = expected.names().filter((name) => !skip(name));
    const wanted = await Promise.all(names.map((name) => expected.load(name)));
    const scale = Math.max(...wanted.map(largest));
    names.forEach((name, i) => {
      const own = actual[name];
      if (own && largest(wanted[i]!) <= MEANINGFUL * scale)
        this.note(group, name, largestDifference(own, wanted[i]!) / scale, bound);
      else this.values(group, name, own, wanted[i]!, bound);
    });
    if (names.length === 0) this.failures.push(`${group}: the dump holds no tensors`);
  }

  /** Fails with everything that was off. */
  finish(): void {
    if (process.env.LONGTAIL_PARITY === "print") {
      for (const [group, { error, bound, name }] of this.worst) {
        console.log(
          `parity | ${this.title} | ${group} | ${error.toExponential(2)} | ${bound.toExponential(1)} | ${name}`,
        );
      }
    }
    expect(this.failures, `${this.title}: ${this.failures.length} values differ`).toEqual([]);
  }
}

export function largest(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return most;
}

/** Largest absolute difference; NaN where the sizes differ or a value is none. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.NaN;
  let most = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - expected[i]!);
    if (Number.isNaN(difference)) return Number.NaN;
    most = Math.max(most, difference);
  }
  return most;
}

/** Euclidean norm. */
export function norm(values: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += values[i]! ** 2;
  return Math.sqrt(squares);
}

/** Norm of `actual` relative to that of `expected`, minus one, and one minus the cosine between them. */
export function normAndDirection(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): { norm: number; direction: number } {
  let [a, b, ab] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    a += actual[i]! ** 2;
    b += expected[i]! ** 2;
    ab += actual[i]! * expected[i]!;
  }
  return { norm: Math.abs(Math.sqrt(a / b) - 1), direction: 1 - ab / Math.sqrt(a * b) };
}

/** An integer tensor as rows. */
export async function idRows(file: Safetensors & TensorSource, name: string): Promise<number[][]> {
  const width = file.shape(name).at(-1)!;
  const values = await file.readI32(name);
  return Array.from({ length: values.length / width }, (_, i) => [...values.subarray(i * width, (i + 1) * width)]);
}

/** Position of the first largest id of a row: the end token in CLIP's vocabulary. */
export function firstLargest(row: readonly number[]): number {
  return row.indexOf(Math.max(...row));
}

/** Item `index` of `count` equal parts that lie one behind the other. */
export function item(values: Float32Array, index: number, count: number): Float32Array {
  const size = values.length / count;
  return values.subarray(index * size, (index + 1) * size);
}
