// Where encoded captions and pictures of a run are kept, how much room they take, and how an entry is read back. Shared by
// training and alignment: both encode before they open the model that trains.

import { LongtailError } from "../base/errors.ts";
import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import { join } from "../base/paths.ts";
import { familyModel } from "../models/family.ts";
import type { PipelineLayout } from "../models/pipeline_layout.ts";
import type { EncodingCache, EntryArrays } from "../training/encoding_cache.ts";
import type { Config } from "./config/schema.ts";

/** Room that is told before it is taken. */
const TOLD_BYTES = 1e9;

/** The folder of data.cache; null keeps entries in memory alone. */
export function cacheFolder({ data, run }: Config): string | null {
  return data.cache === "none" ? null : data.cache === "auto" ? join(run.folder, "cache") : data.cache;
}

/** What the transformer reads of a prompt: tokens, numbers of each, numbers of the pooled vector (0: it reads none). */
export function textShape(layout: PipelineLayout): {
  length: number;
  width: number;
  pooled: number;
} {
  const { jointWidth, pooledWidth } = familyModel(layout).config;
  return { length: layout.textLength, width: jointWidth, pooled: pooledWidth };
}

/** Bytes that so many encoded captions take on disk or, without a cache folder, in memory. */
export function captionBytes(layout: PipelineLayout, captions: number): number {
  const { length, width, pooled } = textShape(layout);
  return 4 * captions * (length * width + pooled);
}

/**
 * Tells how much room encoded captions take where it is worth telling.
 * @param shuffled every draw has a caption of its own
 * @throws LongtailError E-ENV-021 where the folder has no room for them
 */
export async function checkCaptionRoom(
  files: FileStore,
  folder: string | null,
  { captions, bytes }: { captions: number; bytes: number },
  emit: EventSink,
  shuffled = false,
): Promise<void> {
  if (bytes < TOLD_BYTES) return;
  const size = `${(bytes / 1e9).toFixed(1)} GB`;
  const free = folder === null ? null : await files.freeSpace(folder);
  if (free !== null && bytes > free) {
    throw new LongtailError("E-ENV-021", {
      what: `${captions} captions take ${size} when they are encoded, and ${(free / 1e9).toFixed(1)} GB are free`,
      where: folder!,
      why: shuffled
        ? "data.shuffle_tags makes every draw a caption of its own"
        : "each caption has as many vectors as the text encoder has tokens",
      fix: shuffled ? "set data.shuffle_tags = false" : "choose a folder with room: data.cache",
    });
  }
  emit({ kind: "message", text: `${captions} captions take up to ${size} ${folder ? "on disk" : "of memory"}` });
}

/** An entry that the encoding phase has made or verified. @throws LongtailError E-FILE-092 where it is gone since */
export async function encodedEntry(cache: EncodingCache, folder: string | null, key: string): Promise<EntryArrays> {
  const { found } = await cache.get(key);
  if (found) return found;
  throw new LongtailError("E-FILE-092", {
    what: "an entry of the cache was removed or changed while the run was going on",
    where: folder ? `${folder}, ${key}` : key,
    why: "it was whole when the run began",
    fix: "start the run again under its name: it goes on from its newest checkpoint and encodes what is missing",
  });
}
