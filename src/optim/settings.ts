// What a caller says about an optimizer: its kind, its numbers, and which pools it trains. Names and defaults are those
// of the implementations that the kinds are compared with (torch, transformers, prodigyopt, bitsandbytes).

import type { Pool } from "../tensor/variable.ts";

export const OPTIMIZER_KINDS = ["adamw", "adamw8bit", "lion", "adafactor", "prodigy", "sgd"] as const;
export type OptimizerKind = (typeof OPTIMIZER_KINDS)[number];

/** Parameters that share decay and rate; their pool must hold all its variables before the optimizer is made. */
export interface ParameterGroup {
  pool: Pool;
  /** Instead of the optimizer's own weight decay. */
  weightDecay?: number;
  /** Factor on the learning rate, 1 by default; 0 leaves the group as it is. */
  rateFactor?: number;
}

/** Prodigy (Mishchenko & Defazio 2023); `beta3` is the square root of beta2 where it is not given. */
export interface ProdigyOptions {
  beta3?: number;
  /** Weight decay apart from the gradient, as AdamW; otherwise it is added to the gradient. True by default. */
  decouple?: boolean;
  useBiasCorrection?: boolean;
  /** Leaves the learning rate out of the estimate's denominator, so that a warm-up does not raise the estimate. */
  safeguardWarmup?: boolean;
  /** First estimate of the distance, 1e-6 by default. */
  d0?: number;
  /** Factor on the estimate, 1 by default: the number to tune instead of the rate. */
  dCoef?: number;
  /** Largest factor by which the estimate grows in one step; unbounded by default. */
  growthRate?: number;
  /** The estimate looks at every `sliceP`-th value of a tensor only, 1 by default; saves memory. */
  sliceP?: number;
}

/** Adafactor (Shazeer & Stern 2018) with the options of transformers' class. */
export interface AdafactorOptions {
  /** Factor on the rate: the root mean square of the tensor, at least `epsilonScale`. True by default. */
  scaleParameter?: boolean;
  /** The rate is min(0.01, 1 / sqrt(t)) instead of the one given to `write`. True by default. */
  relativeStep?: boolean;
  /** With `relativeStep`: min(1e-6 t, 1 / sqrt(t)). */
  warmupInit?: boolean;
  /** Largest root mean square of an update before the rate, 1 by default. */
  clipThreshold?: number;
  /** The second moment's decay is 1 - t^decayRate, -0.8 by default. */
  decayRate?: number;
  /** Decay of a first moment; without one there is none. */
  beta1?: number | null;
  /** Added to squared gradients, 1e-30 by default. */
  epsilonSquare?: number;
  /** Smallest root mean square in `scaleParameter`, 1e-3 by default. */
  epsilonScale?: number;
}

export interface LossScaleSettings {
  initial: number;
  /** Steps without overflow after which the scale doubles. */
  growthInterval: number;
}

export interface OptimizerSettings {
  kind: OptimizerKind;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Largest norm of the gradients of all groups together; 0 leaves gradients as they are. */
  maxNorm: number;
  /** Decay of an exponential average of the parameters; none without it. */
  averageDecay?: number;
  /** SGD's momentum, 0 by default. */
  momentum?: number;
  prodigy?: ProdigyOptions;
  adafactor?: AdafactorOptions;
  /** Dynamic scale of the loss, which 16-bit gradients need; null or missing means 1. */
  lossScale?: LossScaleSettings | null;
}

export interface OptimizerReport {
  /** Norm of the gradients of all groups, before clipping, without the loss scale. */
  norm: number;
  /** False where the step was refused because a gradient, a loss or the norm was not finite. */
  finite: boolean;
  /** Norm of the change of all parameters, and norm of the parameters after it. */
  update: number;
  parameters: number;
  /** Prodigy's estimate of the distance, after the step. */
  d?: number;
  /** The scale that the next step's loss must have. */
  lossScale?: number;
}
