// What one key alone cannot show: combinations that make no sense (an upside-down sigma range, a move longer than the
// schedule) are refused before anything is loaded, and combinations that merely surprise are warned about.

import { LongtailError } from "../../base/errors.ts";
import type { Config } from "./schema.ts";

export interface ConfigWarning {
  code: string;
  text: string;
}

/** Learning rates of the measured recipes, taken by `optim.lr = "auto"`. */
const RECIPE_LR = { full: 3e-5, adapter: 6e-4 };

/** The rate for what is trained and by which optimizer: Lion's steps are signs, Prodigy finds the scale itself. */
export function recipeRate(adapter: Config["adapter"]["kind"], optimizer: Config["optim"]["kind"]): number {
  if (optimizer === "prodigy") return 1;
  const rate = adapter === "full" ? RECIPE_LR.full : RECIPE_LR.adapter;
  return optimizer === "lion" ? rate / 10 : rate;
}

/** A discount is a weight beside 1; beyond this the plain term drowns the pair. */
const LARGEST_DISCOUNT = 10;

/** Direct-Align's longest move k0 = floor((1 − ratio)·N) + 1, in training sigmas (the double product, as in the public script). */
export function longestMove(groundtruthRatio: number, timestepLength: number): number {
  return Math.floor((1 - groundtruthRatio) * timestepLength) + 1;
}

type WhereOf = (key: string) => string;

/**
 * Checks combinations of keys. Throws the first E-CFG-010..019 that applies; returns warnings.
 * @param whereOf tells where a key's value was given
 */
export function checkConfig(config: Config, whereOf: WhereOf): ConfigWarning[] {
  const refuse = (code: string, key: string, what: string, why: string, fix: string): never => {
    throw new LongtailError(code, {
      where: whereOf(key) === "configuration" ? key : `${whereOf(key)}, ${key}`,
      what,
      why,
      fix,
    });
  };
  checkSigmas(config, refuse);
  checkSteps(config, refuse);
  checkDiscounts(config, refuse);
  checkTexts(config, refuse);
  checkOptimizer(config, refuse);
  return warningsOf(config);
}

type Refuse = (code: string, key: string, what: string, why: string, fix: string) => never;

function checkSigmas({ align }: Config, refuse: Refuse): void {
  const { sigma_high: high, sigma_low: low } = align;
  if (!(high > 0 && high < 1)) {
    refuse(
      "E-CFG-010",
      "align.sigma_high",
      `sigma_high = ${high} is outside (0, 1)`,
      "sigma is the share of noise, and the recovered picture is divided by 1 - sigma",
      "take a value such as 0.9643",
    );
  }
  if (!(low >= 0 && low < 1)) {
    refuse(
      "E-CFG-010",
      "align.sigma_low",
      `sigma_low = ${low} is outside [0, 1)`,
      "sigma is the share of noise",
      "take a value such as 0.5",
    );
  }
  if (low >= high) {
    refuse(
      "E-CFG-010",
      "align.sigma_low",
      `sigma_low = ${low} is not below sigma_high = ${high}`,
      "the training range runs from sigma_high down to sigma_low",
      "swap the two, or lower sigma_low",
    );
  }
}

function checkSteps({ align }: Config, refuse: Refuse): void {
  const { timestep_length: n, timestep_margin: margin, groundtruth_ratio: ratio, ladder } = align;
  if (align.steps === "ladder") {
    if (!ladder.length) {
      refuse(
        "E-CFG-011",
        "align.ladder",
        "the ladder is empty",
        'align.steps = "ladder" chooses from it',
        "use align.ladder = [40, 80, 160] or give align.steps a number",
      );
    }
    const bad = ladder.findIndex((steps, i) => i > 0 && steps <= ladder[i - 1]!);
    if (bad > 0) {
      refuse(
        "E-CFG-011",
        "align.ladder",
        `the ladder does not rise at position ${bad + 1} (${ladder[bad - 1]}, ${ladder[bad]})`,
        "a faster adapter takes a later number",
        "sort the numbers and remove repeats",
      );
    }
  }
  if (n < 2 * margin + 1) {
    refuse(
      "E-CFG-012",
      "align.timestep_length",
      `N = ${n} leaves no timestep to draw`,
      `m0 is drawn from ${margin} to N - ${margin}`,
      `take at least ${2 * margin + 1}; 1000 is usual`,
    );
  }
  if (!(ratio >= 0 && ratio < 1)) {
    refuse(
      "E-CFG-012",
      "align.groundtruth_ratio",
      `groundtruth_ratio = ${ratio} is outside [0, 1)`,
      "it is the share of the clean picture that a move keeps",
      "0.9 is usual",
    );
  }
  const move = longestMove(ratio, n);
  if (move > n / 2) {
    refuse(
      "E-CFG-012",
      "align.groundtruth_ratio",
      `a move of k = ${move} sigmas is longer than half of N = ${n}`,
      "k = min(N - m0, k, m0) never reaches it, so the ratio would mean nothing",
      `raise groundtruth_ratio to at least ${Math.ceil((0.5 + 1 / n) * 1000) / 1000}`,
    );
  }
}

function checkDiscounts({ align }: Config, refuse: Refuse): void {
  for (const key of ["discount_pos", "discount_inv"] as const) {
    const wrong = align[key].find((value) => !(value >= 0 && value <= LARGEST_DISCOUNT));
    if (wrong !== undefined) {
      refuse(
        "E-CFG-013",
        `align.${key}`,
        `${key} holds ${wrong}, outside 0 to ${LARGEST_DISCOUNT}`,
        "a discount is the weight of the plain reward beside the pair's difference",
        "values from 0 to 1 are usual",
      );
    }
  }
}

function checkTexts({ align, data, eval: evaluation }: Config, refuse: Refuse): void {
  if (align.pair === "control-words") {
    for (const key of ["positive_words", "negative_words"] as const) {
      if (!align[key].length) {
        refuse(
          "E-CFG-014",
          `align.${key}`,
          `${key} is empty`,
          'align.pair = "control-words" takes its words from it',
          "give at least one word, or another align.pair",
        );
      }
    }
  }
  if (!align.rewards.length || align.rewards.every(({ weight }) => weight === 0)) {
    refuse(
      "E-CFG-015",
      "align.rewards",
      align.rewards.length ? "every reward has weight 0" : "there is no reward",
      "SRPO has nothing to raise",
      "add an [[align.rewards]] table with kind, path and weight",
    );
  }
  if (align.offline && data.pictures === "none") {
    refuse(
      "E-CFG-016",
      "data.pictures",
      "offline mode has no pictures",
      "align.offline = true takes the items' real pictures",
      "name the pictures in data.pictures, or set align.offline = false",
    );
  }
  for (const [key, template] of [
    ["data.prompt", data.prompt],
    ["eval.caption", evaluation.caption],
  ] as const) {
    const unknown = [...template.matchAll(/\{([^}]*)\}/g)]
      .map((match) => match[1]!)
      .find((name) => !["item", "category", "region", "style"].includes(name));
    if (unknown !== undefined) {
      refuse(
        "E-CFG-017",
        key,
        `{${unknown}} is not known`,
        "a template knows {item}, {category}, {region} and {style}",
        "use one of those, or remove it",
      );
    }
    if (!template.includes("{item}")) {
      refuse(
        "E-CFG-017",
        key,
        "the template has no {item}",
        "every item would get the same text",
        "put {item} into it",
      );
    }
  }
  for (const [key, template, styles] of [
    ["data.styles", data.prompt, data.styles],
    ["eval.styles", data.prompt, evaluation.styles],
  ] as const) {
    if (template.includes("{style}") && !styles.length) {
      refuse(
        "E-CFG-017",
        key,
        "the list is empty",
        "data.prompt contains {style}",
        "give a style word, or take {style} out of data.prompt",
      );
    }
  }
}

function checkOptimizer({ adapter, optim, align, device }: Config, refuse: Refuse): void {
  if (optim.betas.some((beta) => beta >= 1)) {
    refuse(
      "E-CFG-018",
      "optim.betas",
      `betas are ${optim.betas.join(" and ")}`,
      "a running mean decays with a factor in [0, 1)",
      "0.9 and 0.999 are usual",
    );
  }
  if (adapter.kind !== "full" && Array.isArray(adapter.targets) && !adapter.targets.length) {
    refuse(
      "E-CFG-024",
      "adapter.targets",
      "the list is empty",
      "a LoRA without layers trains nothing",
      'use "diffusers"',
    );
  }
  if (align.stacked === "yes" && align.branches !== "both") {
    refuse(
      "E-CFG-019",
      "align.stacked",
      `there is only the ${align.branches} branch to stack`,
      "stacking puts both branches into one batch",
      'set align.branches = "both" or align.stacked = "auto"',
    );
  }
  if (device.backend === "deno" && device.robust) {
    refuse(
      "E-CFG-025",
      "device.robust",
      "Deno's own WebGPU always keeps its bounds checks",
      "device.robust switches Dawn's",
      "set device.robust = false",
    );
  }
}

function warningsOf({ align, schedule, adapter, optim }: Config): ConfigWarning[] {
  const warnings: ConfigWarning[] = [];
  const fewest = align.steps === "ladder" ? align.ladder[0]! : align.steps;
  if (schedule.warmup >= fewest) {
    warnings.push({
      code: "E-CFG-030",
      text:
        `the warm-up of ${schedule.warmup} updates is not over within ${fewest} updates; the learning rate ends at ` +
        `${((fewest / (schedule.warmup + 1)) * 100).toFixed(0)} % of its peak`,
    });
  }
  if (adapter.kind === "full" && optim.lr > 1e-4) {
    warnings.push({
      code: "E-CFG-031",
      text: `optim.lr = ${optim.lr} is high for full fine-tuning; 3e-5 is the measured recipe`,
    });
  }
  if (align.pair === "mia" && align.discount_pos[1] < 0.5) {
    warnings.push({
      code: "E-CFG-032",
      text: "with MIA pairs a small align.discount_pos leaves the item itself little weight; [1, 1] is the measured recipe",
    });
  }
  return warnings;
}
