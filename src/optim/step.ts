// The parts of an optimizer step that all kinds share: the norm of all gradients, the factor that clips and unscales
// them, the flag that refuses a step, the dynamic loss scale, the average of the parameters, and the report. Nothing is
// waited for: every decision stays on the device.

import averageSource from "../../shaders/average.wgsl" with { type: "text" };
import clipScaleSource from "../../shaders/clip_scale.wgsl" with { type: "text" };
import finiteFlagSource from "../../shaders/finite_flag.wgsl" with { type: "text" };
import lossScaleSource from "../../shaders/loss_scale.wgsl" with { type: "text" };
import reportSource from "../../shaders/optimizer_report.wgsl" with { type: "text" };
import sumOfSquaresSource from "../../shaders/sum_of_squares.wgsl" with { type: "text" };
import { vectorLanes } from "../gpu/kernel_limits.ts";
import { lowerFill } from "../ops/pointwise.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import { foldGrid, type Lowering, type Slot } from "../tensor/lower.ts";
import type { Session } from "../tensor/session.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import { poolSegments } from "./segments.ts";

/** Vectors of four values that a workgroup of the flat kernels takes; the kernels hold the same number. */
const CHUNK = 1024;

/** Words a group in the variable `scalars` and in the kernels' `state`. */
export const GROUP_WORDS = 16;
/**
 * Words that have the same meaning for all kinds. The host writes `averageRest` (1 - decay of the average) and `maxNorm`;
 * the device adds the norm, the factor on gradients, and 1 where the step is refused. The others are the kind's own.
 */
export const WORD = { averageRest: 7, maxNorm: 8, norm: 13, factor: 14, stopped: 15 } as const;

/** Places in the variable `report`, f32 [8]. */
export const REPORT = { norm: 0, notFinite: 1, update: 2, parameters: 3, d: 4, lossScale: 5 } as const;
export const REPORT_WORDS = 8;

/** A parameter group with its twins and its own numbers. */
export interface Group {
  index: number;
  parameters: Pool;
  gradients: Pool;
  weightDecay: number;
  rateFactor: number;
}

/** One flat segment of a group's pools and its place among the chunks of all groups. */
export interface Stretch {
  group: number;
  segment: number;
  vectors: number;
  chunks: number;
  /** Place of the first chunk among all chunks. */
  first: number;
  grid: [number, number, number];
}

/** What a kind's kernels are given. */
export interface StepContext {
  stretches: readonly Stretch[];
  /** Sum over the stretches. */
  chunks: number;
  /** f32 [GROUP_WORDS] a group. */
  state: Slot;
  report: Slot;
}

/** What a kind's kernels leave: pairs (sum of squares of the change, of the parameters) for the report. */
export interface Parts {
  parts: Slot;
  count: number;
}

/** One kind of optimizer: its state and its kernels. */
export interface UpdateRule {
  /** Pools that a checkpoint must hold, by the name of their group of tensors there. */
  readonly state: Readonly<Record<string, Pool>>;
  /** Fills a group's words for step `t`, counted from 1, in double precision as far as it matters. */
  scalars(group: Group, rate: number, t: number, words: Float32Array): void;
  /** True where words 0 and 2 hold what AdamW's corrections of the step count multiply; see loss_scale.wgsl. */
  readonly corrected?: boolean;
  /** Constants that the kernels need; called while a plan is traced. */
  prepare?(graph: Graph): void;
  lower(lowering: Lowering, context: StepContext): Parts;
  /** Writes starting values other than zero. */
  initialise?(session: Session): void;
  /** Copies what the rule remembers of the starting values. */
  lowerBegin?(lowering: Lowering): void;
}

/** Names a pool of state: the plain name for the first group, so that one group's checkpoints read well. */
export const stateName = (name: string, group: number): string => (group === 0 ? name : `${name}_${group}`);

export function stretchesOf(lowering: Lowering, groups: readonly Group[]): Stretch[] {
  let first = 0;
  return groups.flatMap(({ index, parameters }) =>
    poolSegments(parameters).map((variable, segment) => {
      const vectors = variable.size / 4;
      const chunks = Math.ceil(vectors / CHUNK);
      const stretch: Stretch = {
        group: index,
        segment,
        vectors,
        chunks,
        first,
        grid: foldGrid(chunks, lowering.target.maxWorkgroups),
      };
      first += chunks;
      return stretch;
    }),
  );
}

export const chunkCount = (stretches: readonly Stretch[]): number => stretches.reduce((n, s) => n + s.chunks, 0);

/** The words of a flat kernel's uniform: vectors, chunks, first, fold, base of the group's words. */
export const stretchWords = (s: Stretch): number[] => [s.vectors, s.chunks, s.first, s.grid[0], s.group * GROUP_WORDS];

/** Memory of one segment of a pool. */
export const segmentSlot = (lowering: Lowering, pool: Pool, segment: number, dtype: "f32" | "u32" = "f32"): Slot =>
  lowering.variable(poolSegments(pool, dtype)[segment]!);

/** Sets all gradients to zero. */
export function lowerClear(lowering: Lowering, groups: readonly Group[]): void {
  for (const { gradients } of groups) {
    for (const segment of poolSegments(gradients)) {
      lowerFill(lowering, lowering.variable(segment), segment.size, 0, "clear gradients");
    }
  }
}

/** Norm, clip factor and finite flag over all segments; returns the state that the update reads. */
export function lowerClip(
  lowering: Lowering,
  groups: readonly Group[],
  stretches: readonly Stretch[],
  scalars: Variable,
  lossScale: Variable | null,
  loss: Tensor | undefined,
): Slot {
  const chunks = chunkCount(stretches);
  // Four words at least: wgpu checks a binding's size against the kernel before it where both have the same layout, and
  // the sum of squares reads vectors of four.
  const sums = lowering.scratch(Math.max(4, chunks));
  const flags = lowering.scratch(Math.max(4, chunks), "u32");
  for (const stretch of stretches) {
    lowering.call({
      label: "sum of squares",
      source: sumOfSquaresSource,
      // On a CPU adapter lanes that wait for each other are one vector: every further one is a switch between coroutines.
      constants: { LANES: lowering.target.software ? vectorLanes(lowering.target.kernels) : 64 },
      inputs: [segmentSlot(lowering, groups[stretch.group]!.gradients, stretch.segment)],
      outputs: [sums, flags],
      params: stretchWords(stretch),
      grid: stretch.grid,
      flops: 8 * stretch.vectors,
    });
  }
  const flag = lowering.scratch(4, "u32");
  lowering.call({
    label: "finite flag",
    source: finiteFlagSource,
    constants: { LOSS: loss !== undefined, FLAG: loss ? 3 : 2 },
    inputs: loss ? [flags, lowering.slot(loss)] : [flags],
    outputs: [flag],
    params: [chunks, loss?.size ?? 0],
    grid: [1, 1, 1],
  });
  const state = lowering.scratch(GROUP_WORDS * groups.length);
  lowering.call({
    label: "clip scale",
    source: clipScaleSource,
    constants: { LOSS_SCALE: lossScale !== null, STATE: lossScale ? 5 : 4 },
    inputs: [sums, flag, lowering.variable(scalars), ...(lossScale ? [lowering.variable(lossScale)] : [])],
    outputs: [state],
    params: [chunks, groups.length],
    grid: [1, 1, 1],
    flops: chunks,
  });
  return state;
}

/** Halves or doubles the loss scale, and gives AdamW the corrections of the steps that were really taken. */
export function lowerLossScale(
  lowering: Lowering,
  context: StepContext,
  groups: number,
  scale: { value: Variable; counters: Variable },
  growthInterval: number,
  corrected: boolean,
): void {
  lowering.call({
    label: "loss scale",
    source: lossScaleSource,
    constants: { CORRECTED: corrected },
    inputs: [],
    outputs: [],
    inPlace: [context.state, context.report, lowering.variable(scale.value), lowering.variable(scale.counters)],
    params: [groups, growthInterval],
    grid: [1, 1, 1],
  });
}

/** average += (1 - decay) · (parameters - average), after the update. */
export function lowerAverage(
  lowering: Lowering,
  context: StepContext,
  groups: readonly Group[],
  averages: readonly Pool[],
): void {
  for (const stretch of context.stretches) {
    lowering.call({
      label: "average",
      source: averageSource,
      inputs: [context.state, segmentSlot(lowering, groups[stretch.group]!.parameters, stretch.segment)],
      outputs: [],
      inPlace: [segmentSlot(lowering, averages[stretch.group]!, stretch.segment)],
      params: stretchWords(stretch),
      grid: stretch.grid,
      flops: 12 * stretch.vectors,
    });
  }
}

export function lowerReport(lowering: Lowering, context: StepContext, { parts, count }: Parts): void {
  lowering.call({
    label: "optimizer report",
    source: reportSource,
    inputs: [context.state, parts],
    outputs: [],
    inPlace: [context.report],
    params: [count],
    grid: [1, 1, 1],
    flops: 2 * count,
  });
}
