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
import { EncodingCache, textOfEntry } from "../../training/encoding_cache.ts";
import { cacheFolder, captionBytes, checkCaptionRoom, encodedEntry } from "../caption_store.ts";
import type { Config } from "../config/schema.ts";
import { checkMemoryCap, checkPrecision } from "../device.ts";
import { layoutOf } from "../model_files.ts";
import type { Phases } from "../phases.ts";
import { encodeAll } from "../train/encode.ts";
import type { Judged } from "./judged.ts";
import { type RunTextWants, textsOfRun } from "./prompts.ts";
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

interface EncodedPrompts {
  embed: (prompt: string) => Promise<TextEmbedding>;
  /** Device memory that the text encoders' session planned; 0 where nothing had to be encoded. */
  plannedBytes: number;
}

/** What a run knows of its texts. */
export class RunTexts {
  /** Device memory that the larger of the sessions planned which encoded them; it is free again. */
  readonly plannedBytes: number;
  private readonly embed: EncodedPrompts["embed"];
  private readonly byScorer: TextFeatures;

  constructor({ embed, plannedBytes }: EncodedPrompts, features: { byScorer: TextFeatures; plannedBytes: number }) {
    this.embed = embed;
    this.byScorer = features.byScorer;
    this.plannedBytes = Math.max(plannedBytes, features.plannedBytes);
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
  const encoded = stored
    ? { embed: await storedPrompts({ ...inputs, stored }, wants.prompts), plannedBytes: 0 }
    : await encodePrompts(inputs, wants);
  return new RunTexts(encoded, await encodeFeatures(inputs, wants));
}

async function encodePrompts(
  { files, config, gpu, emit, phases, signal, cache: given }: EncodeTextInputs,
  { prompts }: RunTextWants,
): Promise<EncodedPrompts> {
  const folder = cacheFolder(config);
  const cache = given ?? new EncodingCache(files, folder);
  const room = { captions: prompts.size, bytes: captionBytes(await layoutOf(files, config), prompts.size) };
  await checkCaptionRoom(files, folder, room, emit);
  const inputs = { files, config, gpu, cache, emit, phases, signal };
  const { texts, plannedBytes } = await encodeAll(inputs, [], [...prompts]);
  const embed = async (prompt: string) => textOfEntry(await encodedEntry(cache, folder, texts.get(prompt)!));
  return { embed, plannedBytes };
}

async function encodeFeatures(
  { files, config, gpu, phases }: EncodeTextInputs,
  { judge, rewards }: RunTextWants,
): Promise<{ byScorer: TextFeatures; plannedBytes: number }> {
  const towers = await traceTextTowers(files, config, targetOf(gpu));
  const wants = new Map([
    [JUDGE, judge],
    ...rewards.map((texts, i) => [rewardName(i, rewards.length), texts] as const),
  ]);
  try {
    const plannedBytes = towers.session.memory().total;
    checkMemoryCap(config, plannedBytes);
    const total = [...wants.values()].reduce((n, texts) => n + texts.size, 0);
    const byScorer = await phases.timed("encode texts", total, "texts", (tick) =>
      textFeatures(towers, gpu, wants, tick),
    );
    return { byScorer, plannedBytes };
  } finally {
    towers.session.close();
  }
}
