// One checkpoint seen through another's names. A public layout is a table that says for every tensor which pieces of which
// stored tensors lie in it one after the other: that covers fused and split matrices, swapped halves and prefixes, in both
// directions, and reads no byte that is not asked for.

import { joined } from "../base/arrays.ts";
import { LongtailError } from "../base/errors.ts";
import type { RangedSource, TensorSource } from "../base/tensor_source.ts";
import { DTYPE_BITS, type Dtype, elementCount, type Safetensors } from "../formats/safetensors.ts";
import type { TensorToWrite } from "../formats/safetensors_write.ts";

/** Consecutive elements of a stored tensor. */
export interface Piece {
  tensor: string;
  first: number;
  count: number;
}

/** A tensor of the offered layout. */
export interface MappedTensor {
  shape: readonly number[];
  /** In row-major order they are the tensor's elements. */
  pieces: readonly Piece[];
}

export type TensorMap = ReadonlyMap<string, MappedTensor>;

/** The shapes of all tensors of a source. */
export function shapesOf(source: TensorSource): Map<string, readonly number[]> {
  return new Map([...source.names()].map((name) => [name, source.shape(name)]));
}

/** A safetensors file or sharded set as a source. */
export function safetensorsSource(file: Safetensors): RangedSource {
  return {
    name: file.path,
    names: () => file.names(),
    has: (name) => file.has(name),
    shape: (name) => file.info(name).shape,
    dtype: (name) => file.info(name).dtype,
    load: (name) => file.readF32(name),
    loadRange: (name, first, count) => file.readF32(name, first, count),
    loadBytes: (name, first, count) => file.readBytes(name, first, count),
    close: () => file.close(),
  };
}

/** `source` under the names of `map`; what `map` does not name is not offered. */
export function mappedSource(source: RangedSource, map: TensorMap): RangedSource {
  const get = (name: string): MappedTensor => {
    const found = map.get(name);
    if (found) return found;
    throw new LongtailError("E-FILE-012", {
      what: `tensor ${JSON.stringify(name)} is missing`,
      where: source.name,
      why: "nothing in the file has that name in this layout",
      fix: "check that the file belongs to this model",
    });
  };
  const dtype = (name: string): string => {
    const types = new Set(get(name).pieces.map((piece) => source.dtype(piece.tensor)));
    // Pieces of several types have one only as numbers.
    return types.size === 1 ? [...types][0]! : "F32";
  };
  const loadRange = async (name: string, first: number, count?: number): Promise<Float32Array> => {
    const parts: Float32Array[] = [];
    for (const piece of piecesOf(get(name), first, count)) {
      parts.push(await source.loadRange(piece.tensor, piece.first, piece.count));
    }
    return parts.length === 1 ? parts[0]! : joined(parts);
  };
  const loadBytes = async (name: string, first: number, count?: number): Promise<Uint8Array> => {
    const tensor = get(name);
    const type = dtype(name);
    if (tensor.pieces.some((piece) => source.dtype(piece.tensor) !== type)) {
      return bytesOf(await loadRange(name, first, count));
    }
    const parts: Uint8Array[] = [];
    for (const piece of piecesOf(tensor, first, count)) {
      parts.push(await source.loadBytes(piece.tensor, piece.first, piece.count));
    }
    return parts.length === 1 ? parts[0]! : joined(parts, (length) => new Uint8Array(length));
  };
  return {
    name: source.name,
    names: () => map.keys(),
    has: (name) => map.has(name),
    shape: (name) => get(name).shape,
    dtype,
    load: (name) => loadRange(name, 0),
    loadRange,
    loadBytes,
    close: () => source.close(),
  };
}

/** The bytes of numbers as they lie in memory. */
export const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);

/** The pieces, or parts of them, that hold elements `first` … `first + count` of a tensor. */
function piecesOf({ shape, pieces }: MappedTensor, first: number, count?: number): Piece[] {
  const total = elementCount(shape);
  const end = first + (count ?? total - first);
  if (first < 0 || end < first || end > total) throw new RangeError(`elements ${first} … ${end} of ${total}`);
  const wanted: Piece[] = [];
  let start = 0;
  for (const piece of pieces) {
    const low = Math.max(first, start);
    const high = Math.min(end, start + piece.count);
    if (high > low) wanted.push({ tensor: piece.tensor, first: piece.first + low - start, count: high - low });
    start += piece.count;
  }
  // An empty range still has the type of the tensor.
  return wanted.length > 0 ? wanted : [{ ...pieces[0]!, count: 0 }];
}

/** The whole of a stored tensor, under another shape of the same size where one is given. */
export function wholeTensor(tensor: string, shape: readonly number[], as: readonly number[] = shape): MappedTensor {
  return { shape: as, pieces: [{ tensor, first: 0, count: elementCount(shape) }] };
}

/** Rows `first` … `first + count` of a stored tensor. */
export function rowsOfTensor(tensor: string, shape: readonly number[], first: number, count: number): MappedTensor {
  const row = elementCount(shape.slice(1));
  return { shape: [count, ...shape.slice(1)], pieces: [{ tensor, first: first * row, count: count * row }] };
}

/** A stored tensor whose two halves of rows change places. */
export function swappedHalves(tensor: string, shape: readonly number[]): MappedTensor {
  const half = elementCount(shape) / 2;
  return {
    shape,
    pieces: [
      { tensor, first: half, count: half },
      { tensor, first: 0, count: half },
    ],
  };
}

/** Stored tensors one below the other. */
export function stackedRows(tensors: readonly { tensor: string; shape: readonly number[] }[]): MappedTensor {
  const rows = tensors.reduce((sum, { shape }) => sum + shape[0]!, 0);
  return {
    shape: [rows, ...tensors[0]!.shape.slice(1)],
    pieces: tensors.map(({ tensor, shape }) => ({ tensor, first: 0, count: elementCount(shape) })),
  };
}

/** The tensors of `source` whose names begin with `prefix`, without it. */
export function withoutPrefix(source: RangedSource, prefix: string): RangedSource {
  if (prefix === "") return source;
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapesOf(source)) {
    if (name.startsWith(prefix)) map.set(name.slice(prefix.length), wholeTensor(name, shape));
  }
  return mappedSource(source, map);
}

/**
 * All tensors of a source for `writeSafetensors`, each fetched when its turn comes and written in the type that it is
 * stored in.
 */
export function tensorsToWrite(source: RangedSource): TensorToWrite[] {
  return [...source.names()].map((name) => {
    const dtype = source.dtype(name);
    if (!Object.hasOwn(DTYPE_BITS, dtype)) throw new Error(`${name} is stored as ${dtype}, which safetensors lacks`);
    return {
      name,
      dtype: dtype as Dtype,
      shape: source.shape(name),
      data: () => source.loadBytes(name, 0),
    };
  });
}
