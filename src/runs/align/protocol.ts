// The evaluation protocol: which items are drawn with which prompts and noise, and the scores of what came out. Nothing of it
// depends on the weights, so before and after differ in the model alone.

import { type EmbeddedData, STYLES, type Style } from "../../data/embedded.ts";
import { fillTemplate, type PromptItem } from "../../data/prompts.ts";
import type { GuardPoint } from "../../evaluation/guards.ts";
import { cosine, diversity, pictureStatistics } from "../../evaluation/image_statistics.ts";
import { mean } from "../../evaluation/statistics.ts";
import type { ItemScores } from "../../evaluation/summary.ts";
import type { Drawn } from "../../training/drawing.ts";
import type { Config } from "../config/schema.ts";
import type { Judged } from "./judged.ts";
import type { RunTexts } from "./texts.ts";
import type { World } from "./world.ts";

/** Text features that scores are taken against. */
export interface TextBank {
  /** Judge features of every item's plain caption, by item. */
  judge: Map<PromptItem, Float32Array> | null;
  /** Features of the generation prompts under the first reward. */
  reward: Map<string, Float32Array>;
}

export function textBank(
  config: Config,
  { rewards, judge: judging }: World,
  texts: RunTexts,
  items: readonly PromptItem[],
  judged: readonly Judged[],
): TextBank {
  let judge: TextBank["judge"] = null;
  if (judging) {
    const captions = items.map((item) => fillTemplate(config.eval.caption, item));
    const features = texts.features(judging.name, captions);
    judge = new Map(items.map((item, i) => [item, features[i]!]));
  }
  const prompts = judged.flatMap((j) => j.pictures.map((p) => p.prompt));
  const features = texts.features(rewards[0]!.scorer.name, prompts);
  return { judge, reward: new Map(prompts.map((prompt, i) => [prompt, features[i]!])) };
}

/** Draws the pictures of the judged items, in order. */
export async function drawJudged(
  config: Config,
  world: World,
  texts: RunTexts,
  judged: readonly Judged[],
  onDrawn: (done: number) => void | Promise<void>,
): Promise<Drawn[][]> {
  const all = judged.flatMap((j) => j.pictures);
  const embeddings = await texts.embeddings(all.map((p) => p.prompt));
  const requests = all.map((p, i) => ({ ...embeddings[i]!, noise: world.drawing.noise(config.eval.seed, p.index) }));
  const drawn = await world.drawing.draw(requests, onDrawn);
  let at = 0;
  return judged.map((j) => {
    const own = drawn.slice(at, at + j.pictures.length);
    at += own.length;
    return own;
  });
}

/** Scores of one item from its pictures. */
export function scoreItem(world: World, bank: TextBank, judged: Judged, drawn: readonly Drawn[]): ItemScores {
  const side = world.pipeline.imageSize;
  const offset = world.judge ? 1 : 0;
  const rewardOf = (d: Drawn, i: number) => cosine(d.features[offset]!, bank.reward.get(judged.pictures[i]!.prompt)!);
  const images = drawn.map((d) => pictureStatistics(d.picture, 1, side, side));
  const scores: ItemScores = {
    judge: Number.NaN,
    reward: mean(drawn.map(rewardOf)),
    saturation: mean(images.map((s) => s.saturation)),
    contrast: mean(images.map((s) => s.contrast)),
    sharpness: mean(images.map((s) => s.sharpness)),
  };
  if (!world.judge || !bank.judge) return { ...scores, judge: scores.reward! };
  const own = bank.judge.get(judged.item)!;
  const ranks = drawn.map((d) => {
    const score = cosine(d.features[0]!, own);
    let rank = 0;
    for (const other of bank.judge!.values()) if (cosine(d.features[0]!, other) > score) rank++;
    return rank;
  });
  scores.judge = mean(drawn.map((d) => cosine(d.features[0]!, own)));
  scores.top1 = mean(ranks.map((r) => (r === 0 ? 1 : 0)));
  scores.top5 = mean(ranks.map((r) => (r < 5 ? 1 : 0)));
  const spreadOf = diversity(drawn.map((d) => d.features[0]!));
  if (spreadOf !== null) scores.diversity = spreadOf;
  return scores;
}

/** Guard-rail signals of a set of judged items. */
export function guardPoint(
  world: World,
  bank: TextBank,
  judged: readonly Judged[],
  drawn: readonly Drawn[][],
  step: number,
): GuardPoint {
  const side = world.pipeline.imageSize;
  const pictures = drawn.flat();
  const all = new Float32Array(pictures.length * 3 * side * side);
  pictures.forEach((d, i) => all.set(d.picture, i * 3 * side * side));
  const image = pictureStatistics(all, pictures.length, side, side);
  const scores = judged.map((j, i) => scoreItem(world, bank, j, drawn[i]!));
  const diversities = scores.map((s) => s.diversity).filter((d) => d !== undefined);
  return {
    step,
    reward: mean(scores.map((s) => s.reward!)),
    signals: {
      ...image,
      ...(world.judge ? { judge: mean(scores.map((s) => s.judge)) } : {}),
      ...(diversities.length > 0 ? { diversity: mean(diversities) } : {}),
    },
  };
}

/** The real pictures of an item in the judged styles, as 8-bit PNG planes, for the report. */
export async function realPictures(
  data: EmbeddedData | null,
  judged: Judged,
): Promise<{ style: Style; planes: Float32Array }[]> {
  if (!data) return [];
  const wanted = [...new Set(judged.pictures.map((p) => p.style))].filter((s): s is Style =>
    (STYLES as readonly string[]).includes(s ?? ""),
  );
  const found: { style: Style; planes: Float32Array }[] = [];
  for (const style of wanted) {
    const planes = await data.picture(judged.item, style);
    if (planes) found.push({ style, planes });
  }
  if (found.length > 0) return found;
  for (const style of data.stylesOf(judged.item).slice(0, 1)) {
    const planes = await data.picture(judged.item, style);
    if (planes) found.push({ style, planes });
  }
  return found;
}
