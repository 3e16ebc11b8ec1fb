// LayerNorm, RMSNorm, GroupNorm and L2 normalisation as one kernel over rows. Only the normalisation itself is a kernel;
// gain, bias, modulation and activation are pointwise steps that fusion moves into its store, so each gradient rule stays
// one line. Backward: models' formula dx = rstd (dn - mean(dn) - n mean(dn n)).

import modulationSource from "../../shaders/modulation_grad.wgsl" with { type: "text" };
import source from "../../shaders/norm.wgsl" with { type: "text" };
import gradSource from "../../shaders/norm_grad.wgsl" with { type: "text" };
import { subgroupLanes, vectorLanes } from "../gpu/kernel_limits.ts";
import type { PointwiseStep } from "../tensor/epilogue.ts";
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, foldGrid, grid1d, type Target } from "../tensor/lower.ts";
import { type Shape, sameShape } from "../tensor/shape.ts";
import { add, affine, mul, scaleBy } from "./pointwise.ts";
import { chunkLength, pass } from "./reduce.ts";
import { reshape } from "./reshape.ts";

interface NormAttributes {
  width: number;
  eps: number;
  rms: boolean;
}

/** How rows lie on lanes, with the constants that tell the kernels. */
export interface RowMapping {
  LANES: number;
  /** A lane owns a row. */
  LANE_ROWS: boolean;
  /** A workgroup of one subgroup owns a row. */
  ONE_SUBGROUP: boolean;
  /** A workgroup of several subgroups owns a row, and joins its sums in workgroup memory. */
  TREE: boolean;
  /** Values that a lane takes in a turn of the loops along a row, and what a turn of all lanes takes. */
  UNROLL: number;
  HOP: number;
}

/** Rows from which a subgroup is better than a lane. Those of a vector's lanes, side by side, do not stay in the first cache. */
const LONG_ROW = 192;

/**
 * On a CPU adapter a lane takes a row of its own, or a subgroup where rows are long: barriers cost more there than
 * uncoalesced loads. Workgroups of one vector give its cores equal shares of a few rows.
 */
export function mapping({ software, kernels }: Target, width: number, longRow = LONG_ROW): RowMapping {
  if (!software) return { LANES: 64, LANE_ROWS: false, ONE_SUBGROUP: false, TREE: true, UNROLL: 1, HOP: 64 };
  const along = width >= longRow && subgroupLanes(kernels) > 0;
  const LANES = vectorLanes(kernels);
  // A turn costs a CPU adapter more than what it computes for one value.
  const UNROLL = along && width >= 512 && width % (4 * LANES) === 0 ? 4 : 1;
  return { LANES, LANE_ROWS: !along, ONE_SUBGROUP: along, TREE: false, UNROLL, HOP: UNROLL * LANES };
}

/** What a binding holds: single values, or four together. */
const item = (dtype: string, wide: boolean): string => (wide ? `vec4<${dtype}>` : dtype);

const normOperation: Operation = {
  name: "norm",
  takesEpilogue: true,
  infer([x], attributes) {
    const { width } = attributes as unknown as NormAttributes;
    const size = x!.shape.reduce((a, b) => a * b, 1);
    if (size % width !== 0) throw new Error(`rows of ${width} do not divide ${size} elements`);
    return [
      { shape: x!.shape, dtype: "f32" },
      { shape: [size / width, 2], dtype: "f32" },
    ];
  },
  lower(lowering, node) {
    const { width, eps, rms } = node.attributes as unknown as NormAttributes;
    const x = node.inputs[0]!;
    const rows = x.size / width;
    const rowMapping = mapping(lowering.target, width);
    const { LANES, LANE_ROWS } = rowMapping;
    const grid = foldGrid(LANE_ROWS ? Math.ceil(rows / LANES) : rows, lowering.target.maxWorkgroups);
    const wide = LANE_ROWS && width % 4 === 0;
    lowering.call({
      label: rms ? "rms norm" : "layer norm",
      source,
      constants: {
        X_ITEM: item(x.dtype, wide),
        OUT_ITEM: item(node.outputs[0]!.dtype, wide),
        ...rowMapping,
        WIDE: wide,
        RMS: rms,
      },
      inputs: [lowering.slot(x)],
      outputs: [lowering.slot(node.outputs[0]!), lowering.slot(node.outputs[1]!)],
      params: [rows, width, grid[0], f32Bits(eps)],
      grid,
      flops: 6 * x.size,
      epilogueOf: node,
      epilogueScope: { axes: [{ size: width, place: "column", before: "row" }] },
    });
  },
  gradient(node, [dy]) {
    const { width, rms } = node.attributes as unknown as NormAttributes;
    return [apply1(normGradOperation, [dy!, node.inputs[0]!, node.outputs[1]!], { width, rms, scaled: false })];
  },
};

/** Inputs: dy, x, stats, and with `scaled` the scale [B, 1, D] of an adaptive norm. */
const normGradOperation: Operation = {
  name: "norm_grad",
  takesEpilogue: true,
  infer: ([, x]) => [{ shape: x!.shape, dtype: "f32" }],
  lower(lowering, node) {
    const { width, rms, scaled } = node.attributes as unknown as NormAttributes & { scaled: boolean };
    const x = node.inputs[1]!;
    const rows = x.size / width;
    const rowMapping = mapping(lowering.target, width);
    const { LANES, LANE_ROWS } = rowMapping;
    const grid = foldGrid(LANE_ROWS ? Math.ceil(rows / LANES) : rows, lowering.target.maxWorkgroups);
    const wide = LANE_ROWS && width % 4 === 0;
    lowering.call({
      label: rms ? "rms norm grad" : "layer norm grad",
      source: gradSource,
      constants: {
        X_ITEM: item(x.dtype, wide),
        F32_ITEM: item("f32", wide),
        ...rowMapping,
        WIDE: wide,
        RMS: rms,
        SCALED: scaled,
      },
      inputs: node.inputs.slice(0, scaled ? 4 : 3).map((t) => lowering.slot(t)),
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [rows, width, grid[0], scaled ? x.dim(-2) : 1],
      grid,
      flops: 10 * x.size,
      epilogueOf: node,
      epilogueScope: { axes: [{ size: width, place: "column", before: "row" }] },
    });
  },
};

/**
 * LayerNorm of x [B, L, D] with scale and shift [B, 1, D] as steps of its store. As an operation of its own it need not keep
 * the normalised values for the backward pass.
 */
const modulatedNormOperation: Operation = {
  ...normOperation,
  name: "modulated_norm",
  gradient(node, [dy], needs) {
    const { width } = node.attributes as unknown as NormAttributes;
    const [x, scale] = node.inputs as [Tensor, Tensor];
    const stats = node.outputs[1]!;
    const dx = needs[0] ? apply1(normGradOperation, [dy!, x, stats, scale], { width, rms: false, scaled: true }) : null;
    const sums = needs[1] || needs[2] ? x.graph.apply(modulationGradOperation, [dy!, x, stats]) : [];
    return [dx, needs[1] ? sums[0]! : null, needs[2] ? sums[1]! : null];
  },
};

/** Inputs: dy, x, stats; outputs: the gradients of scale and shift, [B, 1, D]. */
const modulationGradOperation: Operation = {
  name: "modulation_grad",
  infer([, x]) {
    const [batch, , width] = x!.shape as [number, number, number];
    return [1, 2].map(() => ({ shape: [batch, 1, width], dtype: "f32" }));
  },
  lower(lowering, node) {
    const x = node.inputs[1]!;
    const [batch, tokens, width] = x.shape as [number, number, number];
    const perChunk = chunkLength(batch * width, tokens, lowering.target.software);
    const chunks = Math.ceil(tokens / perChunk);
    const results = node.outputs.map((t) => lowering.slot(t));
    const outputs = chunks === 1 ? results : results.map(() => lowering.scratch(batch * chunks * width));
    const grid = grid1d(batch * chunks * width, 64, lowering.target);
    lowering.call({
      label: "modulation grad",
      source: modulationSource,
      constants: { X: x.dtype },
      inputs: node.inputs.map((t) => lowering.slot(t)),
      outputs,
      params: [batch, tokens, width, chunks, perChunk, grid[0]],
      grid,
      flops: 5 * x.size,
    });
    if (chunks === 1) return;
    results.forEach((out, i) => {
      const sizes = { outer: batch, length: chunks, inner: width, chunks: 1, perChunk: chunks };
      pass(lowering, node, outputs[i]!, out, { ...sizes, dtype: "f32", last: true });
    });
  },
};

function normalise(x: Tensor, width: number, eps: number, rms: boolean): Tensor {
  return x.graph.apply(normOperation, [x], { width, eps, rms })[0]!;
}

/** LayerNorm over the last dimension; `gain` and `bias` are [D]. */
export function layerNorm(x: Tensor, eps: number, gain?: Tensor, bias?: Tensor): Tensor {
  let y = normalise(x, x.dim(-1), eps, false);
  if (gain) y = mul(y, gain);
  return bias ? add(y, bias) : y;
}

/** LayerNorm without affine part, then n (1 + scale) + shift with scale and shift [B, 1, D] (adaLN). */
export function modulatedLayerNorm(x: Tensor, eps: number, scale: Tensor, shift: Tensor): Tensor {
  const width = x.dim(-1);
  const parts = [x.shape[0], 1, width];
  const fits = x.rank === 3 && [scale, shift].every((t) => t.dtype === "f32" && sameShape(t.shape, parts as Shape));
  if (!x.graph.fused || !fits) return add(scaleBy(normalise(x, width, eps, false), scale), shift);
  const epilogue: PointwiseStep[] = [
    { name: "scale_by", operand: 1 },
    { name: "add", operand: 2 },
  ];
  return x.graph.apply(modulatedNormOperation, [x, scale, shift], { width, eps, rms: false, epilogue })[0]!;
}

/** RMSNorm over groups of `gain.size` channels at the end of the last dimension (a head, or the whole width). */
export function rmsNorm(x: Tensor, eps: number, gain: Tensor): Tensor {
  const width = gain.size;
  const rows = reshape(x, [x.size / width, width]);
  return reshape(mul(normalise(rows, width, eps, true), gain), x.shape);
}

/** GroupNorm on NCHW; `gain` and `bias` are [C]. */
export function groupNorm(x: Tensor, groups: number, eps: number, gain: Tensor, bias: Tensor): Tensor {
  const [n, c, h, w] = x.shape as [number, number, number, number];
  if (c % groups !== 0) throw new Error(`${groups} groups do not divide ${c} channels`);
  const y = normalise(x, (c / groups) * h * w, eps, false);
  return add(mul(reshape(y, [n, c, h, w]), reshape(gain, [c, 1, 1])), reshape(bias, [c, 1, 1]));
}

/** x / ‖x‖ over the last dimension; the tiny eps keeps a zero row at zero. */
export function l2Normalise(x: Tensor): Tensor {
  const width = x.dim(-1);
  return affine(normalise(x, width, 1e-24 / width, true), 1 / Math.sqrt(width), 0);
}
