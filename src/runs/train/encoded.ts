// Encoded pictures and captions of a run, and the batches that are made of them: which latents and texts a draw means, put
// together a few batches ahead of the device.

import { Prefetcher } from "../../data/pictures/prefetch.ts";
import { fitPicture } from "../../data/pictures/prepare.ts";
import type { PictureRecord } from "../../data/pictures/sets.ts";
import type { Geometry } from "../../models/pipeline.ts";
import { type EncodingCache, type EntryArrays, textOfEntry } from "../../training/encoding_cache.ts";
import type { FlowSample } from "../../training/flow/trainer.ts";
import { encodedEntry } from "../caption_store.ts";
import type { TrainingData } from "./data.ts";
import type { EncodeInputs, Encodings, PictureWant } from "./encode.ts";
import type { BatchSource, TrainBatch } from "./run.ts";
import type { SamplePrompt } from "./samples.ts";

export type EncodeRequest = Pick<EncodeInputs, "gpu" | "emit" | "phases" | "signal" | "rebuild">;

/** Batches that are ready before the device asks. */
const AHEAD = 3;

export interface RealSamplePrompt extends SamplePrompt {
  /** The picture whose caption the prompt is, as the sample's square; absent for prompts of the configuration. */
  real?: () => Promise<Float32Array>;
}

export interface PromptOfPicture {
  prompt: string;
  /** The picture whose caption it is. */
  record?: PictureRecord;
  real?: () => Promise<Float32Array>;
}

/** The prompts of the samples: those of the configuration, else captions of the first pictures. */
export function samplePromptsOf(data: TrainingData): PromptOfPicture[] {
  const { sample } = data.config;
  if (sample.prompts.length > 0) return sample.prompts.map((prompt) => ({ prompt }));
  const found = new Map<string, PictureRecord>();
  for (const record of [...data.train].filter((r) => !r.prior).sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const prompt = data.plainCaption(record);
    if (prompt !== "" && !found.has(prompt)) found.set(prompt, record);
    if (found.size === sample.items) break;
  }
  return [...found].map(([prompt, record]) => ({
    prompt,
    record,
    real: async () => fitPicture(await record.load(), { width: data.side, height: data.side }),
  }));
}

/** Every caption that the run can draw. */
export function captionsOfRun(data: TrainingData): Set<string> {
  const { config } = data;
  const captions = new Set<string>();
  if (config.data.caption_dropout > 0) captions.add("");
  if (!config.data.shuffle_tags) {
    for (const record of data.train) record.captions.forEach((_, i) => captions.add(data.plainCaption(record, i)));
    return captions;
  }
  // Shuffled captions are as many as their draws; the order tells them all beforehand.
  const order = data.order(config.train.batch * config.train.accumulation);
  for (let step = 0; step < config.train.steps; step++)
    for (const draw of order.batchAt(step).draws) captions.add(data.caption(draw.record, draw));
  return captions;
}

/** A picture as the encoder wants it; a random crop is the picture's own, so that its latents can be kept. */
export function wantOf(data: TrainingData, record: PictureRecord, flip: boolean): PictureWant {
  const bucket = data.bucketOf(record);
  const random = data.config.data.crop === "random";
  const share = (at: number) => Number.parseInt(record.hash.slice(at, at + 8), 16) / 2 ** 32;
  const crop = random ? { cropX: share(0), cropY: share(8) } : {};
  const { background } = data.config.data;
  return {
    geometry: data.geometryOf(bucket),
    facts: {
      picture: record.hash,
      width: bucket.width,
      height: bucket.height,
      flip,
      background,
      crop: random ? "random" : "center",
    },
    load: async () => fitPicture(await record.load(), bucket, { ...crop, flip }),
  };
}

export class EncodedData {
  readonly cache: EncodingCache;
  /** Where entries lie on disk; null where they are in memory alone. */
  readonly folder: string | null;
  readonly samplePrompts: RealSamplePrompt[];
  readonly made: Encodings["made"];
  readonly total: { pictures: number; texts: number };
  readonly plannedBytes: number;
  private readonly data: TrainingData;
  private readonly encodings: Encodings;
  private readonly keys = new Map<string, string>();
  private readonly validation: readonly PictureRecord[];

  constructor(
    data: TrainingData,
    cache: EncodingCache,
    folder: string | null,
    encodings: Encodings,
    wanted: readonly { record: PictureRecord; flip: boolean }[],
    validation: readonly PictureRecord[],
    samples: readonly PromptOfPicture[],
    negative: string | null,
  ) {
    this.data = data;
    this.cache = cache;
    this.folder = folder;
    this.encodings = encodings;
    this.made = encodings.made;
    this.plannedBytes = encodings.plannedBytes;
    wanted.forEach(({ record, flip }, i) => this.keys.set(keyOf(record, flip), encodings.pictures[i]!));
    const sound = encodings.pictures.filter((_, i) => !encodings.failed.has(i));
    this.total = { pictures: new Set(sound).size, texts: encodings.texts.size };
    this.validation = validation;
    this.samplePrompts = samples.map(({ prompt, record, real }) => {
      const shown = record === undefined || data.train.includes(record) ? real : undefined;
      return {
        prompt,
        key: encodings.texts.get(prompt)!,
        ...(negative === null ? {} : { negativeKey: encodings.texts.get(negative)! }),
        ...(shown ? { real: shown } : {}),
      };
    });
  }

  /** Pictures of one sampling. */
  get samplePictures(): number {
    return Math.max(1, this.samplePrompts.length * this.data.config.sample.pictures);
  }

  private entry(key: string): Promise<EntryArrays> {
    return encodedEntry(this.cache, this.folder, key);
  }

  private async sample(record: PictureRecord, flip: boolean, caption: string): Promise<FlowSample> {
    const { latents } = await this.entry(this.keys.get(keyOf(record, flip))!);
    const text = textOfEntry(await this.entry(this.encodings.texts.get(caption)!));
    const prior = record.prior ? this.data.config.flow.prior_weight : 1;
    return { latents: latents!, ...text, weight: record.weight * prior };
  }

  /** Batches of `perUpdate` samples, prepared ahead from `first`, counted from 1. */
  async batches(perUpdate: number, first: number): Promise<BatchSource & { close(): Promise<void> }> {
    const order = this.data.order(perUpdate);
    const prepare = async (step: number): Promise<TrainBatch> => {
      // Steps of the order count from 0, updates from 1.
      const { bucket, draws } = order.batchAt(step - 1);
      const samples: FlowSample[] = [];
      for (const draw of draws)
        samples.push(await this.sample(draw.record, draw.flip, this.data.caption(draw.record, draw)));
      return { geometry: this.data.geometryOf(bucket), samples };
    };
    const end = this.data.config.train.steps + 1;
    const prefetcher = new Prefetcher(prepare, { ahead: AHEAD, first, end });
    return {
      next: async (step) => (await prefetcher.take(step)).batch,
      validation: await this.validationBatches(),
      close: () => prefetcher.close(),
    };
  }

  private async validationBatches(): Promise<TrainBatch[]> {
    const bySize = new Map<string, { geometry: Geometry; samples: FlowSample[] }>();
    for (const record of this.validation) {
      const bucket = this.data.bucketOf(record);
      const name = `${bucket.width}x${bucket.height}`;
      const batch = bySize.get(name) ?? { geometry: this.data.geometryOf(bucket), samples: [] };
      bySize.set(name, batch);
      batch.samples.push({ ...(await this.sample(record, false, this.data.plainCaption(record))), weight: 1 });
    }
    return [...bySize.values()];
  }
}

const keyOf = (record: PictureRecord, flip: boolean) => `${flip ? "flipped " : ""}${record.id}`;
