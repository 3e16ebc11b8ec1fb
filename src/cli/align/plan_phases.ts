// The memory of an alignment's phases, told before anything is allocated: text encoders, then the text towers of rewards and
// judge, then training. Each gives its memory back before the next, so the largest of them is what a device must have.

import type { FileStore } from "../../base/files.ts";
import type { PromptEmbeddings } from "../../data/prompt_embeddings.ts";
import type { PromptItem } from "../../data/prompts.ts";
import { bytes, grouped } from "../../evaluation/format.ts";
import { judgedItems } from "../../runs/align/judged.ts";
import { textsOfRun } from "../../runs/align/prompts.ts";
import { traceTextTowers } from "../../runs/align/scorers.ts";
import { buildWorld } from "../../runs/align/world.ts";
import { captionBytes } from "../../runs/caption_store.ts";
import type { Config } from "../../runs/config/schema.ts";
import { layoutOf } from "../../runs/model_files.ts";
import { leastStream, streamingChange } from "../../runs/offload.ts";
import { traceEncoders } from "../../runs/train/encode.ts";
import type { Target } from "../../tensor/lower.ts";
import { type Rung, rungsOf, smallerStorages } from "../train/ladder.ts";

/** Smaller squares than the configured one that a ladder tries, in pixels. */
const SIDES = [768, 512, 384];
/** What is left where nothing of a ladder fits. */
export const ALIGN_ADVICE = "lower model.image_size or adapter.rank, or take a smaller reward";

export interface TextPhases {
  /** Device memory of the text encoders; 0 where prompts are encoded already. */
  encoders: number;
  /** Device memory of the text towers of rewards and judge. */
  towers: number;
  prompts: number;
  /** What the encoded prompts take in the cache. */
  cached: number;
  /** Texts that rewards and judge compare. */
  texts: number;
}

/** Traces what encodes the texts of a run. */
export async function planTexts(
  files: FileStore,
  config: Config,
  target: Target,
  items: readonly PromptItem[],
  stored: PromptEmbeddings | null,
): Promise<TextPhases> {
  const { prompts, judge, rewards } = textsOfRun(config, items, judgedItems(config, items));
  const encoders = stored ? 0 : (await traceEncoders(files, config, target, true, [])).session.memory().total;
  const towers = await traceTextTowers(files, config, target);
  return {
    encoders,
    towers: towers.session.memory().total,
    prompts: prompts.size,
    cached: stored ? 0 : captionBytes(await layoutOf(files, config), prompts.size),
    texts: judge.size + rewards.reduce((n, texts) => n + texts.size, 0),
  };
}

/** The phases before training, a line each. */
export function textPhaseLines({ encoders, towers, prompts, cached, texts }: TextPhases): string[] {
  const first =
    encoders > 0
      ? `first the text encoders: ${bytes(encoders)} for ${grouped(prompts)} prompts (${bytes(cached)} in the cache)`
      : `${grouped(prompts)} prompts are encoded already: no text encoder is opened`;
  return [
    first,
    `then the text towers of rewards and judge: ${bytes(towers)} for ${grouped(texts)} texts; all of it is given back before training`,
  ];
}

/** Changes of an alignment in order of their cost: what is only slower first, then another picture size. */
function changesOf(config: Config, streamed: readonly string[]): string[][] {
  const { align, train, model } = config;
  const stored = smallerStorages(config);
  const slower = [
    ...(align.stacked === "no" || align.branches !== "both" ? [] : ["--align.stacked=no"]),
    ...(config.eval.batch > 1 ? ["--eval.batch=1"] : []),
  ];
  const checkpointing = train.checkpointing ? [] : ["--train.checkpointing=true"];
  const single = align.batch > 1 ? ["--align.batch=1", `--train.accumulation=${train.accumulation * align.batch}`] : [];
  const rungs: string[][] = [[], ...stored.map((storage) => [storage])];
  if (slower.length > 0) rungs.push(slower);
  if (checkpointing.length > 0) rungs.push([...slower, ...checkpointing]);
  if (single.length > 0) rungs.push([...slower, ...checkpointing, ...single]);
  const most = [...slower, ...checkpointing, ...single];
  if (stored.length > 0 && most.length > 0) rungs.push(...stored.map((storage) => [storage, ...most]));
  const last = [...stored.slice(-1), ...most];
  if (streamed.length > 0) {
    rungs.push([...streamed]);
    if (last.length > 0) rungs.push([...last, ...streamed]);
  }
  const smaller = SIDES.filter((side) => model.image_size > side);
  return [...rungs, ...smaller.map((side) => [...last, `--model.image_size=${side}`])];
}

/** Traces an alignment under each change; nothing is allocated. */
export async function alignLadder(
  files: FileStore,
  config: Config,
  target: Target,
  { encoders, towers }: TextPhases,
  available: number,
): Promise<Rung[]> {
  const need = async (own: Config) => {
    const world = await buildWorld(files, own, target, { train: true, stream: leastStream(own) });
    return Math.max(world.session.memory().total, encoders, towers);
  };
  return await rungsOf(config, changesOf(config, await streamingChange(files, config)), need, available);
}
