// Embedding tables of text encoders. They may be compact: a tensor `<table>.ids` lists the token ids whose rows are stored,
// in order. Ids are mapped to rows on the host; an id that is not stored reads a row behind the table, which is zero. A
// large table stays in its file, and the rows in use are read from there: T5-XXL's has 526 MB, a prompt 512 of 32128 rows.

import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import type { Safetensors } from "../formats/safetensors.ts";
import { openWeights } from "./checkpoint_files.ts";

export class TokenRows {
  /** Rows that the table holds. */
  readonly count: number;
  private readonly rowOf: Map<number, number> | null;

  private constructor(count: number, rowOf: Map<number, number> | null) {
    this.count = count;
    this.rowOf = rowOf;
  }

  /** @param table name of the embedding tensor without ".weight" */
  static async of(file: Safetensors, table: string): Promise<TokenRows> {
    if (!file.has(`${table}.ids`)) return new TokenRows(file.info(`${table}.weight`).shape[0]!, null);
    const ids = await file.readI32(`${table}.ids`);
    return new TokenRows(ids.length, new Map([...ids].map((id, row) => [id, row])));
  }

  /** The same of any source. */
  static async ofSource(source: RangedSource, table: string): Promise<TokenRows> {
    if (!source.has(`${table}.ids`)) return new TokenRows(source.shape(`${table}.weight`)[0]!, null);
    // Ids are far below 2^24, up to which float32 holds every integer.
    const ids = await source.load(`${table}.ids`);
    return new TokenRows(ids.length, new Map([...ids].map((id, row) => [id, row])));
  }

  /** Rows for ids; ids without a row are added to `unknown`. */
  rows(ids: readonly number[], unknown?: Set<number>): number[] {
    return ids.map((id) => {
      const row = this.rowOf ? this.rowOf.get(id) : id < this.count ? id : undefined;
      if (row === undefined) unknown?.add(id);
      return row ?? this.count;
    });
  }
}

/** Largest table that is kept on the device as a whole, in bytes: far below the smallest binding limit, 128 MiB. */
export const DEVICE_TABLE_BYTES = 32 << 20;
/** Bytes of rows that are remembered; prompts share most of their words and all of their padding. */
const REMEMBERED_BYTES = 64 << 20;

/** A table in a weights file of which rows are read when they are needed. The file is open only while it is read. */
export class FileRows {
  readonly width: number;
  private readonly files: FileStore;
  private readonly path: string;
  private readonly name: string;
  private readonly count: number;
  private readonly remembered = new Map<number, Float32Array>();

  /** @param name of the tensor [rows, width] in the file or sharded set at `path` */
  constructor(files: FileStore, path: string, name: string, shape: readonly [number, number]) {
    this.files = files;
    this.path = path;
    this.name = name;
    [this.count, this.width] = shape;
  }

  /** Values [n, width] of `rows` [n]; rows behind the table are zero. Each distinct row is read once, neighbours together. */
  async gather(rows: ArrayLike<number>): Promise<Float32Array> {
    const { width, count, remembered } = this;
    const wanted = [...new Set(Array.from(rows))].filter((row) => row < count).sort((a, b) => a - b);
    if ((remembered.size + wanted.length) * width * 4 > REMEMBERED_BYTES) remembered.clear();
    const missing = wanted.filter((row) => !remembered.has(row));
    if (missing.length > 0) {
      const file = await openWeights(this.files, this.path);
      try {
        for (let at = 0; at < missing.length; ) {
          let end = at + 1;
          while (end < missing.length && missing[end] === missing[end - 1]! + 1) end++;
          const values = await file.loadRange(this.name, missing[at]! * width, (end - at) * width);
          for (let i = at; i < end; i++)
            remembered.set(missing[i]!, values.slice((i - at) * width, (i - at + 1) * width));
          at = end;
        }
      } finally {
        await file.close();
      }
    }
    const out = new Float32Array(rows.length * width);
    for (let i = 0; i < rows.length; i++) {
      const row = remembered.get(rows[i]!);
      if (row) out.set(row, i * width);
    }
    return out;
  }
}
