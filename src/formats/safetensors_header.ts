// The header of a safetensors file, treated as written by an enemy: every length, offset and shape is checked against the
// real size of the file before anything is allocated from it. The verdicts are those of the reference reader (the Rust
// crate `safetensors`): no hole, no overlap, nothing behind the last tensor, whole numbers only.

import { LongtailError } from "../base/errors.ts";
import type { FileHandle } from "../base/files.ts";
import { fileKind } from "./file_kind.ts";
import { type Json, JsonError, JsonNumber, JsonObject, parseStrictJson } from "./strict_json.ts";

/** Bits of one element. */
export const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type Dtype = keyof typeof DTYPE_BITS;

export interface TensorInfo {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** The file that holds the data, and the range of its bytes there. */
  readonly file: string;
  readonly begin: number;
  readonly end: number;
}

/** An entry whose range still counts from the beginning of the data. */
type Entry = { -readonly [K in keyof TensorInfo]: TensorInfo[K] };

export interface Header {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

const LARGEST_HEADER = 100_000_000;
const U64 = 1n << 64n;

/** Number of elements of a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * Reads and checks the header of an open file.
 * @throws E-FILE-010 the header breaks a rule, E-FILE-011 the data is shorter than the header says
 */
export async function readHeader(handle: FileHandle, file: string): Promise<Header> {
  const refuse = (why: string, tensor?: string): never => {
    throw new LongtailError("E-FILE-010", {
      what:
        tensor === undefined ? "is not a valid safetensors file" : `the entry of tensor ${shown(tensor)} is not valid`,
      where: file,
      why,
      fix: "fetch the file again from where it came from, or save it anew with a safetensors library",
    });
  };

  if (handle.size < 8) refuse(`it has ${handle.size} bytes, too few for the length of the header`);
  const length = new DataView((await handle.read(0, 8)).slice().buffer).getBigUint64(0, true);
  if (length > LARGEST_HEADER || length > handle.size - 8) {
    const kind = fileKind(await handle.read(0, Math.min(handle.size, 64)));
    const claim =
      length > LARGEST_HEADER
        ? `it claims a header of ${length} bytes, more than the limit of ${LARGEST_HEADER}`
        : `it claims a header of ${length} bytes in a file of ${handle.size}`;
    refuse(kind === null || kind.endsWith("safetensors file") ? claim : kind);
  }
  const headerBytes = Number(length);
  const dataStart = 8 + headerBytes;
  const dataBytes = handle.size - dataStart;

  let metadata: Map<string, string> | undefined;
  const entries = new Map<string, Entry>();
  const take = (name: string, value: Json): void => {
    if (name !== "__metadata__") {
      entries.set(
        name,
        readEntry(name, value, file, (why) => refuse(why, name)),
      );
      return;
    }
    if (metadata) refuse("__metadata__ comes twice");
    metadata = new Map();
    if (value === null) return;
    const pairs = value instanceof JsonObject ? value.entries : refuse("__metadata__ is not an object");
    for (const [key, text] of pairs) {
      if (typeof text !== "string") refuse(`__metadata__ key ${shown(key)} is not a string`);
      metadata.set(key, text as string);
    }
  };
  try {
    // A byte-order mark must stay visible, so that it is refused like any other stray character.
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const root = parseStrictJson(decoder.decode(await handle.read(8, headerBytes)), undefined, take);
    if (!(root instanceof JsonObject)) return refuse("the header is not an object");
  } catch (error) {
    if (error instanceof JsonError) return refuse(`the header is not JSON: ${error.message}`);
    if (error instanceof TypeError) return refuse("the header is not UTF-8");
    throw error;
  }

  // Walking the data in order shows holes, overlaps and shared ranges at once.
  let reached = 0;
  for (const tensor of [...entries.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (tensor.begin !== reached) {
      refuse(`its data begins at ${tensor.begin}, but the data before it ends at ${reached}`, tensor.name);
    }
    reached = tensor.end;
  }
  if (reached > dataBytes) {
    throw new LongtailError("E-FILE-011", {
      what: `is truncated: ${dataBytes} bytes of data where the header names ${reached}`,
      where: file,
      why: "a copy or a download stopped early",
      fix: "fetch the file again and compare its size",
    });
  }
  if (reached < dataBytes) refuse(`${dataBytes - reached} bytes after the last tensor belong to nobody`);
  for (const tensor of entries.values()) {
    tensor.begin += dataStart;
    tensor.end += dataStart;
  }
  return { metadata: metadata ?? new Map(), tensors: entries };
}

function readEntry(name: string, value: Json, file: string, refuse: (why: string) => never): Entry {
  if (!(value instanceof JsonObject)) return refuse("it is not an object");
  let [dtype, shapeField, offsets]: (Json | undefined)[] = [];
  for (const [key, field] of value.entries) {
    const known = key === "dtype" ? dtype : key === "shape" ? shapeField : key === "data_offsets" ? offsets : undefined;
    if (known !== undefined) refuse(`${key} comes twice`);
    if (key === "dtype") dtype = field;
    else if (key === "shape") shapeField = field;
    else if (key === "data_offsets") offsets = field;
  }
  if (dtype === undefined) return refuse("dtype is missing");
  if (shapeField === undefined) return refuse("shape is missing");
  if (offsets === undefined) return refuse("data_offsets is missing");

  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BITS, dtype))
    return refuse(`dtype ${typeof dtype === "string" ? shown(dtype) : "that is not a string"} is unknown`);
  if (!Array.isArray(shapeField)) return refuse("shape is not a list");
  const shape = shapeField.map((size) => wholeNumber(size, "a size in shape", refuse));
  if (!Array.isArray(offsets) || offsets.length !== 2) return refuse("data_offsets is not a list of two");
  const begin = wholeNumber(offsets[0]!, "data_offsets", refuse);
  const end = wholeNumber(offsets[1]!, "data_offsets", refuse);
  if (begin > end) refuse(`its data ends at ${end}, before it begins at ${begin}`);

  const bits = bitCount(shape, DTYPE_BITS[dtype as Dtype]);
  if (bits === null) return refuse("the size of its shape does not fit in 64 bits");
  if (bits !== BigInt(end - begin) * 8n)
    refuse(`shape [${shape.slice(0, 16).join(", ")}] of ${dtype} does not fill ${end - begin} bytes`);
  return { name, dtype: dtype as Dtype, shape, file, begin, end };
}

/** A number of the header. No file is longer than 2^53 bytes, so nothing beyond that is ever true. */
function wholeNumber(field: Json, what: string, refuse: (why: string) => never): number {
  if (!(field instanceof JsonNumber) || !/^[0-9]+$/.test(field.text)) return refuse(`${what} is not a whole number`);
  // A header may give a number a million digits; converting them takes the square of that.
  const value = field.text.length > 16 ? Number.POSITIVE_INFINITY : Number(field.text);
  if (value > Number.MAX_SAFE_INTEGER) return refuse(`${what} is beyond 2^53`);
  return value;
}

/** Bits of a tensor, or null where a product on the way does not fit in 64 bits, even before a factor of 0. */
function bitCount(shape: readonly number[], elementBits: number): bigint | null {
  let small = 1;
  for (const size of shape) small *= size;
  if (shape.length <= 2 && small * elementBits <= Number.MAX_SAFE_INTEGER) return BigInt(small * elementBits);
  let bits = 1n;
  for (const size of shape) {
    bits *= BigInt(size);
    if (bits >= U64) return null;
  }
  bits *= BigInt(elementBits);
  return bits < U64 ? bits : null;
}

/** A text of a stranger in a message: quoted, and no longer than a line. */
function shown(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
