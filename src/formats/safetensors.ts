// Reads safetensors files, the format in which the public checkpoints come: one file or a sharded set behind an
// `*.index.json`. Opening reads headers alone; the data of a tensor is read by range when it is asked for, so that a
// checkpoint may be larger than memory. Format: huggingface/safetensors, README «Format».

import { LongtailError, nearestName } from "../base/errors.ts";
import type { FileHandle, FileStore } from "../base/files.ts";
import { f32ToF16 } from "../base/halves.ts";
import { aligned, NoNumbersError, readFloats, toFloat32, toIntegers } from "./numbers.ts";
import { DTYPE_BITS, elementCount, readHeader, type TensorInfo } from "./safetensors_header.ts";

export { DTYPE_BITS, type Dtype, elementCount, type TensorInfo } from "./safetensors_header.ts";

/** An open checkpoint: one file, or all shards of an index seen as one. */
export class Safetensors {
  /** The path that was opened. */
  readonly path: string;
  /** `__metadata__` of the file, or of all shards together. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #handles: ReadonlyMap<string, FileHandle>;

  private constructor(
    path: string,
    metadata: ReadonlyMap<string, string>,
    tensors: ReadonlyMap<string, TensorInfo>,
    handles: ReadonlyMap<string, FileHandle>,
  ) {
    this.path = path;
    this.metadata = metadata;
    this.tensors = tensors;
    this.#handles = handles;
  }

  /**
   * Opens `path`: a `.safetensors` file, an `.index.json`, or the name of a file that exists only as shards beside
   * `path.index.json`.
   * @throws E-FILE-001 no such file, E-FILE-010 bad header, E-FILE-011 truncated, E-FILE-015 bad index
   */
  static async open(files: FileStore, path: string): Promise<Safetensors> {
    const index = path.endsWith(".index.json") ? path : `${path}.index.json`;
    if (!path.endsWith(".index.json") && (await files.exists(path))) return Safetensors.#openAll(files, path, [path]);
    if (!(await files.exists(index))) throw missingFile(path, "a weights file was expected there");
    const map = readIndex(await files.readText(index), index);
    const folder = index.slice(0, index.lastIndexOf("/") + 1);
    const shards = [...new Set(map.values())].sort();
    const opened = await Safetensors.#openAll(
      files,
      path,
      shards.map((shard) => folder + shard),
      index,
    );
    const tensors = new Map<string, TensorInfo>();
    for (const [name, shard] of map) {
      const info = opened.tensors.get(name);
      if (info === undefined || info.file !== folder + shard) {
        await opened.close();
        throw badIndex(index, `tensor ${JSON.stringify(name)} is not in ${shard}`);
      }
      tensors.set(name, info);
    }
    return new Safetensors(path, opened.metadata, tensors, opened.#handles);
  }

  static async #openAll(
    files: FileStore,
    path: string,
    parts: readonly string[],
    index?: string,
  ): Promise<Safetensors> {
    const handles = new Map<string, FileHandle>();
    const tensors = new Map<string, TensorInfo>();
    const metadata = new Map<string, string>();
    try {
      for (const part of parts) {
        if (!(await files.exists(part))) throw missingFile(part, `${index} names it as a shard`);
        const handle = await files.open(part);
        handles.set(part, handle);
        const header = await readHeader(handle, part);
        for (const [key, text] of header.metadata) metadata.set(key, text);
        for (const [name, info] of header.tensors) {
          if (tensors.has(name)) throw badIndex(index ?? path, `tensor ${JSON.stringify(name)} is in two shards`);
          tensors.set(name, info);
        }
      }
    } catch (error) {
      for (const handle of handles.values()) await handle.close();
      throw error;
    }
    return new Safetensors(path, metadata, tensors, handles);
  }

  names(): string[] {
    return [...this.tensors.keys()];
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** @throws E-FILE-012 where the file has no such tensor */
  info(name: string): TensorInfo {
    const found = this.tensors.get(name);
    if (found) return found;
    const near = nearestName(name, this.tensors.keys());
    throw new LongtailError("E-FILE-012", {
      what: `tensor ${JSON.stringify(name)} is missing`,
      where: this.path,
      why: `the file has ${this.tensors.size} tensors${near === null ? "" : `; the nearest name is ${JSON.stringify(near)}`}`,
      fix: "check that the file belongs to this model and to the configuration beside it",
    });
  }

  /**
   * The entry of a tensor of exactly this shape.
   * @throws E-FILE-012 no such tensor, E-FILE-013 another shape
   */
  expectShape(name: string, shape: readonly number[]): TensorInfo {
    const info = this.info(name);
    if (info.shape.length !== shape.length || info.shape.some((size, i) => size !== shape[i])) {
      throw new LongtailError("E-FILE-013", {
        what: `tensor ${JSON.stringify(name)} has shape [${info.shape.join(", ")}], expected [${shape.join(", ")}]`,
        where: info.file,
        why: "the weights and the model's configuration do not belong together",
        fix: "use the config.json that came with these weights",
      });
    }
    return info;
  }

  /**
   * The stored bytes of a tensor, at an offset that is a multiple of 8.
   * @param first first element, @param count how many; by default all
   */
  async readBytes(name: string, first = 0, count?: number): Promise<Uint8Array> {
    return this.#read(this.info(name), first, count);
  }

  /**
   * Elements of a tensor as float32, in row-major order. F64 and integers are rounded, BOOL becomes 0 or 1.
   * @param first first element, @param count how many; by default all
   * @throws E-FILE-012 no such tensor, E-FILE-014 a type that has no numbers here
   */
  async readF32(name: string, first = 0, count?: number): Promise<Float32Array> {
    const info = this.info(name);
    const { at, taken } = this.#range(info, first, count);
    const handle = this.#handles.get(info.file)!;
    return numbers(info, () => readFloats((from, length) => handle.read(at + from, length), taken, info.dtype));
  }

  /** Elements as float16 patterns: stored F16 unchanged, everything else rounded to the nearest even value. */
  async readF16(name: string, first = 0, count?: number): Promise<Uint16Array> {
    const info = this.info(name);
    const bytes = await this.#read(info, first, count);
    return info.dtype === "F16"
      ? words16(bytes)
      : f32ToF16(await numbers(info, async () => toFloat32(bytes, info.dtype)));
  }

  /**
   * Elements of an integer tensor as int32.
   * @throws E-FILE-014 the tensor does not hold integers, or one does not fit
   */
  async readI32(name: string): Promise<Int32Array> {
    const info = this.info(name);
    const bytes = await this.#read(info, 0, undefined);
    const values = await numbers(info, async () => toIntegers(bytes, info.dtype));
    const out = new Int32Array(values.length);
    for (let i = 0; i < out.length; i++) {
      out[i] = Number(values[i]);
      if (out[i] !== Number(values[i])) throw badType(info, `value ${values[i]} does not fit in 32 bits`);
    }
    return out;
  }

  async close(): Promise<void> {
    for (const handle of this.#handles.values()) await handle.close();
  }

  /** Where a range of elements begins in the file, and how many elements and bytes it has. */
  #range(info: TensorInfo, first: number, count: number | undefined) {
    const bits = DTYPE_BITS[info.dtype];
    const total = elementCount(info.shape);
    const taken = count ?? total - first;
    if (first < 0 || taken < 0 || first + taken > total) {
      throw new RangeError(`elements ${first} … ${first + taken} of ${info.name}, which has ${total}`);
    }
    if (bits < 8 && taken !== total) throw badType(info, `${info.dtype} can be read as a whole only`);
    return { at: info.begin + Math.floor((first * bits) / 8), taken, length: Math.ceil((taken * bits) / 8) };
  }

  async #read(info: TensorInfo, first: number, count: number | undefined): Promise<Uint8Array> {
    const { at, length } = this.#range(info, first, count);
    if (length === 0) return new Uint8Array(0);
    return aligned(await this.#handles.get(info.file)!.read(at, length));
  }
}

/** Turns the refusal of a type into the error that names the tensor. */
async function numbers<T>(info: TensorInfo, convert: () => Promise<T>): Promise<T> {
  try {
    return await convert();
  } catch (error) {
    throw error instanceof NoNumbersError ? badType(info, error.message) : error;
  }
}

const words16 = (bytes: Uint8Array) => new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);

function readIndex(text: string, file: string): Map<string, string> {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw badIndex(file, `it is not JSON: ${(error as Error).message}`);
  }
  const map = (root as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) throw badIndex(file, "weight_map is missing");
  const found = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    // A shard lies beside its index; a path could name any file of the machine.
    if (typeof shard !== "string" || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      throw badIndex(
        file,
        `tensor ${JSON.stringify(name)} points to ${JSON.stringify(shard)}, which is no name of a safetensors file`,
      );
    }
    found.set(name, shard);
  }
  return found;
}

function missingFile(path: string, why: string): LongtailError {
  return new LongtailError("E-FILE-001", {
    what: "no such file",
    where: path,
    why,
    fix: "check the path, or fetch the missing file",
  });
}

function badIndex(file: string, why: string): LongtailError {
  return new LongtailError("E-FILE-015", {
    what: "the index of shards is not valid",
    where: file,
    why,
    fix: "fetch the index and its shards again from one place",
  });
}

function badType(info: TensorInfo, why: string): LongtailError {
  return new LongtailError("E-FILE-014", {
    what: `tensor ${JSON.stringify(info.name)} of type ${info.dtype} cannot be read as numbers`,
    where: info.file,
    why,
    fix: "convert the checkpoint to F32, BF16 or F16",
  });
}
