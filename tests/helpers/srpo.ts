// The options of the srpo_step dump in the trainer's terms.

import { rolloutSigmas } from "../../src/diffusion/sigmas.ts";
import type { BranchOptions } from "../../src/training/srpo/branches.ts";

export interface SrpoDumpOptions {
  sampling_steps: number;
  schedule_steps: number;
  shift: number;
  timestep_length: number;
  groundtruth_ratio: number;
  train_timestep: [number, number];
  discount_pos: [number, number];
  discount_inv: [number, number];
  rollout_guidance: number;
  train_guidance: number;
  threshold: number;
  reward: "hps" | "pickscore";
  branches: number;
  learning_rate: number;
  weight_decay: number;
  max_grad_norm: number;
}

/** The dump names the ends of the training range as entries of a sampler's schedule. */
export function srpoBranchOptions(options: SrpoDumpOptions): BranchOptions {
  const schedule = rolloutSigmas(options.schedule_steps, options.shift);
  return {
    sigmaHigh: schedule[options.train_timestep[0]]!,
    sigmaLow: schedule[options.train_timestep[1]]!,
    timestepLength: options.timestep_length,
    groundtruthRatio: options.groundtruth_ratio,
    discountPos: options.discount_pos,
    discountInv: options.discount_inv,
  };
}
