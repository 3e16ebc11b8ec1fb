// What an update reports, read from the few numbers that its plans leave behind, and how a branch turns its two cosines
// into a reward (names follow arXiv 2509.06942: D and D' are the discounts).

import type { OptimizerReport } from "../../optim/optimizer.ts";
import type { Branch } from "./branches.ts";

export interface MicroReport {
  branch: Branch;
  /** Already divided by the number of prompts and branches. */
  loss: number;
  reward: number[];
  positive: number[];
  negative: number[];
}

export interface UpdateReport {
  step: number;
  rate: number;
  m0: number;
  micro: MicroReport[];
  loss: number;
  /** Mean reward, and means of the two cosines of the first reward. */
  reward: number;
  positive: number;
  negative: number;
  /** Global gradient norm before clipping. */
  gradientNorm: number;
  /** False where a gradient or the loss was not finite: nothing was changed then. */
  finite: boolean;
  /** ‖ΔW‖ of this update / ‖W‖. */
  updateRatio: number;
}

/** What is needed to read the reports of one update. */
export interface UpdateFacts {
  step: number;
  rate: number;
  m0: number;
  branches: readonly Branch[];
  /** Prompts of a micro-batch, and samples of a micro-step: more where branches are stacked. */
  batch: number;
  samples: number;
}

/**
 * @param reports one row a micro-step: loss, then rewards, positive and negative cosines of its samples
 * @param optimizer what the optimizer did
 */
export function summariseUpdate(update: UpdateFacts, reports: Float32Array, optimizer: OptimizerReport): UpdateReport {
  const { step, rate, m0, branches, batch, samples } = update;
  const width = 1 + 3 * samples;
  const micro: MicroReport[] = [];
  for (let slot = 0; slot < reports.length / width; slot++) {
    const row = reports.subarray(slot * width, (slot + 1) * width);
    const group = samples > batch ? branches : [branches[slot % branches.length]!];
    group.forEach((branch, g) => {
      const at = (k: number) => [...row.subarray(1 + k * samples + g * batch, 1 + k * samples + (g + 1) * batch)];
      micro.push({ branch, loss: row[0]! / group.length, reward: at(0), positive: at(1), negative: at(2) });
    });
  }
  const mean = (pick: (m: MicroReport) => number[]) => {
    const values = micro.flatMap(pick);
    return values.reduce((a, b) => a + b, 0) / values.length;
  };
  return {
    step,
    rate,
    m0,
    micro,
    loss: micro.reduce((sum, m) => sum + m.loss, 0),
    reward: mean((m) => m.reward),
    positive: mean((m) => m.positive),
    negative: mean((m) => m.negative),
    gradientNorm: optimizer.norm,
    finite: optimizer.finite,
    updateRatio: optimizer.update / Math.max(1e-30, optimizer.parameters),
  };
}

/**
 * Factors of the two cosines in the reward of a branch: the denoise branch has (1 + D) s+ - s-, the inversion branch
 * (1 + D') s- - s+, because the velocity enters its recovered picture with the opposite sign. Without a negative text the
 * reward is s+, with that sign.
 */
export function rewardFactors(branch: Branch, hasNegative: boolean): { positive: number; negative: number } {
  const f = Math.fround;
  const own = hasNegative ? f(1 + f(branch.discount)) : 1;
  const other = hasNegative ? -1 : 0;
  if (branch.kind === "denoise") return { positive: own, negative: other };
  return hasNegative ? { positive: -1, negative: own } : { positive: -1, negative: 0 };
}
