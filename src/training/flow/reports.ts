// What an update of flow-matching training reports, from the few numbers that its plans leave behind.

import type { OptimizerReport } from "../../optim/optimizer.ts";

export interface FlowReport {
  step: number;
  rate: number;
  /** Weighted mean over the samples of the update: what is differentiated. */
  loss: number;
  /** Global gradient norm before clipping. */
  gradientNorm: number;
  /** False where a gradient or the loss was not finite: nothing was changed then but the loss scale. */
  finite: boolean;
  /** ‖ΔW‖ of this update / ‖W‖. */
  updateRatio: number;
  /** Sigma of each sample, and its loss without any weight. */
  sigmas: number[];
  losses: number[];
  /** Prodigy's estimate of the distance. */
  d?: number;
  lossScale?: number;
}

/** What is known of an update before the device has done it. */
export interface FlowFacts {
  step: number;
  rate: number;
  sigmas: number[];
}

/**
 * @param reports one row a micro-step: its part of the loss, then the losses of its samples
 * @param rows number of micro-steps
 */
export function summariseFlow(
  facts: FlowFacts,
  reports: Float32Array,
  rows: number,
  optimizer: OptimizerReport,
): FlowReport {
  const width = reports.length / rows;
  let loss = 0;
  const losses: number[] = [];
  for (let row = 0; row < rows; row++) {
    loss += reports[row * width]!;
    losses.push(...reports.subarray(row * width + 1, (row + 1) * width));
  }
  return {
    ...facts,
    loss,
    losses,
    gradientNorm: optimizer.norm,
    finite: optimizer.finite,
    updateRatio: optimizer.update / Math.max(1e-30, optimizer.parameters),
    ...(optimizer.d === undefined ? {} : { d: optimizer.d }),
    ...(optimizer.lossScale === undefined ? {} : { lossScale: optimizer.lossScale }),
  };
}
