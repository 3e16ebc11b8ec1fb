// The first phase of a training run, and all of `longtail cache`: every picture that the run will draw becomes latents, every
// caption becomes text embeddings, in a session that is closed before the training one opens. What the cache on disk has
// already is verified and not made again.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { type Geometry, geometryName, Pipeline } from "../../models/pipeline.ts";
import type { Target } from "../../tensor/lower.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { type EncodingCache, type EntryFacts, textEntry } from "../../training/encoding_cache.ts";
import { fileIdentity } from "../../training/file_identity.ts";
import { PictureEncoder } from "../../training/picture_encoder.ts";
import { PromptEncoder } from "../../training/prompt_encoder.ts";
import { textIdentity } from "../../training/text_identity.ts";
import type { Config } from "../config/schema.ts";
import { checkMemoryCap, checkPrecision } from "../device.ts";
import { layoutOf, modelFiles } from "../model_files.ts";
import type { Phases } from "../phases.ts";
import { unknownText } from "../text_warnings.ts";

/** Most texts and pictures that go through an encoder at a time. */
const TEXT_BATCH = 16;
const PICTURE_BATCH = 8;

/** A picture as a run wants it. */
export interface PictureWant {
  geometry: Geometry;
  /** Everything besides the autoencoder that decides the latents. */
  facts: EntryFacts;
  /** Decodes, cuts and resizes: [3, H, W] in [0, 1]. */
  load: () => Promise<Float32Array>;
}

export interface Encodings {
  /** Keys in the cache, in the order of the wants. */
  pictures: string[];
  texts: Map<string, string>;
  /** Pictures, by their place among the wants, that turned out not to decode. */
  failed: Map<number, LongtailError>;
  /** How many were made now, and how many entries on disk were damaged and made again. */
  made: { pictures: number; texts: number; damaged: number };
  /** Device memory that the encoders' session planned; it is free again. 0 where nothing had to be encoded. */
  plannedBytes: number;
}

export interface EncodeInputs {
  files: FileStore;
  config: Config;
  gpu: Gpu;
  cache: EncodingCache;
  emit: EventSink;
  phases: Phases;
  signal: AbortSignal;
  /** Encode everything again, whatever the cache has. */
  rebuild?: boolean;
}

/** @throws the signal's reason where it is aborted; finished entries are kept */
export async function encodeAll(
  inputs: EncodeInputs,
  wants: readonly PictureWant[],
  captions: readonly string[],
): Promise<Encodings> {
  const { files, config, cache } = inputs;
  const layout = await layoutOf(files, config);
  const { settings, weights } = layout.autoencoder;
  const precision = config.device.precision;
  const autoencoder = {
    autoencoder: await fileIdentity(files, weights),
    config: JSON.stringify(settings.config),
    scale: settings.scale,
    shift: settings.shift,
    precision,
  };
  const text = { ...(await textIdentity(files, layout, modelFiles(config).tokenizers)), precision };
  const pictures = await Promise.all(wants.map((want) => cache.key("picture", { ...want.facts, ...autoencoder })));
  const distinct = [...new Set(captions)];
  const keys = await Promise.all(distinct.map((caption) => cache.key("text", { caption, ...text })));
  let damaged = 0;
  const missing = async (key: string): Promise<boolean> => {
    if (inputs.rebuild) return true;
    const found = await cache.get(key);
    if (found.found) return false;
    if (found.why === "damaged") damaged++;
    return true;
  };
  const missingPictures: number[] = [];
  const seen = new Set<string>();
  for (const [i, key] of pictures.entries()) {
    if (inputs.signal.aborted) throw inputs.signal.reason;
    if (seen.has(key)) continue;
    seen.add(key);
    if (await missing(key)) missingPictures.push(i);
  }
  const missingTexts: number[] = [];
  for (const [i, key] of keys.entries()) if (await missing(key)) missingTexts.push(i);
  let plannedBytes = 0;
  const broken = new Map<string, LongtailError>();
  if (missingPictures.length + missingTexts.length > 0) {
    plannedBytes = await encodeMissing(
      inputs,
      missingPictures.map((i) => ({
        want: wants[i]!,
        key: pictures[i]!,
        fail: (error) => broken.set(pictures[i]!, error),
      })),
      missingTexts.map((i) => ({ caption: distinct[i]!, key: keys[i]! })),
    );
  }
  if (damaged > 0) {
    inputs.emit({
      kind: "warning",
      code: "E-FILE-090",
      text: `${damaged} entries of the cache were torn or changed on the disk; they were encoded again`,
    });
  }
  return {
    pictures,
    texts: new Map(distinct.map((caption, i) => [caption, keys[i]!])),
    // Copies of a damaged file share its key, and none of them has an entry.
    failed: new Map(pictures.flatMap((key, i) => (broken.has(key) ? [[i, broken.get(key)!] as const] : []))),
    made: { pictures: missingPictures.length - broken.size, texts: missingTexts.length, damaged },
    plannedBytes,
  };
}

interface Missing {
  want: PictureWant;
  key: string;
  fail: (error: LongtailError) => void;
}

/** A picture's pixels, or null where the file turns out to be damaged behind a sound header. */
async function loadOne({ want, key, fail }: Missing): Promise<{ key: string; planes: Float32Array } | null> {
  try {
    return { key, planes: await want.load() };
  } catch (error) {
    if (!(error instanceof LongtailError)) throw error;
    fail(error);
    return null;
  }
}

function cutText(captions: readonly string[], { textLength }: Pipeline): string {
  const count = captions.length === 1 ? "1 caption is" : `${captions.length} captions are`;
  return `${count} longer than the ${textLength} tokens that the model reads, and cut there: ${JSON.stringify(captions[0]!.slice(0, 80))}${captions.length > 1 ? ", ..." : ""}`;
}

interface Encoders {
  session: Session;
  pipeline: Pipeline;
  prompts: PromptEncoder | null;
  pictures: PictureEncoder | null;
}

/**
 * Declares encoders and traces their plans; nothing touches a device, so that a plan can tell their memory.
 * @param texts whether captions are to be encoded
 * @param geometries sizes of the pictures that are to be encoded
 */
export async function traceEncoders(
  files: FileStore,
  config: Config,
  target: Target,
  texts: boolean,
  geometries: readonly Geometry[],
): Promise<Encoders> {
  checkPrecision(config, target);
  const session = new Session(target);
  const pipeline = await Pipeline.open(files, session, {
    ...modelFiles(config),
    parts: { transformer: false, text: texts, encoder: geometries.length > 0, decoder: false },
    precision: config.device.precision,
  });
  const { maxBindingBytes } = target;
  // The cache keeps the embeddings; a second copy would be 8 MB a caption for FLUX.1 dev.
  const prompts = texts
    ? new PromptEncoder(session, pipeline, pipeline.textBatch(TEXT_BATCH, maxBindingBytes), false)
    : null;
  const batch =
    geometries.length > 0 ? pipeline.pictureBatch(PICTURE_BATCH, geometries, "encoder", maxBindingBytes) : 0;
  const pictures = batch > 0 ? new PictureEncoder(session, pipeline, geometries, batch) : null;
  return { session, pipeline, prompts, pictures };
}

/** Returns the device memory that was planned. */
async function encodeMissing(
  { files, config, gpu, cache, emit, phases, signal }: EncodeInputs,
  wants: readonly Missing[],
  texts: readonly { caption: string; key: string }[],
): Promise<number> {
  const buckets = new Map<string, { geometry: Geometry; wants: Missing[] }>();
  for (const entry of wants) {
    const name = geometryName(entry.want.geometry);
    const bucket = buckets.get(name) ?? { geometry: entry.want.geometry, wants: [] };
    bucket.wants.push(entry);
    buckets.set(name, bucket);
  }
  const geometries = [...buckets.values()].map((bucket) => bucket.geometry);
  const encoders = await traceEncoders(files, config, targetOf(gpu), texts.length > 0, geometries);
  const { session, pipeline, prompts, pictures: encoder } = encoders;
  const textBatch = prompts?.batch ?? 1;
  const pictureBatch = encoder?.batch ?? 1;
  try {
    checkMemoryCap(config, session.memory().total);
    await phases.timed("compile encoders", session.plans.length, "plans", (tick) => session.open(gpu, tick));
    await pipeline.loadWeights(session);
    if (prompts) {
      await phases.timed("encode captions", texts.length, "captions", async (tick) => {
        for (let at = 0; at < texts.length; at += textBatch) {
          if (signal.aborted) throw signal.reason;
          const part = texts.slice(at, at + textBatch);
          const embeddings = await prompts.encode(part.map(({ caption }) => caption));
          for (const [i, { key }] of part.entries()) {
            await cache.put(key, textEntry(embeddings[i]!));
          }
          tick(at + part.length);
        }
      });
      const unknown = [...prompts.unknown];
      if (unknown.length > 0) emit({ kind: "warning", code: "E-DATA-060", text: unknownText(unknown) });
      if (prompts.cut.size > 0)
        emit({ kind: "warning", code: "E-DATA-061", text: cutText([...prompts.cut], pipeline) });
    }
    if (encoder) {
      await phases.timed("encode pictures", wants.length, "pictures", async (tick) => {
        let done = 0;
        for (const { geometry, wants: own } of buckets.values()) {
          const load = (at: number) => Promise.all(own.slice(at, at + pictureBatch).map(loadOne));
          // The next batch is decoded while the device encodes this one.
          let next = load(0);
          for (let at = 0; at < own.length; at += pictureBatch) {
            if (signal.aborted) throw signal.reason;
            const batch = (await next).filter((loaded) => loaded !== null);
            next = at + pictureBatch < own.length ? load(at + pictureBatch) : Promise.resolve([]);
            // A failure is thrown where the batch is needed.
            next.catch(() => {});
            done += Math.min(pictureBatch, own.length - at);
            tick(done);
            if (batch.length === 0) continue;
            const latents = await encoder.encode(
              batch.map(({ planes }) => planes),
              geometry,
            );
            for (const [i, values] of latents.entries()) await cache.put(batch[i]!.key, { latents: values });
          }
        }
      });
    }
    return session.memory().total;
  } finally {
    session.close();
  }
}
