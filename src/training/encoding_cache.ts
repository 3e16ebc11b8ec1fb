// Encoded pictures and captions on disk, so that autoencoder and text encoders run once for all runs and are not in memory
// while a model trains (diffusers' --cache_latents, kohya's --cache_latents_to_disk). An entry is one safetensors file
// named by the hash of everything that decides its values; it carries its name and the hash of its contents, and one that
// does not agree with them is encoded again.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { sha256 } from "../base/hash.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { writeSafetensors } from "../formats/safetensors_write.ts";
import type { TextEmbedding } from "../models/velocity_network.ts";

/** Rises when entries of an older form must not be read any more. */
const VERSION = 2;

/** What decides an entry's values, as plain JSON: the picture's hash, the bucket, the encoder's identity, ... */
export type EntryFacts = Readonly<Record<string, string | number | boolean>>;
export type EntryArrays = Readonly<Record<string, Float32Array>>;

/** A prompt's entry; models that take no pooled text have none there. */
export const textEntry = ({ states, pooled }: TextEmbedding): EntryArrays =>
  pooled.length > 0 ? { states, pooled } : { states };

/** The embedding in a prompt's entry. */
export const textOfEntry = (entry: EntryArrays): TextEmbedding => ({
  states: entry["states"]!,
  pooled: entry["pooled"] ?? new Float32Array(0),
});

/** How an entry was found. */
export type Lookup = { found: EntryArrays } | { found: null; why: "absent" | "damaged" };

export class EncodingCache {
  private readonly files: FileStore;
  private readonly folder: string | null;
  private readonly memory = new Map<string, EntryArrays>();
  private held = 0;
  private readonly limit: number;

  /**
   * @param folder null keeps entries in memory alone
   * @param memoryLimit bytes of entries that are held in memory besides; the oldest are dropped above it where there is
   *   a folder to read them from again
   */
  constructor(files: FileStore, folder: string | null, memoryLimit = 1 << 30) {
    this.files = files;
    this.folder = folder;
    this.limit = memoryLimit;
  }

  /** The name of an entry; the order of the facts does not matter. */
  async key(kind: "picture" | "text", facts: EntryFacts): Promise<string> {
    const sorted = Object.fromEntries(Object.entries({ ...facts, version: VERSION, kind }).sort());
    return `${kind}-${(await sha256(JSON.stringify(sorted))).slice(0, 40)}`;
  }

  private path(key: string): string {
    // Two letters of the hash share the entries out: a folder of a hundred thousand files is slow on some disks.
    return `${this.folder}/${key.slice(key.indexOf("-") + 1).slice(0, 2)}/${key}.safetensors`;
  }

  /** Whether an entry is in memory or on disk; a file's contents are verified when it is read. */
  async has(key: string): Promise<boolean> {
    return this.memory.has(key) || (this.folder !== null && (await this.files.exists(this.path(key))));
  }

  async get(key: string): Promise<Lookup> {
    const held = this.memory.get(key);
    if (held) return { found: held };
    if (this.folder === null || !(await this.files.exists(this.path(key)))) return { found: null, why: "absent" };
    const arrays = await this.read(key);
    if (arrays === null) return { found: null, why: "damaged" };
    this.hold(key, arrays);
    return { found: arrays };
  }

  /** Reads and verifies an entry; null where it is torn, changed or another one's. Failures of the disk itself are thrown. */
  private async read(key: string): Promise<EntryArrays | null> {
    try {
      const file = await Safetensors.open(this.files, this.path(key));
      try {
        const arrays: Record<string, Float32Array> = {};
        if (file.metadata.get("key") !== key) return null;
        for (const name of file.names()) arrays[name] = await file.readF32(name);
        return (await contentHash(arrays)) === file.metadata.get("sha256") ? arrays : null;
      } finally {
        await file.close();
      }
    } catch (error) {
      if (error instanceof LongtailError && /^E-FILE-(003|01\d)$/.test(error.code)) return null;
      throw error;
    }
  }

  async put(key: string, arrays: EntryArrays): Promise<void> {
    if (this.folder !== null) {
      const tensors = Object.entries(arrays).map(([name, data]) => ({
        name,
        dtype: "F32" as const,
        shape: [data.length],
        data,
      }));
      await writeSafetensors(this.files, this.path(key), tensors, {
        metadata: { format: "longtail-cache", key, sha256: await contentHash(arrays) },
      });
    }
    this.hold(key, arrays);
  }

  private hold(key: string, arrays: EntryArrays): void {
    const before = this.memory.get(key);
    if (before) this.held -= sizeOf(before);
    // Taken out first: an entry that is written again is the newest.
    this.memory.delete(key);
    this.memory.set(key, arrays);
    this.held += sizeOf(arrays);
    if (this.folder === null) return;
    for (const [oldest, entry] of this.memory) {
      if (this.held <= this.limit || oldest === key) break;
      this.memory.delete(oldest);
      this.held -= sizeOf(entry);
    }
  }
}

const sizeOf = (arrays: EntryArrays) => Object.values(arrays).reduce((n, a) => n + a.byteLength, 0);

/** SHA-256 over names and bytes of the arrays, in the order of their names. */
async function contentHash(arrays: EntryArrays): Promise<string> {
  const parts: string[] = [];
  for (const name of Object.keys(arrays).sort()) {
    const { buffer, byteOffset, byteLength } = arrays[name]!;
    parts.push(`${name} ${await sha256(new Uint8Array(buffer, byteOffset, byteLength))}`);
  }
  return await sha256(parts.join("\n"));
}
