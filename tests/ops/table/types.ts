// What a row of the table of operations is (tests/ops/table.ts): how to call the operation on sample inputs, what it
// must give in float64, and the words that docs/operations.md is made of. Gradients need no rule of their own here:
// they are finite differences of the float64 reference.

import { f16ToF32, f32ToF16 } from "../../../src/base/halves.ts";
import { elements, type Shape } from "../../../src/tensor/shape.ts";
import { type InputSpec, type Job, noise } from "../../helpers/gpu.ts";

/** One call with its inputs. */
export interface Case {
  label: string;
  inputs: InputSpec[];
  body: Job["body"];
  /** The outputs in float64. */
  reference(inputs: readonly Float64Array[]): Float64Array[];
  /** Terms of the longest sum, of the gradients' sums too: rounding grows with its square root. */
  terms: number;
  /** Size of the terms that cancel where a gradient is zero or nearly so. */
  gradientFloor?: number;
  /** Size that a sum of so many terms has as a rule: one that cancels by chance is measured against it. */
  floor?: number;
  /** Set where a value is stored as f16 on the way. */
  stored?: "f16";
}

export interface Entry {
  /** As the function of src/ops is called. */
  name: string;
  /** In src/ops. */
  file: string;
  /** In shaders/, forward and backward; what the cases call is compared with this. */
  kernels: string[];
  /** Kernels that some adapters choose and others do not. */
  adapterKernels?: string[];
  /** Functions of shaders/lib/functions.wgsl that it uses. */
  functions?: string[];
  formula: string;
  shapes: string;
  types: string;
  /** How the gradient comes about, in words; empty where there is none. */
  gradient: string;
  /** Factor on the tolerance, with its reason. */
  slack?: [number, string];
  cases: Case[];
  /** A further case of random shape. */
  draw?(random: Draw): Case;
}

/** Bound on the relative L2 error: a constant, and the random walk of rounding over a sum of `terms`. */
export function tolerance(entry: Entry, c: Case): number {
  return (entry.slack?.[0] ?? 1) * (3e-7 + 1.2e-7 * Math.sqrt(c.terms)) + (c.stored ? 5e-4 : 0);
}

/** What a sum of `terms` products of test values has as its typical size, halved. */
export function typicalSum(terms: number): number {
  return 0.15 * Math.sqrt(terms);
}

/** A reproducible source of shapes. */
export class Draw {
  private readonly numbers: Float64Array;
  private at = 0;

  constructor(seed: number) {
    this.numbers = noise(4096, seed).map((v) => (v + 1) / 2);
  }

  /** A whole number from `low` to `high`, both included. */
  int(low: number, high: number): number {
    return low + Math.floor(this.numbers[this.at++ % this.numbers.length]! * (high - low + 1));
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(0, items.length - 1)]!;
  }
}

export interface Values {
  seed?: number;
  scale?: number;
  offset?: number;
  /** Places where the function has a corner: values keep 1e-3 away from them. */
  away?: number[];
  dtype?: "f32" | "f16";
}

/** An input of reproducible values, exact in its element type. */
export function input(
  shape: Shape,
  { seed = 1, scale = 1, offset = 0, away = [], dtype = "f32" }: Values = {},
): InputSpec {
  const values = noise(elements(shape), seed).map((x) => {
    let v = x * scale + offset;
    for (const corner of away) if (Math.abs(v - corner) < 1e-3) v = corner + 2e-3;
    return Math.fround(v);
  });
  return {
    shape,
    dtype,
    values: dtype === "f16" ? Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(values)))) : values,
  };
}

/** Whole numbers below `limit`. */
export function indices(shape: Shape, limit: number, seed = 1): InputSpec {
  return { shape, dtype: "u32", values: noise(elements(shape), seed).map((v) => Math.floor(((v + 1) / 2) * limit)) };
}

/** Output element i is element map(i) of x, or 0 where map gives -1. */
export function gathered(x: ArrayLike<number>, count: number, map: (i: number) => number): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    const at = map(i);
    return at < 0 ? 0 : x[at]!;
  });
}

/** Index into a tensor of shape `from` that broadcasts to `to`, for flat index i of `to`. */
export function broadcastIndex(from: Shape, to: Shape, i: number): number {
  let rest = i;
  let at = 0;
  let stride = 1;
  for (let d = to.length - 1; d >= 0; d--) {
    const digit = rest % to[d]!;
    rest = Math.floor(rest / to[d]!);
    const own = from[from.length - to.length + d] ?? 1;
    if (own > 1) at += digit * stride;
    stride *= own;
  }
  return at;
}
