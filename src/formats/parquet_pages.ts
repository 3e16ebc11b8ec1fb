// The pages of a parquet column of byte strings: decompression, definition levels, plain and dictionary values (Apache
// Parquet format, «Data Pages», «Encodings»). Written here instead of taken from a library because the counts inside a page
// come from strangers: nothing is built that is larger than the limits, and runs end where their values end.

import { InflateError, inflate } from "./inflate.ts";
import { parseThrift, ThriftError, type ThriftStruct } from "./thrift.ts";

/** What is wrong with the file; the caller adds its name and a code. */
export class ParquetError extends Error {}

/** Pages and rows beyond these are refused. */
export const LARGEST_PAGE = 256 * 1024 * 1024;
export const MOST_ROWS = 1_000_000;

export interface PageHeader {
  kind: "data" | "data v2" | "dictionary" | "other";
  /** Bytes of the header itself. */
  headerLength: number;
  packed: number;
  size: number;
  values: number;
  encoding: number;
  /** Of version 2: bytes of levels before the values, and whether the values are compressed. */
  definitionBytes: number;
  repetitionBytes: number;
  isPacked: boolean;
}

const PLAIN = 0;
const PLAIN_DICTIONARY = 2;
const RLE_DICTIONARY = 8;
const KINDS = { 0: "data", 2: "dictionary", 3: "data v2" } as const;

/**
 * Reads a page's header.
 * @throws ParquetError
 */
export function readPageHeader(bytes: Uint8Array): PageHeader {
  let header: ThriftStruct;
  let end: number;
  try {
    ({ value: header, end } = parseThrift(bytes));
  } catch (error) {
    if (error instanceof ThriftError) throw new ParquetError(error.message, { cause: error });
    throw error;
  }
  const number = (from: ThriftStruct | undefined, field: number, otherwise = 0) => {
    const value = from?.get(field);
    return typeof value === "number" ? value : otherwise;
  };
  const kind = KINDS[number(header, 1, -1) as keyof typeof KINDS] ?? "other";
  const found = header.get(kind === "data" ? 5 : kind === "dictionary" ? 7 : 8);
  const details = found instanceof Map ? found : undefined;
  const page: PageHeader = {
    kind,
    headerLength: end,
    size: number(header, 2, -1),
    packed: number(header, 3, -1),
    values: number(details, 1),
    encoding: number(details, kind === "data v2" ? 4 : 2),
    definitionBytes: kind === "data v2" ? number(details, 5) : 0,
    repetitionBytes: kind === "data v2" ? number(details, 6) : 0,
    isPacked: kind !== "data v2" || details?.get(7) !== false,
  };
  const sizes = [page.size, page.packed];
  if (sizes.some((size) => size < 0 || size > LARGEST_PAGE))
    throw new ParquetError(`a page announces ${Math.max(...sizes)} bytes`);
  if (page.values < 0 || page.values > MOST_ROWS) throw new ParquetError(`a page announces ${page.values} values`);
  if (page.definitionBytes < 0 || page.repetitionBytes < 0 || page.definitionBytes + page.repetitionBytes > page.packed)
    throw new ParquetError("the levels of a page are longer than the page");
  return page;
}

export type Decompress = (packed: Uint8Array, size: number) => Uint8Array | Promise<Uint8Array>;

/**
 * Byte strings of a dictionary page.
 * @throws ParquetError
 */
export async function readDictionary(
  header: PageHeader,
  body: Uint8Array,
  decompress: Decompress,
): Promise<Uint8Array[]> {
  const bytes = await unpack(body, header.size, decompress);
  return plainStrings(bytes, 0, header.values);
}

/**
 * Values of a data page, null where a row has none.
 * @param levels highest definition level: how many nodes of the column's path may be absent
 * @throws ParquetError
 */
export async function readValues(
  header: PageHeader,
  body: Uint8Array,
  levels: number,
  dictionary: readonly Uint8Array[] | null,
  decompress: Decompress,
): Promise<(Uint8Array | null)[]> {
  const width = Math.ceil(Math.log2(levels + 1));
  let present: boolean[] | null = null;
  let bytes: Uint8Array;
  let at = 0;
  if (header.kind === "data v2") {
    const start = header.repetitionBytes + header.definitionBytes;
    const levelBytes = body.subarray(header.repetitionBytes, start);
    if (levels > 0) present = hybrid(levelBytes, width, header.values, levels).map((level) => level === levels);
    const rest = body.subarray(start);
    bytes = header.isPacked ? await unpack(rest, header.size - start, decompress) : rest;
  } else {
    bytes = await unpack(body, header.size, decompress);
    if (levels > 0) {
      if (bytes.length < 4) throw new ParquetError("a page ends inside its levels");
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
      at = 4 + length;
      if (at > bytes.length) throw new ParquetError("a page ends inside its levels");
      present = hybrid(bytes.subarray(4, at), width, header.values, levels).map((level) => level === levels);
    }
  }
  const count = present === null ? header.values : present.filter(Boolean).length;
  const values = decodeValues(header.encoding, bytes.subarray(at), count, dictionary);
  if (present === null) return values;
  let next = 0;
  return present.map((isThere) => (isThere ? values[next++]! : null));
}

function decodeValues(
  encoding: number,
  bytes: Uint8Array,
  count: number,
  dictionary: readonly Uint8Array[] | null,
): Uint8Array[] {
  if (encoding === PLAIN) return plainStrings(bytes, 0, count);
  if (encoding !== PLAIN_DICTIONARY && encoding !== RLE_DICTIONARY)
    throw new ParquetError(`encoding ${encoding} of byte strings is not read, only plain and dictionary are`);
  if (dictionary === null) throw new ParquetError("a page asks for a dictionary that is not there");
  if (count === 0) return [];
  const width = bytes[0] ?? 255;
  if (width > 32) throw new ParquetError("the width of a dictionary's numbers is not valid");
  return hybrid(bytes.subarray(1), width, count, dictionary.length - 1).map((index) => dictionary[index]!);
}

async function unpack(body: Uint8Array, size: number, decompress: Decompress): Promise<Uint8Array> {
  if (size < 0) throw new ParquetError("a page announces a negative size");
  let bytes: Uint8Array;
  try {
    bytes = await decompress(body, size);
  } catch (error) {
    if (error instanceof ParquetError) throw error;
    throw new ParquetError(`a page does not decompress (${(error as Error).message})`, { cause: error });
  }
  if (bytes.length !== size) throw new ParquetError(`a page has ${bytes.length} bytes and announces ${size}`);
  return bytes;
}

/** Strings, each after its length in 32 bits. */
function plainStrings(bytes: Uint8Array, from: number, count: number): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Uint8Array[] = [];
  let at = from;
  for (let i = 0; i < count; i++) {
    if (at + 4 > bytes.length) throw new ParquetError(`a page ends after ${i} of ${count} values`);
    const length = view.getUint32(at, true);
    at += 4;
    if (at + length > bytes.length) throw new ParquetError("a value is longer than its page");
    found.push(bytes.subarray(at, at + length));
    at += length;
  }
  return found;
}

/** The mixture of runs and packed numbers of `width` bits; exactly `count` numbers from 0 to `largest`. */
function hybrid(bytes: Uint8Array, width: number, count: number, largest: number): number[] {
  const out: number[] = [];
  const check = (value: number) => {
    if (value > largest) throw new ParquetError(`a page asks for number ${value} of ${largest + 1}`);
    return value;
  };
  let at = 0;
  while (out.length < count) {
    let header = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= bytes.length || shift > 28)
        throw new ParquetError(`a page ends after ${out.length} of ${count} numbers`);
      const byte = bytes[at++]!;
      header += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    const isPacked = header % 2 === 1;
    const run = Math.floor(header / 2);
    if (!isPacked) {
      const wide = Math.ceil(width / 8);
      let value = 0;
      for (let i = 0; i < wide; i++) value += (bytes[at + i] ?? 0) * 2 ** (8 * i);
      at += wide;
      check(value);
      for (let left = Math.min(run, count - out.length); left > 0; left--) out.push(value);
      continue;
    }
    const numbers = Math.min(run * 8, count - out.length);
    for (let i = 0; i < numbers; i++) {
      let value = 0;
      for (let bit = 0; bit < width; bit++) {
        const place = i * width + bit;
        value += (((bytes[at + (place >> 3)] ?? 0) >> (place & 7)) & 1) * 2 ** bit;
      }
      out.push(check(value));
    }
    at += run * width;
  }
  return out;
}

/**
 * A gzip member of known length, for pages (RFC 1952).
 * @throws ParquetError
 */
export function gunzipPage(packed: Uint8Array, size: number): Uint8Array {
  if (packed[0] !== 0x1f || packed[1] !== 0x8b || packed[2] !== 8) throw new ParquetError("a page is not gzip");
  const flags = packed[3]!;
  let at = 10;
  if (flags & 4) at += 2 + ((packed[at] ?? 0) | ((packed[at + 1] ?? 0) << 8));
  for (const flag of [8, 16]) {
    if (!(flags & flag)) continue;
    const end = packed.indexOf(0, at);
    at = end < 0 ? packed.length : end + 1;
  }
  if (flags & 2) at += 2;
  try {
    return inflate([packed.subarray(at)], size);
  } catch (error) {
    if (error instanceof InflateError) throw new ParquetError(`a page: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Refuses zstd frames (RFC 8878) whose blocks would become much more than the page announces. */
export function guardZstd(packed: Uint8Array, size: number): void {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const cut = () => new ParquetError("a page's zstd data is damaged");
  if (packed.length < 6 || view.getUint32(0, true) !== 0xfd2fb528) throw cut();
  const descriptor = packed[4]!;
  const isSingle = (descriptor & 32) !== 0;
  const sizeBytes = descriptor >> 6 === 0 ? (isSingle ? 1 : 0) : 1 << (descriptor >> 6);
  let at = 5 + (isSingle ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  if (at + sizeBytes > packed.length) throw cut();
  if (sizeBytes > 0) {
    let announced = 0;
    for (let i = 0; i < sizeBytes; i++) announced += packed[at + i]! * 2 ** (8 * i);
    if (sizeBytes === 2) announced += 256;
    if (announced !== size) throw new ParquetError(`a page holds ${announced} bytes and announces ${size}`);
  }
  // A window is allocated as announced where the size is not: small pages need none of more than 8 MB.
  if (!isSingle && 2 ** (10 + (packed[5]! >> 3)) > Math.max(8 * 2 ** 20, 2 * size)) throw cut();
  at += sizeBytes;
  let known = 0;
  let blocks = 0;
  for (let last = false; !last; ) {
    if (at + 3 > packed.length) throw cut();
    const head = packed[at]! | (packed[at + 1]! << 8) | (packed[at + 2]! << 16);
    last = (head & 1) === 1;
    const kind = (head >> 1) & 3;
    const length = head >> 3;
    at += 3 + (kind === 1 ? 1 : length);
    if (kind === 3 || at > packed.length) throw cut();
    if (kind !== 2) known += length;
    else blocks++;
    // A compressed block becomes 128 KB at most; encoders do not write blocks of a few bytes.
    if (known > size || blocks > 64 + size / 512) throw new ParquetError("a page holds more than it announces");
  }
}
