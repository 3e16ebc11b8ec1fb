// A pretraining recipe with what the command line changes in it.

import { LongtailError, nearestName } from "../../base/errors.ts";
import { PRETRAIN_PARTS, type PretrainPart } from "../../training/pretrain/jobs.ts";
import { type PretrainSettings, RECIPES, type TrainingNumbers } from "../../training/pretrain/recipes.ts";

export const DEFAULT_RECIPE = "short";

type Flags = Readonly<Record<string, string | true>>;

/** The parts that a word of the command line means. @throws LongtailError E-ARG-062 for another word */
export function partsOf(word: string): PretrainPart[] {
  if (word === "all") return [...PRETRAIN_PARTS];
  const part = PRETRAIN_PARTS.find((name) => name === word);
  if (part) return [part];
  const words = ["all", ...PRETRAIN_PARTS, "evaluate"];
  const near = nearestName(word, words);
  throw new LongtailError("E-ARG-062", {
    what: `there is nothing to pretrain called ${JSON.stringify(word)}`,
    fix: `${near ? `did you mean ${near}? ` : ""}use one of ${words.join(", ")}`,
  });
}

/** A whole number from the flags. @throws LongtailError E-ARG-064 */
export function wholeFlag(flags: Flags, name: string, least: number): number | undefined {
  const text = flags[name];
  if (text === undefined) return undefined;
  const value = Number(text);
  if (typeof text === "string" && Number.isSafeInteger(value) && value >= least) return value;
  throw new LongtailError("E-ARG-064", {
    what: `${String(text)} is not a whole number from ${least} on`,
    where: `--${name}`,
    fix: `give a whole number, --${name}=${Math.max(least, 1)}`,
  });
}

/** @throws LongtailError E-ARG-063 for a recipe that does not exist, E-ARG-064 for a flag that is no number */
export function recipeOf(name: string, flags: Flags): PretrainSettings {
  const recipe = Object.hasOwn(RECIPES, name) ? RECIPES[name]! : null;
  if (!recipe) {
    const names = Object.keys(RECIPES);
    const near = nearestName(name, names);
    throw new LongtailError("E-ARG-063", {
      what: `there is no pretraining recipe ${JSON.stringify(name)}`,
      fix: `${near ? `did you mean ${near}? ` : ""}use one of ${names.join(", ")}`,
    });
  }
  const changes: Partial<TrainingNumbers> = {};
  const steps = wholeFlag(flags, "steps", 1);
  const batch = wholeFlag(flags, "batch", 2);
  const seed = wholeFlag(flags, "seed", 0);
  if (steps !== undefined) changes.steps = steps;
  if (batch !== undefined) changes.batch = batch;
  if (seed !== undefined) changes.seed = seed;
  if (flags["rate"] !== undefined) {
    const rate = Number(flags["rate"]);
    if (!(rate > 0)) {
      throw new LongtailError("E-ARG-064", {
        what: `${String(flags["rate"])} is not a number above 0`,
        where: "--rate",
        fix: "give a learning rate, --rate=0.001",
      });
    }
    changes.rate = rate;
  }
  const accumulation = wholeFlag(flags, "accumulation", 1) ?? recipe.generator.accumulation;
  const settings: PretrainSettings = {
    ...recipe,
    itemStride: wholeFlag(flags, "stride", 1) ?? recipe.itemStride,
    generator: { ...recipe.generator, ...changes, accumulation },
    reward: { ...recipe.reward, ...changes },
    // The judge keeps a seed of its own: it must not be the reward's twin.
    judge: { ...recipe.judge, ...changes, seed: (changes.seed ?? 0) + recipe.judge.seed },
  };
  if (settings.generator.batch % accumulation !== 0) {
    throw new LongtailError("E-ARG-064", {
      what: `a batch of ${settings.generator.batch} does not divide into ${accumulation} micro-batches`,
      where: "--accumulation",
      fix: "choose a divisor of the batch",
    });
  }
  return settings;
}
