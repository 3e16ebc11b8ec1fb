// The first phase of an alignment: every prompt becomes text embeddings and every text that rewards and judge compare becomes
// a feature vector, in sessions that are closed before the training one opens. T5 and CLIP are so never in memory beside the
// model that is trained. Prompts that `longtail preprocess` or SRPO's script has encoded need no text encoder at all.

import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { PromptEmbeddings } from "../../data/prompt_embeddings.ts";
import type { PromptItem } from "../../data/prompts.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { TextEmbedding } from "../../models/velocity_network.ts";
import { targetOf } from "../../tensor/target.ts";
import { EncodingCache } from "../../training/encoding_cache.ts";
import { cacheFolder, captionBytes, checkCaptionRoom, encodedEntry } from "../caption_store.ts";
import type { Config } from "../config/schema.ts";
import { layoutOf } from "../model_files.ts";
import { encodeAll } from "../train/encode.ts";
import { checkMemoryCap, checkPrecision } from "./device.ts";
import type { Phases } from "./phases.ts";
import { type RunTextWants, textsOfRun } from "./prompts.ts";
import type { Judged } from "./protocol.ts";
import { JUDGE, rewardName, type TextFeatures, textFeatures, traceTextTowers } from "./scorers.ts";
import { storedPrompts } from "./stored_prompts.ts";

export interface EncodeTextInputs {
  files: FileStore;
  config: Config;
  gpu: Gpu;
  items: readonly PromptItem[];
  judged: readonly Judged[];
  /** Prompts that are encoded already. */
  stored: PromptEmbeddings | null;
  emit: EventSink;
  phases: Phases;
  signal: AbortSignal;
  /** Where encoded prompts are kept; by default as data.cache says. */
  cache?: EncodingCache;
}

/** What a run knows of its texts. */
export class RunTexts {
  private readonly embed: (prompt: string) => Promise<TextEmbedding>;
  private readonly byScorer: TextFeatures;

  constructor(embed: (prompt: string) => Promise<TextEmbedding>, byScorer: TextFeatures) {
    this.embed = embed;
    this.byScorer = byScorer;
  }

  /** Embeddings of generation prompts, in order. */
  async embeddings(prompts: readonly string[]): Promise<TextEmbedding[]> {
    const found: TextEmbedding[] = [];
    for (const prompt of prompts) found.push(await this.embed(prompt));
    return found;
  }

  /** Unit features of texts under the scorer of that name, in order. */
  features(scorer: string, texts: readonly string[]): Float32Array[] {
    const known = this.byScorer.get(scorer);
    return texts.map((text) => {
      const found = known?.get(text);
      if (!found) throw new Error(`${scorer} was not asked for ${JSON.stringify(text)} before the run`);
      return found;
    });
  }
}

/**
 * Encodes all texts of a run.
 * @throws LongtailError E-ENV-021 where encoded prompts have no room; what `storedPrompts` says of a folder; the signal's
 * reason where it is aborted
 */
export async function encodeTexts(inputs: EncodeTextInputs): Promise<RunTexts> {
  const { config, items, judged, stored } = inputs;
  checkPrecision(config, targetOf(inputs.gpu));
  const wants = textsOfRun(config, items, judged);
  const embed = stored ? await storedPrompts({ ...inputs, stored }, wants.prompts) : await encodePrompts(inputs, wants);
  return new RunTexts(embed, await encodeFeatures(inputs, wants));
}

async function encodePrompts(
  { files, config, gpu, emit, phases, signal, cache: given }: EncodeTextInputs,
  { prompts }: RunTextWants,
): Promise<(prompt: string) => Promise<TextEmbedding>> {
  const folder = cacheFolder(config);
  const cache = given ?? new EncodingCache(files, folder);
  const room = { captions: prompts.size, bytes: captionBytes(await layoutOf(files, config), prompts.size) };
  await checkCaptionRoom(files, folder, room, emit);
  const { texts } = await encodeAll({ files, config, gpu, cache, emit, phases, signal }, [], [...prompts]);
  return async (prompt) => {
    const { states, pooled } = await encodedEntry(cache, folder, texts.get(prompt)!);
    return { states: states!, pooled: pooled! };
  };
}

async function encodeFeatures(
  { files, config, gpu, phases }: EncodeTextInputs,
  { judge, rewards }: RunTextWants,
): Promise<TextFeatures> {
  const towers = await traceTextTowers(files, config, targetOf(gpu));
  const wants = new Map([
    [JUDGE, judge],
    ...rewards.map((texts, i) => [rewardName(i, rewards.length), texts] as const),
  ]);
  try {
    checkMemoryCap(config, towers.session.memory().total);
    const total = [...wants.values()].reduce((n, texts) => n + texts.size, 0);
    return await phases.timed("encode texts", total, "texts", (tick) => textFeatures(towers, gpu, wants, tick));
  } finally {
    towers.session.close();
  }
}
