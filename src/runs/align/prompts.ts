// What an alignment draws and compares, told beforehand: the order of the prompts is a function of the seed, so every text of
// a run is known before its first update, and text encoders can be gone by then.

import {
  alignedItems,
  fillTemplate,
  type PairRule,
  type PromptItem,
  PromptOrder,
  promptPair,
  type TextPair,
} from "../../data/prompts.ts";
import type { Config } from "../config/schema.ts";
import type { Judged } from "./judged.ts";

/** Items whose pairs are compared before a run: enough for a mean, and a table that can be read. */
const MEASURED_PAIRS = 256;

/** One prompt of an update. */
export interface PromptDraw {
  item: PromptItem;
  style: string | null;
  /** What the picture is drawn from. */
  prompt: string;
  /** What the reward compares. */
  pair: TextPair;
}

/** Everything that text encoders are asked in a run. */
export interface RunTextWants {
  prompts: Set<string>;
  judge: Set<string>;
  /** For each reward. */
  rewards: Set<string>[];
}

/** Updates that the run has at most; a ladder's rung is chosen while it goes on. */
export function mostUpdates({ align }: Config): number {
  return align.steps === "ladder" ? Math.max(...align.ladder) : align.steps;
}

const styled = (config: Config) => config.data.prompt.includes("{style}");

/** The order in which items are trained on. */
export function promptOrder(config: Config, items: readonly PromptItem[]): PromptOrder<PromptItem> {
  const head = items.filter((item) => !item.tail);
  return new PromptOrder(alignedItems(items, config.align), head, {
    seed: config.train.seed,
    headShare: config.align.head_share,
    styles: styled(config) ? config.data.styles : [],
  });
}

function pairRule({ align, data }: Config): PairRule {
  const words = { positive: align.positive_words, negative: align.negative_words };
  // «prompt-only» puts the attributes into the prompt; its reward has no pair.
  const kind = align.pair === "prompt-only" ? "none" : align.pair;
  return {
    kind,
    pos: align.pos_prompt || undefined,
    neg: align.neg_prompt || undefined,
    attributes: data.attributes,
    words,
  };
}

/** The generation prompt of an item, with attributes where the arm is «prompt-only». */
function promptOf(config: Config, item: PromptItem, style: string | null): string {
  const prompt = fillTemplate(config.data.prompt, item, style);
  if (config.align.pair !== "prompt-only") return prompt;
  return promptPair(item, { kind: "mia", attributes: config.data.attributes }, 0, prompt).pos;
}

/** The prompts of update `step`, counted from 1. */
export function drawsOf(config: Config, order: PromptOrder<PromptItem>, step: number): PromptDraw[] {
  const count = config.align.batch * config.train.accumulation;
  const rule = pairRule(config);
  return order.slice((step - 1) * count, count).map(({ item, style }) => {
    const prompt = promptOf(config, item, style);
    return { item, style, prompt, pair: promptPair(item, rule, step, prompt) };
  });
}

/** The two texts of the aligned items, or of some hundred of them evenly taken; none where a reward has no pair. */
export function measuredPairs(
  config: Config,
  items: readonly PromptItem[],
): { item: string; pos: string; neg: string }[] {
  const rule = pairRule(config);
  const style = styled(config) ? (config.data.styles[0] ?? null) : null;
  const aligned = alignedItems(items, config.align);
  const stride = Math.ceil(aligned.length / MEASURED_PAIRS);
  const pairs = aligned
    .filter((_, i) => i % stride === 0)
    .map((item) => ({ item: item.item, ...promptPair(item, rule, 0, promptOf(config, item, style)) }));
  return pairs.flatMap(({ item, pos, neg }) => (neg === null ? [] : [{ item, pos, neg }]));
}

/** All texts of a run: its draws to the last update, what is judged, and what is compared beforehand. */
export function textsOfRun(config: Config, items: readonly PromptItem[], judged: readonly Judged[]): RunTextWants {
  const shown = judged.flatMap((j) => j.pictures.map((p) => p.prompt));
  const prompts = new Set(shown);
  const judge = new Set<string>();
  if (config.eval.judge !== "none") for (const item of items) judge.add(fillTemplate(config.eval.caption, item));
  const compared = new Set<string>();
  const order = promptOrder(config, items);
  for (let step = 1; step <= mostUpdates(config); step++) {
    for (const { prompt, pair } of drawsOf(config, order, step)) {
      prompts.add(prompt);
      compared.add(pair.pos);
      if (pair.neg !== null) compared.add(pair.neg);
    }
  }
  const rewards = config.align.rewards.map(() => new Set(compared));
  // Scores and the pairs' cosines are those of the first reward.
  for (const text of shown) rewards[0]!.add(text);
  for (const { pos, neg } of measuredPairs(config, items)) rewards[0]!.add(pos).add(neg);
  return { prompts, judge, rewards };
}
