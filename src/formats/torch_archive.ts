// Reads files of torch.save (.pt, .pth, .bin, .ckpt) without executing anything: a pickle machine that knows data alone
// (pickle.ts), names and functions from a short list (torch_rules.ts), and tensors that are read by range when they are
// asked for. Opening reads the structure; a tensor costs its own values and a few megabytes.

import { LongtailError, nearestName } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { Crc32 } from "./crc32.ts";
import { fileKind } from "./file_kind.ts";
import { aligned, readFloats, toFloat32 } from "./numbers.ts";
import { PickleFloat, type PickleValue } from "./pickle_values.ts";
import { DTYPE_BITS, type Dtype } from "./safetensors_header.ts";
import { asCheckpoint, coded, refusal } from "./torch_error.ts";
import { readLegacy } from "./torch_legacy.ts";
import type { TorchView } from "./torch_rules.ts";
import { TorchTree } from "./torch_tree.ts";
import { readTorchZip } from "./torch_zip.ts";

export interface TorchTensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Bytes of its elements in the file's type. */
  readonly bytes: number;
  /** Key of the storage; tensors of one key share their data. */
  readonly storage: string;
  /** Whether it is read in one piece; else it is gathered along its strides. */
  readonly contiguous: boolean;
}

export interface TorchOptions {
  /**
   * Keys that lead to the tensors wanted, `[]` for the whole file. By default `state_dict` of the top level where that
   * holds tensors, else the whole file.
   */
  keys?: readonly string[];
}

/** Reads bytes of a storage, and knows the checksum of all of them. */
interface StorageReader {
  read(begin: number, length: number): Promise<Uint8Array>;
  crc: number | null;
}

export type TorchScalar = null | boolean | number | bigint | string;

export class TorchArchive implements RangedSource {
  /** The path that was opened. */
  readonly name: string;
  readonly format: "zip" | "legacy";
  /** The keys that were followed to the tensors. */
  readonly nesting: readonly string[];
  /** Tensors of the file that lie outside of `nesting`. */
  readonly outside: number;
  readonly #tree: TorchTree;
  readonly #views: ReadonlyMap<string, TorchView>;
  readonly #storage: (key: string) => Promise<StorageReader>;
  readonly #close: () => Promise<void>;

  private constructor(name: string, tree: TorchTree, keys: readonly string[] | undefined, parts: Parts) {
    this.name = name;
    this.format = parts.format;
    this.#tree = tree;
    this.#storage = parts.storage;
    this.#close = parts.close;
    this.nesting = keys ?? defaultNesting(tree);
    const found = tree.at(this.nesting);
    if ("missing" in found)
      throw refusal(
        "E-FILE-107",
        name,
        `the file has no key ${JSON.stringify(found.missing)} on the way ${JSON.stringify(this.nesting.join("."))}`,
        found.near === null ? "there is no similar one" : `the nearest key is ${JSON.stringify(found.near)}`,
        "give the keys that lead to the weights, or none",
      );
    this.#views = tree.tensors(found.value);
    this.outside = tree.count(tree.root) - tree.count(found.value);
  }

  /**
   * Opens a file of torch.save and reads its structure.
   * @throws E-FILE-001 no such file, E-FILE-080 … 082 a damaged archive, E-FILE-100 another kind of file, E-FILE-101
   *   another layout, E-FILE-102 a forbidden global, E-FILE-103 a forbidden or damaged instruction, E-FILE-104 too much of
   *   something, E-FILE-105 an invalid tensor, E-FILE-106 a missing storage, E-FILE-107 no such key
   */
  static async open(files: FileStore, path: string, { keys }: TorchOptions = {}): Promise<TorchArchive> {
    let parts: Parts | undefined;
    try {
      parts = await openParts(files, path);
      return new TorchArchive(path, new TorchTree(parts.root), keys, parts);
    } catch (error) {
      await parts?.close();
      throw coded(error, path);
    }
  }

  names(): string[] {
    return [...this.#views.keys()];
  }

  has(name: string): boolean {
    return this.#views.has(name);
  }

  /** @throws E-FILE-012 no such tensor */
  shape(name: string): readonly number[] {
    return this.#view(name).shape;
  }

  /** @throws E-FILE-012 no such tensor */
  info(name: string): TorchTensorInfo {
    const { dtype, shape, elements, storage, contiguous } = this.#view(name);
    return { name, dtype, shape, bytes: (elements * DTYPE_BITS[dtype]) / 8, storage: storage.key, contiguous };
  }

  /** The type that the elements are stored in. */
  dtype(name: string): Dtype {
    return this.#view(name).dtype;
  }

  /** What is no tensor (epoch, names, options), by all its keys from the top; undefined where there is none. */
  value(keys: readonly string[]): TorchScalar | undefined {
    const found = this.#tree.at(keys);
    if (!("value" in found)) return undefined;
    const { value } = found;
    if (value instanceof PickleFloat) return value.value;
    return value !== null && typeof value === "object" ? undefined : value;
  }

  /**
   * Values in row-major order. Where a tensor is a whole storage, its checksum is compared.
   * @throws E-FILE-012 no such tensor, E-FILE-108 another checksum
   */
  async load(name: string): Promise<Float32Array> {
    const view = this.#view(name);
    const storage = await this.#storage(view.storage.key);
    if (!view.contiguous) return toFloat32(await gather(view, storage, 0, view.elements), view.dtype);
    const isWhole = view.offset === 0 && (view.elements * DTYPE_BITS[view.dtype]) / 8 === view.storage.bytes;
    if (!isWhole || storage.crc === null) return readFloats(fromView(view, storage, 0), view.elements, view.dtype);
    const sum = new Crc32();
    const values = await readFloats(fromView(view, storage, 0), view.elements, view.dtype, (bytes) => sum.add(bytes));
    if (sum.value !== storage.crc)
      throw refusal(
        "E-FILE-108",
        this.name,
        `the data of tensor ${JSON.stringify(name)} is damaged`,
        "its checksum is wrong",
      );
    return values;
  }

  /**
   * Elements from `first` on in row-major order, all where `count` is absent. A tensor that is not contiguous is gathered
   * from the stretch of its storage that these elements span.
   * @throws E-FILE-012 no such tensor
   */
  async loadRange(name: string, first: number, count?: number): Promise<Float32Array> {
    const view = this.#view(name);
    const taken = range(view, name, first, count);
    const storage = await this.#storage(view.storage.key);
    if (!view.contiguous) return toFloat32(await gather(view, storage, first, taken), view.dtype);
    return readFloats(fromView(view, storage, first), taken, view.dtype);
  }

  /** The same elements as they are stored, in the bytes of `dtype`. */
  async loadBytes(name: string, first: number, count?: number): Promise<Uint8Array> {
    const view = this.#view(name);
    const taken = range(view, name, first, count);
    const storage = await this.#storage(view.storage.key);
    if (!view.contiguous) return gather(view, storage, first, taken);
    return aligned(await fromView(view, storage, first)(0, (taken * DTYPE_BITS[view.dtype]) / 8));
  }

  async close(): Promise<void> {
    await this.#close();
  }

  #view(name: string): TorchView {
    const found = this.#views.get(name);
    if (found !== undefined) return found;
    const near = nearestName(name, this.#views.keys());
    throw new LongtailError("E-FILE-012", {
      what: `tensor ${JSON.stringify(name)} is missing`,
      where: this.name,
      why: `the file has ${this.#views.size} tensors${near === null ? "" : `; the nearest name is ${JSON.stringify(near)}`}`,
      fix: "check that the file belongs to this model and to the configuration beside it",
    });
  }
}

/** The number of elements of a range, which must lie inside the tensor. */
function range(view: TorchView, name: string, first: number, count = view.elements - first): number {
  if (first < 0 || count < 0 || first + count > view.elements)
    throw new RangeError(`elements ${first} … ${first + count} of ${name}, which has ${view.elements}`);
  return count;
}

/** Elements along the strides: the stretch of the storage that they span is read once and picked from. */
async function gather(view: TorchView, storage: StorageReader, first: number, count: number): Promise<Uint8Array> {
  if (count === 0) return new Uint8Array(0);
  const { shape, strides } = view;
  // Strides are not negative, so a whole tensor spans what its last element says; a part is walked to see.
  let [least, most] = [0, view.span];
  if (count < view.elements) {
    [least, most] = [Number.POSITIVE_INFINITY, 0];
    walk(shape, strides, first, count, (_, place) => {
      if (place < least) least = place;
      if (place > most) most = place;
    });
  }
  const size = DTYPE_BITS[view.dtype] / 8;
  const from = view.storage.viewBegin + (view.offset + least) * size;
  const stored = aligned(await storage.read(from, (most - least + 1) * size));
  const out = new Uint8Array(count * size);
  const Words = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[size] as typeof Uint32Array;
  const values = new Words(stored.buffer, stored.byteOffset, stored.byteLength / size);
  const target = new Words(out.buffer);
  walk(shape, strides, first, count, (i, place) => {
    target[i] = values[place - least]!;
  });
  return out;
}

/** Indices of an element by its number in row-major order. */
function placeOf(number: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length).fill(0);
  for (let d = shape.length - 1, rest = number; d >= 0; d--) {
    index[d] = rest % shape[d]!;
    rest = Math.floor(rest / shape[d]!);
  }
  return index;
}

/** Visits `count` elements from number `first` on: each one's number in the range, and its place along the strides. */
function walk(
  shape: readonly number[],
  strides: readonly number[],
  first: number,
  count: number,
  visit: (i: number, place: number) => void,
): void {
  const index = placeOf(first, shape);
  let place = index.reduce((sum, at, d) => sum + at * strides[d]!, 0);
  for (let i = 0; i < count; i++) {
    visit(i, place);
    for (let d = shape.length - 1; d >= 0; d--) {
      place += strides[d]!;
      if (++index[d]! < shape[d]!) break;
      place -= shape[d]! * strides[d]!;
      index[d] = 0;
    }
  }
}

/** Bytes of a contiguous view from its element `first` on. */
function fromView(view: TorchView, storage: StorageReader, first: number) {
  const begin = view.storage.viewBegin + ((view.offset + first) * DTYPE_BITS[view.dtype]) / 8;
  return (from: number, length: number) => storage.read(begin + from, length);
}

function defaultNesting(tree: TorchTree): readonly string[] {
  const found = tree.at(["state_dict"]);
  return "value" in found && tree.count(found.value) > 0 ? ["state_dict"] : [];
}

interface Parts {
  format: "zip" | "legacy";
  root: PickleValue;
  storage: (key: string) => Promise<StorageReader>;
  close: () => Promise<void>;
}

async function openParts(files: FileStore, path: string): Promise<Parts> {
  const handle = await files.open(path);
  let kept = false;
  try {
    const head = await handle.read(0, Math.min(handle.size, 64));
    if (head[0] === 0x50 && head[1] === 0x4b && head[2] === 3 && head[3] === 4) return await zipParts(files, path);
    if (head[0] !== 0x80 || head.length < 12) {
      const kind = fileKind(head);
      throw refusal(
        "E-FILE-100",
        path,
        "is not a file of torch.save",
        kind ?? "its first bytes are of no format known here",
      );
    }
    const { root, places } = await readLegacy(handle, path);
    kept = true;
    return {
      format: "legacy",
      root,
      storage: async (key) => {
        const place = places.get(key)!;
        return { read: (begin, length) => handle.read(place + begin, length), crc: null };
      },
      close: () => handle.close(),
    };
  } finally {
    if (!kept) await handle.close();
  }
}

async function zipParts(files: FileStore, path: string): Promise<Parts> {
  const { archive, root, entries } = await readTorchZip(files, path);
  const readers = new Map<string, StorageReader>();
  const storage = async (key: string): Promise<StorageReader> => {
    let reader = readers.get(key);
    if (reader === undefined) {
      const entry = entries.get(key)!;
      const read = await asCheckpoint(archive.ranges(entry));
      // torch can leave checksums out, and then writes 0.
      reader = { read, crc: entry.crc === 0 ? null : entry.crc };
      readers.set(key, reader);
    }
    return reader;
  };
  return { format: "zip", root, storage, close: () => archive.close() };
}
