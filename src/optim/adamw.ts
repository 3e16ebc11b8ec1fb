// AdamW with gradient clipping on flat pools (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019;
// results as torch.optim.AdamW and torch.nn.utils.clip_grad_norm_). The whole update stays on the device: the gradient
// norm, the clip factor and the finite flag are never waited for, and a step with the flag set changes nothing.

import adamwSource from "../../shaders/adamw.wgsl" with { type: "text" };
import clipScaleSource from "../../shaders/clip_scale.wgsl" with { type: "text" };
import finiteFlagSource from "../../shaders/finite_flag.wgsl" with { type: "text" };
import reportSource from "../../shaders/optimizer_report.wgsl" with { type: "text" };
import sumOfSquaresSource from "../../shaders/sum_of_squares.wgsl" with { type: "text" };
import type { Graph, Operation, Tensor } from "../tensor/graph.ts";
import { foldGrid, type Lowering, type Slot } from "../tensor/lower.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import { checkTwin, poolSegments } from "./segments.ts";

/** Vectors of four values that a workgroup takes; the kernels hold the same number. */
const CHUNK = 1024;

export interface AdamWSettings {
  /** Learning rate of this step. */
  rate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Largest gradient norm; 0 leaves gradients as they are. */
  maxNorm: number;
  /** Decay of the average of the parameters; used where the plan has an average. */
  averageDecay?: number;
}

/** Values in the variable `scalars`. */
export const ADAMW_SCALARS = 16;

/**
 * Contents of `scalars` for step `t`, counted from 1: all that changes from step to step, worked out in double
 * precision (1 - 0.999 in float32 would be off by 5e-5).
 */
export function adamwScalars(settings: AdamWSettings, t: number): Float32Array {
  const { rate, beta1, beta2, epsilon, weightDecay, maxNorm, averageDecay } = settings;
  const out = new Float32Array(ADAMW_SCALARS);
  out[0] = rate / (1 - beta1 ** t);
  out[1] = rate * weightDecay;
  out[2] = 1 / Math.sqrt(1 - beta2 ** t);
  out[3] = epsilon;
  out[4] = 1 - beta1;
  out[5] = beta2;
  out[6] = 1 - beta2;
  out[7] = 1 - (averageDecay ?? 0);
  out[8] = maxNorm;
  return out;
}

/** Places of the values in `report`. */
export const ADAMW_REPORT = { norm: 0, notFinite: 1, update: 2, parameters: 3 } as const;

export interface AdamWPlan {
  parameters: Pool;
  /** Twins of `parameters`. */
  gradients: Pool;
  first: Pool;
  second: Pool;
  /** Receives the exponential average of the parameters; a twin that starts as their copy. */
  average?: Pool;
  /** f32 [ADAMW_SCALARS], written before each run with `adamwScalars`. */
  scalars: Variable;
  /**
   * f32 [4] in the order of ADAMW_REPORT: gradient norm before clipping, 1 where the step was refused because a
   * gradient, a loss or the norm was not finite, norm of the update, norm of the parameters after it.
   */
  report: Variable;
  /** Losses of the step, f32 of any shape: a NaN or an infinity among them refuses the step too. */
  loss?: Tensor;
}

const adamwOperation: Operation = {
  name: "adamw",
  sideEffect: true,
  infer: () => [],
  lower(lowering, node) {
    const plan = node.attributes as unknown as AdamWPlan;
    const ranges = segmentRanges(lowering, plan.parameters);
    const state = clip(lowering, plan.gradients, ranges, plan.scalars, node.inputs[0]);
    update(lowering, plan, ranges, state);
  },
};

interface Range {
  segment: number;
  vectors: number;
  chunks: number;
  /** Place of the segment's first chunk among all chunks. */
  first: number;
  grid: [number, number, number];
}

function segmentRanges(lowering: Lowering, pool: Pool): Range[] {
  let first = 0;
  return poolSegments(pool).map((variable, segment) => {
    const vectors = variable.size / 4;
    const chunks = Math.ceil(vectors / CHUNK);
    const range = { segment, vectors, chunks, first, grid: foldGrid(chunks, lowering.target.maxWorkgroups) };
    first += chunks;
    return range;
  });
}

const chunkCount = (ranges: readonly Range[]): number => ranges.reduce((n, r) => n + r.chunks, 0);
const words = (r: Range): number[] => [r.vectors, r.chunks, r.first, r.grid[0]];

/** Norm, clip factor and finite flag over all segments; returns the state that the update reads. */
function clip(
  lowering: Lowering,
  gradients: Pool,
  ranges: readonly Range[],
  scalars: Variable,
  loss: Tensor | undefined,
): Slot {
  const chunks = chunkCount(ranges);
  // Four words at least: wgpu checks a binding's size against the kernel before it where both have the same layout, and
  // the sum of squares reads vectors of four.
  const sums = lowering.scratch(Math.max(4, chunks));
  const flags = lowering.scratch(Math.max(4, chunks), "u32");
  for (const range of ranges) {
    lowering.call({
      label: "sum of squares",
      source: sumOfSquaresSource,
      inputs: [lowering.variable(poolSegments(gradients)[range.segment]!)],
      outputs: [sums, flags],
      params: words(range),
      grid: range.grid,
      flops: 8 * range.vectors,
    });
  }
  const flag = lowering.scratch(1, "u32");
  lowering.call({
    label: "finite flag",
    source: finiteFlagSource,
    constants: { LOSS: loss !== undefined, FLAG: loss ? 3 : 2 },
    inputs: loss ? [flags, lowering.slot(loss)] : [flags],
    outputs: [flag],
    params: [chunks, loss?.size ?? 0],
    grid: [1, 1, 1],
  });
  const state = lowering.scratch(ADAMW_SCALARS);
  lowering.call({
    label: "clip scale",
    source: clipScaleSource,
    inputs: [sums, flag, lowering.variable(scalars)],
    outputs: [state],
    params: [chunks],
    grid: [1, 1, 1],
    flops: chunks,
  });
  return state;
}

function update(lowering: Lowering, plan: AdamWPlan, ranges: readonly Range[], state: Slot): void {
  const chunks = chunkCount(ranges);
  const parts = lowering.scratch(2 * chunks);
  const changed = [plan.parameters, plan.first, plan.second, ...(plan.average ? [plan.average] : [])];
  for (const range of ranges) {
    const segment = (pool: Pool): Slot => lowering.variable(poolSegments(pool)[range.segment]!);
    lowering.call({
      label: "adamw",
      source: adamwSource,
      constants: { EMA: plan.average !== undefined },
      inputs: [segment(plan.gradients), state],
      outputs: [parts],
      inPlace: changed.map(segment),
      params: words(range),
      grid: range.grid,
      flops: 80 * range.vectors,
    });
  }
  lowering.call({
    label: "optimizer report",
    source: reportSource,
    inputs: [state, parts],
    outputs: [],
    inPlace: [lowering.variable(plan.report)],
    params: [chunks],
    grid: [1, 1, 1],
    flops: 2 * chunks,
  });
}

/**
 * Appends one AdamW step on all of `parameters` to the plan. All pools must have their variables already; a step reads
 * gradients and `scalars` and changes parameters, moments, `average` and `report` in place. Gradients stay as they are:
 * the caller clears them. Throws a plain Error where a twin's layout differs or a variable has not the size named
 * above.
 */
export function traceAdamW(graph: Graph, plan: AdamWPlan): void {
  for (const twin of [plan.gradients, plan.first, plan.second, plan.average])
    if (twin) checkTwin(plan.parameters, twin);
  if (plan.parameters.variables.length === 0) throw new Error(`pool ${plan.parameters.name} has no parameters`);
  if (plan.scalars.size !== ADAMW_SCALARS) throw new Error(`${plan.scalars.name} must hold ${ADAMW_SCALARS} values`);
  if (plan.report.size !== 4) throw new Error(`${plan.report.name} must hold 4 values`);
  if (plan.loss && plan.loss.dtype !== "f32") throw new Error("the loss must be f32");
  for (const pool of [plan.parameters, plan.gradients, plan.first, plan.second]) poolSegments(pool);
  graph.apply(adamwOperation, plan.loss ? [plan.loss] : [], { ...plan });
}
