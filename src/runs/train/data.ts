// A training run's pictures and captions from configuration to batches: sets are opened, pictures are put into buckets,
// everything that the run will draw is encoded, and batches are put together ahead of the device.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import type { Style } from "../../data/embedded.ts";
import { assignBuckets, type Bucket, type BucketAssignment } from "../../data/pictures/buckets.ts";
import { type CaptionOptions, captionOf, captionText } from "../../data/pictures/captions.ts";
import { PictureOrder } from "../../data/pictures/order.ts";
import {
  type DroppedFile,
  openPictureSets,
  type PictureCollection,
  type PictureRecord,
} from "../../data/pictures/sets.ts";
import { type Geometry, geometryOf } from "../../models/pipeline.ts";
import type { PipelineLayout } from "../../models/pipeline_layout.ts";
import { EncodingCache } from "../../training/encoding_cache.ts";
import { cacheFolder, captionBytes, checkCaptionRoom } from "../caption_store.ts";
import type { Config, PictureSetConfig } from "../config/schema.ts";
import { classifierFreeScale, layoutOf } from "../model_files.ts";
import { embeddedPath } from "../project.ts";
import { encodeAll } from "./encode.ts";
import {
  captionsOfRun,
  EncodedData,
  type EncodeRequest,
  type PromptOfPicture,
  samplePromptsOf,
  wantOf,
} from "./encoded.ts";

/** Buckets beyond this many are merged: each costs a plan on the device. */
const MOST_BUCKETS = 16;
/** Dropped files that are named on the terminal; the report lists all. */
const NAMED = 5;

export interface TrainingCounts {
  train: number;
  validation: number;
  prior: number;
}

/** Opens the sets of the configuration and puts their pictures into buckets. */
export async function openTrainingData(files: FileStore, config: Config, emit: EventSink): Promise<TrainingData> {
  const { data, train } = config;
  // Read in any case: a pipeline that is not there is told before pictures are looked at.
  const layout = await layoutOf(files, config);
  const side = config.model.image_size || layout.imageSize;
  const background = [1, 3, 5].map((at) => Number.parseInt(data.background.slice(at, at + 2), 16) / 255);
  const collection = await openPictureSets(
    files,
    data.sets.map((set) => setOptions(set, config)),
    {
      validationShare: data.validation_share,
      seed: train.seed,
      background: background as [number, number, number],
      maxPixels: data.max_megapixels * 1e6,
    },
  );
  try {
    const buckets = bucketsOf(collection, config, side);
    const opened = await TrainingData.of(files, config, side, collection, buckets, emit);
    if (opened.counts.train === 0) throw opened.nothingLeft(opened.dropped);
    return opened;
  } catch (error) {
    await collection.close();
    throw error;
  }
}

/** @throws LongtailError E-CFG-053 where no bucket can have such sides */
function bucketsOf({ pictures }: PictureCollection, { data }: Config, side: number): BucketAssignment {
  const resolution = data.resolution || side;
  const step = data.bucket_step || (resolution < 256 ? 16 : 64);
  try {
    return assignBuckets(pictures, {
      resolution,
      step,
      minSide: data.min_side || Math.max(step, Math.floor(resolution / 2)),
      maxSide: data.max_side || 2 * resolution,
      upscale: data.upscale,
      square: !data.buckets,
      maxBuckets: MOST_BUCKETS,
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new LongtailError("E-CFG-053", {
      what: "no bucket can have the sides that are asked for",
      where: "data.resolution, data.bucket_step, data.min_side, data.max_side",
      why: error.message,
      fix: `bucket_step divides the sides and is at most the resolution, and min_side lies below it; ${resolution} with 0 for the three others ${resolution >= 16 ? "works" : "is too small"}`,
    });
  }
}

function setOptions(set: PictureSetConfig, { data }: Config) {
  const embedded = set.path === "embedded";
  return {
    path: embedded ? embeddedPath("embedded", "embedded") : set.path,
    ...(embedded ? { kind: "embedded" as const, name: "embedded" } : {}),
    ...(set.caption ? { caption: set.caption } : {}),
    captionLines: data.caption_lines,
    repeats: set.repeats,
    weight: set.weight,
    prior: set.prior,
    // The share is taken from sets for training; a set for validation is whole.
    ...(set.split === "validation" ? { split: set.split } : {}),
    ...(set.items.length > 0 ? { items: set.items } : {}),
    ...(set.styles.length > 0 ? { styles: set.styles as Style[] } : {}),
    ...(set.image_column ? { imageColumn: set.image_column } : {}),
    ...(set.caption_column ? { captionColumn: set.caption_column } : {}),
  };
}

export class TrainingData {
  readonly config: Config;
  /** Side of the square samples, in pixels. */
  readonly side: number;
  readonly buckets: BucketAssignment;
  /** Pictures with a bucket: to learn from (prior ones among them), and held back. */
  train: readonly PictureRecord[];
  validation: readonly PictureRecord[];
  dropped: readonly DroppedFile[];
  readonly attribution: readonly string[];
  /** Hash of everything that decides what is drawn; a run can only go on with the same pictures. */
  readonly fingerprint: string;
  private readonly files: FileStore;
  private readonly collection: PictureCollection;

  private constructor(
    files: FileStore,
    config: Config,
    side: number,
    collection: PictureCollection,
    buckets: BucketAssignment,
    fingerprint: string,
  ) {
    this.files = files;
    this.config = config;
    this.side = side;
    this.collection = collection;
    this.buckets = buckets;
    this.fingerprint = fingerprint;
    const kept = collection.pictures.filter((record) => buckets.of.has(record.id));
    this.train = kept.filter((record) => record.split === "train");
    this.validation = kept.filter((record) => record.split === "validation");
    this.dropped = [...collection.dropped, ...buckets.dropped];
    this.attribution = collection.attribution;
  }

  static async of(
    files: FileStore,
    config: Config,
    side: number,
    collection: PictureCollection,
    buckets: BucketAssignment,
    emit: EventSink,
  ): Promise<TrainingData> {
    const facts = collection.pictures
      .map(({ id, hash, captions, repeats, weight, split, prior }) =>
        JSON.stringify([id, hash, captions, repeats, weight, split, prior, buckets.of.get(id) ?? null]),
      )
      .sort();
    const fingerprint = (await sha256(facts.join("\n"))).slice(0, 32);
    const data = new TrainingData(files, config, side, collection, buckets, fingerprint);
    for (const text of collection.notices) emit({ kind: "message", text });
    if (data.dropped.length > 0)
      emit({ kind: "warning", code: data.dropped[0]!.code, text: data.droppedText(data.dropped) });
    return data;
  }

  private droppedText(dropped: readonly DroppedFile[]): string {
    const named = dropped.slice(0, NAMED).map(({ name, why }) => `${name} (${why})`);
    const more = dropped.length > NAMED ? ` and ${dropped.length - NAMED} more, all in the report` : "";
    const files = dropped.length === 1 ? "1 file was" : `${dropped.length} files were`;
    return `${files} left out: ${named.join("; ")}${more}`;
  }

  get counts(): TrainingCounts {
    return {
      train: this.train.filter((record) => !record.prior).length,
      validation: this.validation.length,
      prior: this.train.filter((record) => record.prior).length,
    };
  }

  /** Draws of one pass. */
  get draws(): number {
    return this.train.reduce((n, record) => n + record.repeats, 0);
  }

  get usesEmbedded(): boolean {
    return this.config.data.sets.some((set) => set.path === "embedded");
  }

  /** One line for people. */
  get summary(): string {
    const { train, validation, prior } = this.counts;
    const sizes = this.buckets.table.map(({ bucket, pictures }) => `${bucket.width}×${bucket.height}: ${pictures}`);
    const parts = [
      `${train} ${train === 1 ? "picture" : "pictures"} to learn from`,
      ...(prior > 0 ? [`${prior} prior ${prior === 1 ? "picture" : "pictures"}`] : []),
      ...(validation > 0 ? [`${validation} held back`] : []),
      ...(this.dropped.length > 0 ? [`${this.dropped.length} left out`] : []),
    ];
    return `pictures: ${parts.join(", ")}; ${sizes.length === 1 ? "one size" : `${sizes.length} sizes`} (${sizes.join(", ")})`;
  }

  get validationLabel(): string {
    return this.validation.length > 0 ? "loss on held-back pictures" : "loss on training pictures, none were held back";
  }

  geometryOf(bucket: Bucket): Geometry {
    return geometryOf(bucket.width, bucket.height, "data.bucket_step");
  }

  /** Sizes that the run meets. */
  get geometries(): Geometry[] {
    return this.buckets.buckets.map((bucket) => this.geometryOf(bucket));
  }

  bucketOf(record: PictureRecord): Bucket {
    return this.buckets.of.get(record.id)!;
  }

  /** The order of pictures; `perUpdate` of them in a step. */
  order(perUpdate: number): PictureOrder {
    return new PictureOrder(this.train, this.buckets.of, {
      seed: this.config.train.seed,
      batch: perUpdate,
      flip: this.config.data.flip ? 0.5 : 0,
    });
  }

  /** Options of a record's captions: prior pictures stand for the class and never meet the trigger word. */
  private captionOptions(record: PictureRecord): CaptionOptions {
    const { data } = this.config;
    return {
      ...(data.trigger && !record.prior ? { trigger: data.trigger } : {}),
      ...(data.caption_prefix ? { prefix: data.caption_prefix } : {}),
      dropout: data.caption_dropout,
      shuffleTags: data.shuffle_tags,
      keepTags: data.keep_tags,
    };
  }

  /** The caption of a draw. */
  caption(record: PictureRecord, draw: Parameters<typeof captionOf>[1]): string {
    return captionOf(record.captions, draw, this.captionOptions(record));
  }

  /** A caption as it stands, for validation and samples. */
  plainCaption(record: PictureRecord, which = 0): string {
    return captionText(record.captions[which] ?? "", this.captionOptions(record));
  }

  /** Pictures of one sampling. */
  get samplePictures(): number {
    return Math.max(1, this.samplePrompts.length * this.config.sample.pictures);
  }

  private get samplePrompts(): PromptOfPicture[] {
    return samplePromptsOf(this);
  }

  /** Bytes that the encoded captions of the run take on disk or, without a cache folder, in memory. */
  captionBytes(layout: PipelineLayout): { captions: number; bytes: number } {
    const captions = captionsOfRun(this).size;
    return { captions, bytes: captionBytes(layout, captions) };
  }

  /** @throws LongtailError E-ENV-021 where the encoded captions have no room */
  private async checkRoom(folder: string | null, emit: EventSink): Promise<void> {
    const room = this.captionBytes(await layoutOf(this.files, this.config));
    await checkCaptionRoom(this.files, folder, room, emit, this.config.data.shuffle_tags);
  }

  /** Encodes what the cache does not have. */
  async encode(request: EncodeRequest): Promise<EncodedData> {
    const { config } = this;
    const folder = cacheFolder(config);
    const cache = new EncodingCache(this.files, folder);
    const validation = this.validationPictures();
    const flips = config.data.flip ? [false, true] : [false];
    const wanted = [
      ...this.train.flatMap((record) => flips.map((flip) => ({ record, flip }))),
      ...validation.map((record) => ({ record, flip: false })),
    ];
    const samples = this.samplePrompts;
    const guided = classifierFreeScale(config, await layoutOf(this.files, config)) !== 1;
    const negative = guided ? config.sample.negative_prompt : null;
    await this.checkRoom(folder, request.emit);
    const captions = [
      ...captionsOfRun(this),
      ...validation.map((r) => this.plainCaption(r)),
      ...samples.map((s) => s.prompt),
      ...(negative === null ? [] : [negative]),
    ];
    const encodings = await encodeAll(
      { ...request, files: this.files, config, cache },
      wanted.map(({ record, flip }) => wantOf(this, record, flip)),
      captions,
    );
    this.leaveOut(
      [...encodings.failed].map(([i, error]) => ({ record: wanted[i]!.record, error })),
      request.emit,
    );
    const usable = validation.filter((record) => this.train.includes(record) || this.validation.includes(record));
    return new EncodedData(this, cache, folder, encodings, wanted, usable, samples, negative);
  }

  /** Takes out pictures that turned out not to decode. @throws LongtailError E-DATA-042 where none is left */
  private leaveOut(failed: readonly { record: PictureRecord; error: LongtailError }[], emit: EventSink): void {
    if (failed.length === 0) return;
    const out = new Map(failed.map(({ record, error }) => [record, error]));
    const kept = (records: readonly PictureRecord[]) => records.filter((record) => !out.has(record));
    this.train = kept(this.train);
    this.validation = kept(this.validation);
    const dropped = [...out].map(([{ name, set }, { code, parts }]) => ({
      name,
      set,
      code,
      why: parts.why ? `${parts.what}: ${parts.why}` : parts.what,
    }));
    this.dropped = [...this.dropped, ...dropped];
    emit({ kind: "warning", code: dropped[0]!.code, text: this.droppedText(dropped) });
    if (this.counts.train === 0) throw this.nothingLeft(dropped);
  }

  /** Prior and held-back pictures alone teach nothing. */
  nothingLeft(dropped: readonly DroppedFile[]): LongtailError {
    return new LongtailError("E-DATA-042", {
      what: "no picture is left to learn from",
      where: "data.sets",
      why: dropped.length > 0 ? this.droppedText(dropped) : "all pictures are prior ones or held back",
      fix: "replace what was left out, or add pictures with captions to a set for training",
    });
  }

  /** Pictures that the validation loss is measured on: held-back ones, else the first to learn from. */
  private validationPictures(): PictureRecord[] {
    const from = this.validation.length > 0 ? this.validation : this.train.filter((record) => !record.prior);
    const sorted = [...from].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    return sorted.slice(0, this.config.train.validation_pictures);
  }

  close(): Promise<void> {
    return this.collection.close();
  }
}
