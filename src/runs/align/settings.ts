// From configuration keys to the settings of SRPO's trainer.

import type { BranchKind } from "../../training/srpo/branches.ts";
import type { SrpoSettings } from "../../training/srpo/trainer.ts";
import type { Config } from "../config/schema.ts";
import { optimizerSettings, rateSchedule } from "../optimizer_settings.ts";

export function branchKinds(config: Config): BranchKind[] {
  const { branches } = config.align;
  return branches === "both" ? ["denoise", "inversion"] : [branches];
}

/** `stacked = "auto"`: on a CPU adapter two branches in one batch save nothing and cost memory; a GPU has room to fill. */
export function srpoSettings(config: Config, software: boolean): SrpoSettings {
  const { align, train } = config;
  const branches = branchKinds(config);
  return {
    batch: align.batch,
    accumulation: train.accumulation,
    rolloutSteps: align.rollout_steps,
    shift: align.shift,
    branch: {
      sigmaHigh: align.sigma_high,
      sigmaLow: align.sigma_low,
      timestepLength: align.timestep_length,
      groundtruthRatio: align.groundtruth_ratio,
      discountPos: [align.discount_pos[0]!, align.discount_pos[1]!],
      discountInv: [align.discount_inv[0]!, align.discount_inv[1]!],
    },
    branches,
    stacked: branches.length > 1 && (align.stacked === "yes" || (align.stacked === "auto" && !software)),
    timestepMargin: align.timestep_margin,
    threshold: align.threshold,
    offline: align.offline,
    sameNoise: align.same_noise,
    rolloutGuidance: align.rollout_guidance,
    trainGuidance: align.train_guidance,
    seed: train.seed,
    optimizer: optimizerSettings(config),
    // A ladder has no length yet; checks.ts refuses schedules that need one.
    schedule: rateSchedule(config, align.steps === "ladder" ? 0 : align.steps),
    checkpointing: train.checkpointing,
  };
}
