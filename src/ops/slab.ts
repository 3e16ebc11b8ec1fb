// Slices, splits, concatenations and zero padding along one dimension: strided copies of contiguous runs. A concatenation
// writes each part at its offset; nothing is copied twice.

import slabSource from "../../shaders/slab.wgsl" with { type: "text" };
import slabsSource from "../../shaders/slabs.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { foldGrid, type Lowering, laneGrid, lanesOf, type Slot } from "../tensor/lower.ts";
import type { DType, Shape } from "../tensor/shape.ts";
import { full, lowerFill } from "./pointwise.ts";

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
  const { grid, lanes } = laneGrid(r.outer * r.run, lowering.target);
  lowering.call({
    label: "slab",
    source: slabSource,
    constants: { T: vector ? `vec4<${dtype}>` : dtype, ...lanes, ALIGNED: r.run % lanes.LANES === 0 },
    inputs: [from],
    outputs: [to],
    params: [r.outer, r.run, r.fromStride, r.fromOffset, r.toStride, r.toOffset, grid[0]],
    grid,
  });
}

/** Parts of one dispatch: with the joint tensor they take the eight bindings that every adapter has. */
const MAX_PARTS = 7;

/** Copies all parts of `joint` along a dimension, or with `apart` the joint tensor into its parts: one call for up to seven. */
function copyParts(
  lowering: Lowering,
  joint: Tensor,
  parts: readonly Tensor[],
  dimension: number,
  apart: boolean,
): void {
  const { outer, inner } = around(joint.shape, dimension);
  const stride = joint.shape[dimension]! * inner;
  const runs = parts.map((part) => part.shape[dimension]! * inner);
  const offsets = runs.map((_, k) => runs.slice(0, k).reduce((a, b) => a + b, 0));
  if (!joint.graph.fused || parts.length === 1) {
    parts.forEach((part, k) => {
      const slots = [lowering.slot(joint), lowering.slot(part)] as const;
      const [from, to] = apart ? slots : [slots[1], slots[0]];
      const whole = { stride, offset: offsets[k]! };
      const own = { stride: runs[k]!, offset: 0 };
      const [source, target] = apart ? [whole, own] : [own, whole];
      copyRuns(lowering, from, to, joint.dtype, {
        outer,
        run: runs[k]!,
        fromStride: source.stride,
        fromOffset: source.offset,
        toStride: target.stride,
        toOffset: target.offset,
      });
    });
    return;
  }
  const unit = [stride, ...runs].every((n) => n % 4 === 0) ? 4 : 1;
  const lanes = lanesOf(lowering.target);
  for (let from = 0; from < parts.length; from += MAX_PARTS) {
    const chosen = parts.slice(from, from + MAX_PARTS);
    const words: number[] = [];
    let groups = 0;
    chosen.forEach((_, i) => {
      const run = runs[from + i]! / unit;
      const first = groups;
      groups += Math.ceil((outer * run) / (lanes.LANES * lanes.PER_LANE));
      words.push(run, offsets[from + i]! / unit, first, groups);
    });
    const grid = foldGrid(groups, lowering.target.maxWorkgroups);
    const slots = chosen.map((part) => lowering.slot(part));
    const whole = [lowering.slot(joint)];
    const names = chosen.map((_, i) => `part${i}`);
    const type = unit === 4 ? `vec4<${joint.dtype}>` : joint.dtype;
    const common = {
      label: "slabs",
      source: slabsSource,
      constants: {
        BINDINGS: (apart ? ["joint", ...names] : [...names, "joint"])
          .map((name, i) => `@group(0) @binding(${i + 1}) var<storage, read_write> ${name} : array<${type}>;`)
          .join("\n"),
        PARTS: chosen.length,
        SPLIT: apart,
        ALIGNED: chosen.every((_, i) => (runs[from + i]! / unit) % lanes.LANES === 0),
        ...lanes,
      },
      params: [outer, stride / unit, grid[0], ...words],
      grid,
    };
    if (apart) lowering.call({ ...common, inputs: whole, outputs: slots });
    else lowering.call({ ...common, inputs: slots, outputs: whole });
  }
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
    copyParts(lowering, node.outputs[0]!, node.inputs, node.attributes["dimension"] as number, false);
  },
  gradient(node, [dy], needs) {
    const d = node.attributes["dimension"] as number;
    if (needs.every(Boolean))
      return split(
        dy!,
        d,
        node.inputs.map((part) => part.shape[d]!),
      );
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
    lowerFill(lowering, lowering.slot(out), out.size, 0);
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
    copyParts(lowering, node.inputs[0]!, node.outputs, node.attributes["dimension"] as number, true);
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
