// Writes safetensors files as the reference library does: header padded so that the data begins at a multiple of 8,
// tensors by descending alignment and then by name. Tensors are asked for one by one while the file is written, so that a
// model need not lie in memory twice; a large set is cut into shards with an index, as on the hub.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { f32ToBf16, f32ToF16 } from "../base/halves.ts";
import { DTYPE_BITS, type Dtype, elementCount } from "./safetensors_header.ts";

/** Elements that lie in borrowed memory, such as a device's as the host sees it; given back as soon as they are written. */
export interface BorrowedElements {
  readonly view: ArrayBufferView;
  release(): void;
}

type Elements = ArrayBufferView | BorrowedElements;

export interface TensorToWrite {
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  /**
   * The elements, or a function that fetches them when their turn comes. A Float32Array is converted to F32, F16 or BF16;
   * anything else must hold the stored bytes.
   */
  data: ArrayBufferView | (() => Elements | Promise<Elements>);
}

export interface WriteOptions {
  /** `__metadata__`: strings only, by the format. */
  metadata?: Readonly<Record<string, string>>;
  /** Cuts the set into shards of at most this many bytes of data (a larger tensor gets a shard of its own). */
  shardBytes?: number;
}

const compareNames = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
const byteLength = (tensor: TensorToWrite) => (elementCount(tensor.shape) * DTYPE_BITS[tensor.dtype]) / 8;

/**
 * Writes `path`, or `<stem>-00001-of-0000N.safetensors` and `<stem>.safetensors.index.json` where shards are needed.
 * @returns the paths written, the index last
 * @throws E-FILE-016 a tensor that cannot be written (name twice, wrong size), and what the file store throws
 */
export async function writeSafetensors(
  files: FileStore,
  path: string,
  tensors: readonly TensorToWrite[],
  options: WriteOptions = {},
): Promise<string[]> {
  const ordered = [...tensors].sort(
    (a, b) => DTYPE_BITS[b.dtype] - DTYPE_BITS[a.dtype] || compareNames(a.name, b.name),
  );
  check(ordered, path);
  const shards = cut(ordered, options.shardBytes ?? Number.POSITIVE_INFINITY);
  if (shards.length === 1) {
    await files.writeAtomic(path, content(shards[0]!, path, options.metadata));
    return [path];
  }

  const stem = path.replace(/\.safetensors$/, "");
  const written: string[] = [];
  const weightMap: Record<string, string> = Object.create(null);
  try {
    for (const [i, shard] of shards.entries()) {
      const file = `${stem}-${number5(i + 1)}-of-${number5(shards.length)}.safetensors`;
      await files.writeAtomic(file, content(shard, file, options.metadata));
      written.push(file);
      for (const tensor of shard) weightMap[tensor.name] = file.slice(file.lastIndexOf("/") + 1);
    }
    const totalSize = ordered.reduce((sum, tensor) => sum + byteLength(tensor), 0);
    const index = `${stem}.safetensors.index.json`;
    await files.writeAtomic(
      index,
      `${JSON.stringify({ metadata: { total_size: totalSize }, weight_map: weightMap }, null, 2)}\n`,
    );
    written.push(index);
  } catch (error) {
    // A set without all its shards is of no use to anybody.
    for (const file of written) await files.remove(file);
    throw error;
  }
  return written;
}

const number5 = (n: number) => String(n).padStart(5, "0");

function check(tensors: readonly TensorToWrite[], path: string): void {
  const seen = new Set<string>();
  for (const { name } of tensors) {
    if (seen.has(name)) throw cannotWrite(path, name, "the name comes twice");
    if (name === "__metadata__") throw cannotWrite(path, name, "the name is reserved by the format");
    seen.add(name);
  }
}

function cut(tensors: readonly TensorToWrite[], limit: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    const size = byteLength(tensor);
    if (filled > 0 && filled + size > limit) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += size;
  }
  return shards;
}

async function* content(
  tensors: readonly TensorToWrite[],
  path: string,
  metadata: Readonly<Record<string, string>> | undefined,
): AsyncGenerator<Uint8Array> {
  // Built by hand: an object would move names like "0" to the front and lose "__proto__".
  const entries: string[] = [];
  if (metadata && Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let at = 0;
  for (const tensor of tensors) {
    const end = at + byteLength(tensor);
    const entry = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, end] };
    entries.push(`${JSON.stringify(tensor.name)}:${JSON.stringify(entry)}`);
    at = end;
  }
  const text = new TextEncoder().encode(`{${entries.join(",")}}`);
  const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(text, 8);
  yield header;

  for (const tensor of tensors) {
    const given = typeof tensor.data === "function" ? await tensor.data() : tensor.data;
    const borrowed = "release" in given ? given : null;
    try {
      const bytes = storedBytes(borrowed?.view ?? (given as ArrayBufferView), tensor.dtype);
      if (bytes.length !== byteLength(tensor)) {
        const why = `shape [${tensor.shape.join(", ")}] of ${tensor.dtype} needs ${byteLength(tensor)} bytes, given ${bytes.length}`;
        throw cannotWrite(path, tensor.name, why);
      }
      if (bytes.length > 0) yield bytes;
    } finally {
      borrowed?.release();
    }
  }
}

function storedBytes(view: ArrayBufferView, dtype: Dtype): Uint8Array {
  let stored = view;
  if (view instanceof Float32Array && dtype === "F16") stored = f32ToF16(view);
  else if (view instanceof Float32Array && dtype === "BF16") stored = f32ToBf16(view);
  return new Uint8Array(stored.buffer as ArrayBuffer, stored.byteOffset, stored.byteLength);
}

function cannotWrite(path: string, name: string, why: string): LongtailError {
  return new LongtailError("E-FILE-016", {
    what: `tensor ${JSON.stringify(name)} cannot be written`,
    where: path,
    why,
    fix: "this is a mistake of the program that saves; please report it",
  });
}
