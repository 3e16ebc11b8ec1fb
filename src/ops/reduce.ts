// Sums in fixed order over any dimensions, and the sum that undoes a broadcast. Long sums are cut into chunks that are
// added by a second pass, so that a sum over all pixels still fills the device.

import reduceSource from "../../shaders/reduce.wgsl" with { type: "text" };
import { vectorLanes } from "../gpu/kernel_limits.ts";
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, foldGrid, type Lowering, type Slot } from "../tensor/lower.ts";
import { collapseBroadcast, type Shape, sameShape } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { affine, expand } from "./pointwise.ts";
import { reshape } from "./reshape.ts";

/** A sum longer than this many terms a thread is cut into chunks. */
const CHUNK = 256;
/** Terms a workgroup of the row variant adds. */
const ROW_CHUNK = 8192;

/** Sum over dimension 1 of [outer, length, inner]. */
const sumMiddleOperation: Operation = {
  name: "sum",
  takesEpilogue: true,
  infer([x]) {
    if (x!.shape.length !== 3) throw new Error("sum expects [outer, length, inner]");
    return [{ shape: [x!.shape[0]!, x!.shape[2]!], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [outer, length, inner] = node.inputs[0]!.shape as [number, number, number];
    const rows = inner === 1;
    const perChunk = rows ? ROW_CHUNK : chunkLength(outer * inner, length, lowering.target.software);
    const chunks = Math.ceil(length / perChunk);
    const x = lowering.slot(node.inputs[0]!);
    const into = node.attributes["accumulateInto"] as Variable | undefined;
    const out = into ? lowering.variable(into) : lowering.slot(node.outputs[0]!);
    if (chunks === 1) {
      pass(lowering, node, x, out, {
        outer,
        length,
        inner,
        chunks,
        perChunk,
        dtype: node.inputs[0]!.dtype,
        last: true,
      });
      return;
    }
    const partial = lowering.scratch(outer * chunks * inner);
    pass(lowering, node, x, partial, {
      outer,
      length,
      inner,
      chunks,
      perChunk,
      dtype: node.inputs[0]!.dtype,
      last: false,
    });
    pass(lowering, node, partial, out, {
      outer,
      length: chunks,
      inner,
      chunks: 1,
      perChunk: chunks,
      dtype: "f32",
      last: true,
    });
  },
  gradient(node, [dy]) {
    const [outer, , inner] = node.inputs[0]!.shape as [number, number, number];
    return [expand(reshape(dy!, [outer, 1, inner]), node.inputs[0]!.shape)];
  },
  addInto(node, target) {
    if (node.attributes["epilogue"] !== undefined || target.dtype !== "f32") return null;
    return { ...node, operation: accumulatingSum, attributes: { ...node.attributes, accumulateInto: target } };
  },
};

const accumulatingSum: Operation = {
  ...sumMiddleOperation,
  name: "sum_accumulate",
  sideEffect: true,
  takesEpilogue: false,
};

/** Terms of a chunk where `columns` sums of `length` terms are computed side by side. */
export function chunkLength(columns: number, length: number, software: boolean): number {
  // Few columns and many terms: cut so that enough threads have work, on a CPU adapter a vector for each of a few cores.
  const threads = software ? 128 : 4096;
  if (length <= CHUNK || columns >= threads) return length;
  return Math.max(64, Math.ceil(length / Math.ceil(threads / columns)));
}

/** One pass over [outer, length, inner]: into [outer, chunks, inner]. */
export function pass(
  lowering: Lowering,
  node: Parameters<Operation["lower"]>[1],
  x: Slot,
  out: Slot,
  s: { outer: number; length: number; inner: number; chunks: number; perChunk: number; dtype: string; last: boolean },
): void {
  const rows = s.inner === 1;
  const { software, kernels, maxWorkgroups } = lowering.target;
  const LANES = software && !rows ? vectorLanes(kernels) : 64;
  const gridOf = (sums: number) => foldGrid(rows ? sums : Math.ceil(sums / LANES), maxWorkgroups);
  const sums = s.outer * s.chunks * s.inner;
  const grid = gridOf(sums);
  const paramsOf = (inner: number, [fold]: readonly number[]) => [
    s.outer,
    s.length,
    inner,
    s.chunks,
    s.perChunk,
    fold!,
    f32Bits(1),
  ];
  // Four sums a lane leave a GPU without work for its lanes.
  const vectors = software && !rows && s.inner % 4 === 0 ? gridOf(sums / 4) : null;
  const accumulate = s.last && node.attributes["accumulateInto"] !== undefined;
  lowering.call({
    label: rows ? "reduce rows" : "reduce columns",
    source: reduceSource,
    constants: { X_ITEM: s.dtype, SUM: "f32", ROWS: rows, WIDE: false, LANES, ACCUMULATE: accumulate },
    wide: vectors && {
      constants: { X_ITEM: `vec4<${s.dtype}>`, SUM: "vec4<f32>", WIDE: true },
      params: paramsOf(s.inner / 4, vectors),
      grid: vectors,
    },
    inputs: [x],
    outputs: accumulate ? [] : [out],
    inPlace: accumulate ? [out] : [],
    params: paramsOf(s.inner, grid),
    grid,
    flops: s.outer * s.length * s.inner,
    epilogueOf: s.last ? node : undefined,
  });
}

function sumMiddle(x: Tensor, outer: number, length: number, inner: number): Tensor {
  return apply1(sumMiddleOperation, [reshape(x, [outer, length, inner])]);
}

/** Sums `x` down to `shape`, which must broadcast to x's shape. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const { pattern, sizes } = collapseBroadcast(shape, x.shape);
  let result = x;
  // From the last broadcast group to the first, so that sizes before it stay as they are.
  for (let i = pattern.length - 1; i >= 0; i--) {
    if (pattern[i] !== "b") continue;
    const outer = sizes.slice(0, i).reduce((a, b) => a * b, 1);
    const inner = sizes.slice(i + 1).reduce((a, b) => a * b, 1);
    result = sumMiddle(result, outer, sizes[i]!, inner);
    sizes[i] = 1;
  }
  return reshape(result, shape);
}

/** Sum over one dimension; the dimension stays with size 1 where `keep`. */
export function sum(x: Tensor, dimension: number, keep = false): Tensor {
  const at = dimension < 0 ? x.rank + dimension : dimension;
  const outer = x.shape.slice(0, at).reduce((a, b) => a * b, 1);
  const inner = x.shape.slice(at + 1).reduce((a, b) => a * b, 1);
  const shape = keep ? x.shape.map((d, i) => (i === at ? 1 : d)) : x.shape.filter((_, i) => i !== at);
  return reshape(sumMiddle(x, outer, x.shape[at]!, inner), shape);
}

/** Sum of all elements, shape [1]. */
export function sumAll(x: Tensor): Tensor {
  return reshape(sumMiddle(x, 1, x.size, 1), [1]);
}

/** Mean of all elements, shape [1]. */
export function meanAll(x: Tensor): Tensor {
  return affine(sumAll(x), 1 / x.size, 0);
}
