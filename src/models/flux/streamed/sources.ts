// Where a streamed model's weights come from, again and again: tensors as the device stores them, by name. A file is encoded
// while it is read, a cache keeps what was encoded in host memory as far as that goes, and a generator needs no file.

import { CODES_PER_WORD, type Storage } from "../../../base/quantize.ts";
import type { RangedSource, TensorSource } from "../../../base/tensor_source.ts";
import { type StoredTensor, storeTensor } from "../../../nn/parameters.ts";

/** Stored tensors by the model's names. */
export interface BlockSource {
  /** For messages. */
  readonly name: string;
  has(name: string): boolean;
  /** Throws where the tensor does not exist. */
  shape(name: string): readonly number[];
  /** A tensor's words in a storage. They may be a view of what the source keeps: read them, do not change them. */
  read(name: string, storage: Storage): Promise<StoredTensor>;
}

/** What safetensors calls the storages that a file's bytes already have. */
const FILE_TYPES: Readonly<Partial<Record<Storage, string>>> = { f32: "F32", f16: "F16", bf16: "BF16" };

/**
 * A file as a source. Its bytes are taken as they are where they have the wanted storage; else values are encoded at every
 * reading, which a cache saves.
 * @param rename name in the file of a tensor of the model
 */
export function fileBlocks(
  file: TensorSource | RangedSource,
  rename: (name: string) => string = (name) => name,
): BlockSource {
  return {
    name: file.name,
    has: (name) => file.has(rename(name)),
    shape: (name) => file.shape(rename(name)),
    async read(name, storage) {
      const own = rename(name);
      if ("loadBytes" in file && file.dtype(own) === FILE_TYPES[storage]) {
        const bytes = await file.loadBytes(own, 0);
        if (bytes.byteLength % 4 === 0 && bytes.byteOffset % 4 === 0) return storedBytesOf(bytes, storage);
      }
      return storeTensor(`${file.name}, ${own}`, storage, await file.load(own));
    },
  };
}

function storedBytesOf({ buffer, byteOffset, byteLength }: Uint8Array, storage: Storage): StoredTensor {
  const words = storage === "f32" ? new Float32Array(buffer, byteOffset, byteLength / 4) : null;
  return { codes: words ?? new Uint32Array(buffer, byteOffset, byteLength / 4), scales: null };
}

/**
 * Keeps stored tensors in host memory, the first that are read until `maxBytes` are full; the rest is read each time. Blocks
 * are needed in turn, so a cache that dropped what was used longest ago would never hold the one that comes next.
 */
export class CachedBlocks implements BlockSource {
  readonly name: string;
  private readonly source: BlockSource;
  private readonly maxBytes: number;
  private readonly keeps: (name: string) => boolean;
  private readonly kept = new Map<string, StoredTensor>();
  private used = 0;

  /** @param keeps whether a tensor is read more than once; all are by default */
  constructor(source: BlockSource, maxBytes: number, keeps: (name: string) => boolean = () => true) {
    this.name = source.name;
    this.source = source;
    this.maxBytes = maxBytes;
    this.keeps = keeps;
  }

  /** Bytes kept. */
  get bytes(): number {
    return this.used;
  }

  has(name: string): boolean {
    return this.source.has(name);
  }

  shape(name: string): readonly number[] {
    return this.source.shape(name);
  }

  async read(name: string, storage: Storage): Promise<StoredTensor> {
    const key = `${storage} ${name}`;
    const known = this.kept.get(key);
    if (known) return known;
    const stored = await this.source.read(name, storage);
    const bytes = stored.codes.byteLength + (stored.scales?.byteLength ?? 0);
    if (this.keeps(name) && this.used + bytes <= this.maxBytes) {
      this.used += bytes;
      this.kept.set(key, stored);
    }
    return stored;
  }
}

/** Values in one word of a storage's codes. */
export function valuesPerWord(storage: Storage): number {
  return storage === "f32" ? 1 : CODES_PER_WORD[storage];
}
