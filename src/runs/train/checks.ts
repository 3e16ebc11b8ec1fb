// What makes no sense in a training run's configuration, told before anything is opened, and the --data flag, which stands
// for a list that nobody wants to write on a command line.

import { LongtailError } from "../../base/errors.ts";
import { type ResolvedConfig, withValue } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { checkOffload } from "../offload.ts";

/** The configuration with the pictures of `--data` in place of its sets. */
export function withDataFlag(resolved: ResolvedConfig, flag: string | true | undefined): ResolvedConfig {
  if (typeof flag !== "string") return resolved;
  const set = {
    path: flag,
    caption: "",
    repeats: 1,
    weight: 1,
    prior: false,
    split: "train",
    items: [],
    styles: [],
    image_column: "",
    caption_column: "",
  };
  return withValue(resolved, "data.sets", [set], "command line --data");
}

/** @throws LongtailError E-CFG-050 without pictures, E-CFG-051 for keys that exclude each other, E-CFG-054 for wrong numbers */
export function checkTraining(config: Config): void {
  checkOffload(config);
  const refuse = (code: string, where: string, what: string, why: string, fix: string): never => {
    throw new LongtailError(code, { where, what, why, fix });
  };
  const { data, adapter, optim, save } = config;
  if (!data.sets.some((set) => set.split === "train" && !set.prior)) {
    refuse(
      "E-CFG-050",
      "data.sets",
      "there are no pictures to train on",
      'no [[data.sets]] has split = "train" without prior = true',
      "add a [[data.sets]] table with a path, or give --data=PATH",
    );
  }
  if (adapter.kind === "full" && adapter.start !== "none") {
    refuse(
      "E-CFG-051",
      "adapter.start",
      "full fine-tuning starts from no adapter",
      'adapter.kind is "full"',
      "merge the file into the model first (longtail lora merge), or train an adapter",
    );
  }
  if (adapter.kind === "full" && config.model.storage !== "auto" && config.model.storage !== "f32") {
    refuse(
      "E-CFG-051",
      "model.storage",
      `trained weights cannot be stored as ${config.model.storage}`,
      'adapter.kind is "full", and updates are far below the resolution of 16 bits',
      'use model.storage = "auto", or train an adapter',
    );
  }
  if (optim.ema >= 1) {
    refuse(
      "E-CFG-054",
      "optim.ema",
      `a running mean with decay ${optim.ema} never moves`,
      "each update gives the new weights the share 1 - decay",
      "0.99 to 0.9999 is usual",
    );
  }
  if (data.keep_tags > 0 && !data.shuffle_tags) {
    refuse(
      "E-CFG-051",
      "data.keep_tags",
      "tags keep their places where nothing is shuffled",
      "data.shuffle_tags is false",
      "set data.shuffle_tags = true, or keep_tags = 0",
    );
  }
  if (data.min_side > 0 && data.max_side > 0 && data.min_side > data.max_side) {
    refuse(
      "E-CFG-054",
      "data.min_side",
      `min_side = ${data.min_side} is above max_side = ${data.max_side}`,
      "no bucket has such sides",
      "swap the two",
    );
  }
  if (save.dtype !== "f32" && adapter.kind === "full") {
    refuse(
      "E-CFG-051",
      "save.dtype",
      "a whole transformer is saved in f32",
      "16 bits would round away most of what a short training changed",
      'use save.dtype = "f32"',
    );
  }
}

/** What a training run may mean, but seldom does. */
export function trainingWarnings({ schedule, train }: Config): { code: string; text: string }[] {
  if (schedule.warmup === 0 || schedule.warmup < train.steps) return [];
  const share = ((train.steps / (schedule.warmup + 1)) * 100).toFixed(0);
  return [
    {
      code: "E-CFG-030",
      text: `the warm-up of ${schedule.warmup} updates is not over within ${train.steps} updates; the learning rate ends at ${share} % of its peak`,
    },
  ];
}
