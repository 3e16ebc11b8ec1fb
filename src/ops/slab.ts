// Slices, splits, concatenations and zero padding along one dimension: strided copies of contiguous runs. A concatenation
// writes each part at its offset; nothing is copied twice.

import fillSource from "../../shaders/fill.wgsl" with { type: "text" };
import slabSource from "../../shaders/slab.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, type Lowering, laneGrid, type Slot } from "../tensor/lower.ts";
import type { DType, Shape } from "../tensor/shape.ts";
import { full } from "./pointwise.ts";

interface Runs {
  outer: number;
  run: number;
  fromStride: number;
  fromOffset: number;
  toStride: number;
  toOffset: number;
}

function copyRuns(lowering: Lowering, from: Slot, to: Slot, dtype: DType, runs: Runs): void {
  // Four values at a time where everything divides; stride 0 and offset 0 do.
  const vector = Object.entries(runs).every(([key, n]) => key === "outer" || n % 4 === 0);
  const scale = (n: number) => (vector ? n / 4 : n);
  const r: Runs = {
    outer: runs.outer,
    run: scale(runs.run),
    fromStride: scale(runs.fromStride),
    fromOffset: scale(runs.fromOffset),
    toStride: scale(runs.toStride),
    toOffset: scale(runs.toOffset),
  };
  const { grid, PER_LANE } = laneGrid(r.outer * r.run, lowering.target);
  lowering.call({
    label: "slab",
    source: slabSource,
    constants: { T: vector ? `vec4<${dtype}>` : dtype, PER_LANE, ALIGNED: r.run % 64 === 0 },
    inputs: [from],
    outputs: [to],
    params: [r.outer, r.run, r.fromStride, r.fromOffset, r.toStride, r.toOffset, grid[0]],
    grid,
  });
}

function around(shape: Shape, dimension: number): { outer: number; inner: number } {
  return {
    outer: shape.slice(0, dimension).reduce((a, b) => a * b, 1),
    inner: shape.slice(dimension + 1).reduce((a, b) => a * b, 1),
  };
}

const concatOperation: Operation = {
  name: "concat",
  infer(inputs, attributes) {
    const d = attributes["dimension"] as number;
    const shape = [...inputs[0]!.shape];
    for (const input of inputs.slice(1)) {
      if (input.shape.length !== shape.length || input.shape.some((n, i) => i !== d && n !== inputs[0]!.shape[i])) {
        throw new Error(`parts [${inputs[0]!.shape}] and [${input.shape}] differ outside dimension ${d}`);
      }
      if (input.dtype !== inputs[0]!.dtype)
        throw new Error(`parts are ${inputs[0]!.dtype} and ${input.dtype}; cast one of them`);
      shape[d]! += input.shape[d]!;
    }
    return [{ shape, dtype: inputs[0]!.dtype }];
  },
  lower(lowering, node) {
    const d = node.attributes["dimension"] as number;
    const out = node.outputs[0]!;
    const { outer, inner } = around(out.shape, d);
    const toStride = out.shape[d]! * inner;
    let toOffset = 0;
    for (const part of node.inputs) {
      const run = part.shape[d]! * inner;
      copyRuns(lowering, lowering.slot(part), lowering.slot(out), out.dtype, {
        outer,
        run,
        fromStride: run,
        fromOffset: 0,
        toStride,
        toOffset,
      });
      toOffset += run;
    }
  },
  gradient(node, [dy], needs) {
    const d = node.attributes["dimension"] as number;
    let start = 0;
    return node.inputs.map((part, i) => {
      const from = start;
      start += part.shape[d]!;
      return needs[i] ? slice(dy!, d, from, part.shape[d]!) : null;
    });
  },
};

export function concat(parts: Tensor[], dimension: number): Tensor {
  if (parts.length === 1) return parts[0]!;
  const d = dimension < 0 ? parts[0]!.rank + dimension : dimension;
  return apply1(concatOperation, parts, { dimension: d });
}

const sliceOperation: Operation = {
  name: "slice",
  infer([x], attributes) {
    const { dimension, start, length } = attributes as { dimension: number; start: number; length: number };
    if (start < 0 || length < 1 || start + length > x!.shape[dimension]!) {
      throw new Error(`slice [${start}, ${start + length}) leaves dimension ${dimension} of [${x!.shape}]`);
    }
    return [{ shape: x!.shape.map((n, i) => (i === dimension ? length : n)), dtype: x!.dtype }];
  },
  lower(lowering, node) {
    const { dimension, start, length } = node.attributes as { dimension: number; start: number; length: number };
    const x = node.inputs[0]!;
    const { outer, inner } = around(x.shape, dimension);
    copyRuns(lowering, lowering.slot(x), lowering.slot(node.outputs[0]!), x.dtype, {
      outer,
      run: length * inner,
      fromStride: x.shape[dimension]! * inner,
      fromOffset: start * inner,
      toStride: length * inner,
      toOffset: 0,
    });
  },
  gradient(node, [dy]) {
    const { dimension, start } = node.attributes as { dimension: number; start: number };
    return [apply1(padOperation, [dy!], { dimension, start, size: node.inputs[0]!.shape[dimension]! })];
  },
};

export function slice(x: Tensor, dimension: number, start: number, length: number): Tensor {
  const d = dimension < 0 ? x.rank + dimension : dimension;
  if (start === 0 && length === x.shape[d]) return x;
  return apply1(sliceOperation, [x], { dimension: d, start, length });
}

/** Zeros with `x` placed at `start` along one dimension of the given size. */
const padOperation: Operation = {
  name: "pad",
  infer([x], attributes) {
    const { dimension, size } = attributes as { dimension: number; size: number };
    return [{ shape: x!.shape.map((n, i) => (i === dimension ? size : n)), dtype: x!.dtype }];
  },
  lower(lowering, node) {
    const { dimension, start, size } = node.attributes as { dimension: number; start: number; size: number };
    const x = node.inputs[0]!;
    const out = node.outputs[0]!;
    const { grid, PER_LANE } = laneGrid(out.size, lowering.target);
    lowering.call({
      label: "fill",
      source: fillSource,
      constants: { OUT: out.dtype, PER_LANE },
      inputs: [],
      outputs: [lowering.slot(out)],
      params: [out.size, grid[0], f32Bits(0)],
      grid,
    });
    const { outer, inner } = around(x.shape, dimension);
    const run = x.shape[dimension]! * inner;
    copyRuns(lowering, lowering.slot(x), lowering.slot(out), x.dtype, {
      outer,
      run,
      fromStride: run,
      fromOffset: 0,
      toStride: size * inner,
      toOffset: start * inner,
    });
  },
  gradient(node, [dy]) {
    const { dimension, start } = node.attributes as { dimension: number; start: number };
    return [slice(dy!, dimension, start, node.inputs[0]!.shape[dimension]!)];
  },
};

export function pad(x: Tensor, dimension: number, start: number, size: number): Tensor {
  return apply1(padOperation, [x], { dimension, start, size });
}

const splitOperation: Operation = {
  name: "split",
  infer([x], attributes) {
    const { dimension, sizes } = attributes as { dimension: number; sizes: number[] };
    const sum = sizes.reduce((a, b) => a + b, 0);
    if (sum !== x!.shape[dimension])
      throw new Error(`parts of ${sum} do not fill dimension ${dimension} of [${x!.shape}]`);
    return sizes.map((n) => ({ shape: x!.shape.map((m, i) => (i === dimension ? n : m)), dtype: x!.dtype }));
  },
  lower(lowering, node) {
    const { dimension, sizes } = node.attributes as { dimension: number; sizes: number[] };
    const x = node.inputs[0]!;
    const { outer, inner } = around(x.shape, dimension);
    let start = 0;
    sizes.forEach((n, i) => {
      copyRuns(lowering, lowering.slot(x), lowering.slot(node.outputs[i]!), x.dtype, {
        outer,
        run: n * inner,
        fromStride: x.shape[dimension]! * inner,
        fromOffset: start * inner,
        toStride: n * inner,
        toOffset: 0,
      });
      start += n;
    });
  },
  gradient(node, outputs) {
    const { dimension } = node.attributes as { dimension: number };
    const parts = outputs.map((g, i) => g ?? full(node.inputs[0]!.graph, node.outputs[i]!.shape, 0));
    return [concat(parts, dimension)];
  },
};

/** Parts of `x` along a dimension; the gradient is one concatenation. */
export function split(x: Tensor, dimension: number, sizes: number[]): Tensor[] {
  const d = dimension < 0 ? x.rank + dimension : dimension;
  return x.graph.apply(splitOperation, [x], { dimension: d, sizes });
}
