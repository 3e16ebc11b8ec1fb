// The reading half of PNG (W3C «Portable Network Graphics», third edition): every colour type, bit depth and interlacing.
// Files come from strangers, so chunks are checked (order, length, checksum) before anything is decompressed, and what is
// decompressed is exactly as long as the header says.

import { crc32, InflateError, inflateZlib } from "./inflate.ts";

/** What is wrong with the file; the caller adds its name and a code. */
export class PngError extends Error {}

export interface PngHeader {
  width: number;
  height: number;
  depth: 1 | 2 | 4 | 8 | 16;
  /** 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA. */
  colourType: 0 | 2 | 3 | 4 | 6;
  interlaced: boolean;
}

export interface DecodedPng {
  width: number;
  height: number;
  channels: 3 | 4;
  depth: 8 | 16;
  data: Uint8Array | Uint16Array;
  text: Record<string, string>;
}

export const PNG_SIGNATURE: readonly number[] = [137, 80, 78, 71, 13, 10, 26, 10];

const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 } as const;
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] } as const;
/** Adam7: first column, first row, step in x, step in y of each pass. */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;
const UTF8 = new TextDecoder("utf-8");
const LATIN1 = new TextDecoder("latin1");
/** Texts beyond this are passed over: they are notes of other programs. */
const LONGEST_TEXT = 2 ** 20;

interface Chunk {
  type: string;
  data: Uint8Array;
}

/**
 * The header, from the first 33 bytes.
 * @throws PngError not a PNG, too short, or values that the specification forbids
 */
export function readPngHeader(bytes: Uint8Array): PngHeader {
  if (bytes.length === 0) throw new PngError("the file is empty");
  if (PNG_SIGNATURE.some((byte, i) => bytes[i] !== byte)) throw new PngError("it has no PNG signature");
  if (bytes.length < 33) throw new PngError("the file ends inside its header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(8) !== 13 || LATIN1.decode(bytes.subarray(12, 16)) !== "IHDR")
    throw new PngError("its first chunk is not its header");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [depth, colourType, compression, filter, interlace] = bytes.subarray(24, 29);
  if (width === 0 || height === 0) throw new PngError(`its size is ${width} x ${height}`);
  const depths: readonly number[] | undefined = DEPTHS[colourType as keyof typeof DEPTHS];
  if (depths === undefined || !depths.includes(depth!) || compression !== 0 || filter !== 0 || interlace! > 1)
    throw new PngError("its header holds values that PNG does not have");
  return {
    width,
    height,
    depth: depth as PngHeader["depth"],
    colourType: colourType as PngHeader["colourType"],
    interlaced: interlace === 1,
  };
}

/**
 * Walks over all chunks: lengths, checksums, and that the picture data and the end are there. Costs a checksum over the
 * file and takes no memory; it finds cut and altered files without decoding them.
 * @throws PngError
 */
export function readPngChunks(bytes: Uint8Array): Chunk[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  let data = 0;
  for (let at = 8; ; ) {
    if (at + 12 > bytes.length) throw new PngError("the file ends before its last chunk");
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) throw new PngError("the file ends inside a chunk");
    const type = LATIN1.decode(bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw new PngError("it holds something that is not a chunk");
    const isCritical = (bytes[at + 4]! & 32) === 0;
    const isWhole = crc32(bytes.subarray(at + 4, at + 8 + length)) === view.getUint32(at + 8 + length);
    if (!isWhole && (isCritical || type === "tRNS")) throw new PngError(`the checksum of its chunk ${type} is wrong`);
    if (isWhole) chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + length) });
    if (type === "IDAT") data++;
    if (type === "IEND") break;
    at += 12 + length;
  }
  if (data === 0) throw new PngError("it has no picture data");
  return chunks;
}

/**
 * Decodes to RGB or RGBA. Depths below 8 become 8.
 * @throws PngError
 */
export function decodePngBytes(bytes: Uint8Array): DecodedPng {
  const header = readPngHeader(bytes);
  const chunks = readPngChunks(bytes);
  const first = (type: string) => chunks.find((chunk) => chunk.type === type)?.data;
  const packed = chunks.filter((chunk) => chunk.type === "IDAT").map((chunk) => chunk.data);
  let rows: Uint8Array;
  try {
    rows = inflateZlib(packed, filteredSize(header));
  } catch (error) {
    if (error instanceof InflateError) throw new PngError(error.message, { cause: error });
    throw error;
  }
  const samples = unpackPicture(header, rows);
  const { width, height, colourType, depth } = header;
  const text = readTexts(chunks);
  if (colourType === 3)
    return { width, height, depth: 8, text, ...applyPalette(samples, first("PLTE"), first("tRNS")) };
  return { width, height, text, depth: depth === 16 ? 16 : 8, ...toColours(header, samples, first("tRNS")) };
}

const rowBytes = (header: PngHeader, width: number) =>
  Math.ceil((width * SAMPLES[header.colourType] * header.depth) / 8);

function passesOf({ width, height, interlaced }: PngHeader) {
  if (!interlaced) return [{ x: 0, y: 0, dx: 1, dy: 1, width, height }];
  return PASSES.map(([x, y, dx, dy]) => ({
    x,
    y,
    dx,
    dy,
    width: Math.ceil(Math.max(0, width - x) / dx),
    height: Math.ceil(Math.max(0, height - y) / dy),
  })).filter((pass) => pass.width > 0 && pass.height > 0);
}

/** Bytes of all rows with their filter bytes. */
function filteredSize(header: PngHeader): number {
  return passesOf(header).reduce((sum, pass) => sum + pass.height * (1 + rowBytes(header, pass.width)), 0);
}

/** Samples [height, width, samples], one number each, in the picture's own depth. */
function unpackPicture(header: PngHeader, rows: Uint8Array): Uint8Array | Uint16Array {
  const { width, height, depth, interlaced } = header;
  const samples = SAMPLES[header.colourType];
  const back = Math.max(1, (samples * depth) / 8);
  const size = width * height * samples;
  const out = depth === 16 ? new Uint16Array(size) : new Uint8Array(size);
  let at = 0;
  for (const pass of passesOf(header)) {
    const length = rowBytes(header, pass.width);
    for (let y = 0; y < pass.height; y++) {
      unfilter(rows, at, length, y === 0 ? -1 : at - length, back);
      at++;
      const to = ((pass.y + y * pass.dy) * width + pass.x) * samples;
      if (!interlaced && depth === 8) out.set(rows.subarray(at, at + length), to);
      else spread(rows, at, out, to, pass.width, samples, pass.dx * samples, depth);
      at += length;
    }
  }
  return out;
}

/** Undoes the filter of one row in place; `above` is the place of the row before it, or -1. */
function unfilter(rows: Uint8Array, at: number, length: number, above: number, back: number): void {
  const filter = rows[at]!;
  const start = at + 1;
  const end = start + length;
  if (filter > 4) throw new PngError("its data holds a filter that PNG does not have");
  if (filter === 0) return;
  if (filter === 1) {
    for (let i = start + back; i < end; i++) rows[i] = rows[i]! + rows[i - back]!;
    return;
  }
  if (filter === 2) {
    if (above >= 0) for (let i = start, up = above; i < end; i++, up++) rows[i] = rows[i]! + rows[up]!;
    return;
  }
  for (let i = start, k = 0; i < end; i++, k++) {
    const left = k >= back ? rows[i - back]! : 0;
    const up = above >= 0 ? rows[above + k]! : 0;
    if (filter === 3) {
      rows[i] = rows[i]! + ((left + up) >> 1);
      continue;
    }
    const corner = k >= back && above >= 0 ? rows[above + k - back]! : 0;
    const byLeft = Math.abs(up - corner);
    const byUp = Math.abs(left - corner);
    const byCorner = Math.abs(left + up - 2 * corner);
    rows[i] = rows[i]! + (byLeft <= byUp && byLeft <= byCorner ? left : byUp <= byCorner ? up : corner);
  }
}

/** Takes the samples of one row apart and lays pixel n at `to + n * stride`. */
function spread(
  rows: Uint8Array,
  at: number,
  out: Uint8Array | Uint16Array,
  to: number,
  pixels: number,
  samples: number,
  stride: number,
  depth: number,
): void {
  const mask = 2 ** depth - 1;
  for (let n = 0; n < pixels; n++) {
    for (let s = 0; s < samples; s++) {
      const k = n * samples + s;
      let value: number;
      if (depth === 16) value = (rows[at + 2 * k]! << 8) | rows[at + 2 * k + 1]!;
      else if (depth === 8) value = rows[at + k]!;
      else {
        const bit = k * depth;
        value = (rows[at + (bit >> 3)]! >> (8 - depth - (bit & 7))) & mask;
      }
      out[to + n * stride + s] = value;
    }
  }
}

function applyPalette(
  indices: Uint8Array | Uint16Array,
  palette: Uint8Array | undefined,
  transparency: Uint8Array | undefined,
): Pick<DecodedPng, "channels" | "data"> {
  if (palette === undefined || palette.length === 0 || palette.length % 3 !== 0 || palette.length > 768)
    throw new PngError("its palette is missing or has a wrong length");
  const channels = transparency && transparency.length > 0 ? 4 : 3;
  const data = new Uint8Array(indices.length * channels);
  const colours = palette.length / 3;
  for (let i = 0, at = 0; i < indices.length; i++, at += channels) {
    const index = indices[i]!;
    if (index >= colours) throw new PngError(`a pixel asks for colour ${index} of a palette of ${colours}`);
    data[at] = palette[index * 3]!;
    data[at + 1] = palette[index * 3 + 1]!;
    data[at + 2] = palette[index * 3 + 2]!;
    if (channels === 4) data[at + 3] = transparency![index] ?? 255;
  }
  return { channels, data };
}

/** Grey and RGB samples to RGB or RGBA; the colour that tRNS names becomes transparent. */
function toColours(
  header: PngHeader,
  samples: Uint8Array | Uint16Array,
  transparency: Uint8Array | undefined,
): Pick<DecodedPng, "channels" | "data"> {
  const { colourType, depth, width, height } = header;
  const count = SAMPLES[colourType];
  const isGrey = colourType === 0 || colourType === 4;
  const hasAlpha = colourType === 4 || colourType === 6;
  const keyLength = isGrey ? 2 : 6;
  const key =
    !hasAlpha && transparency && transparency.length >= keyLength
      ? Array.from({ length: keyLength / 2 }, (_, i) => (transparency[2 * i]! << 8) | transparency[2 * i + 1]!)
      : null;
  const channels = hasAlpha || key !== null ? 4 : 3;
  if (channels === count) return { channels, data: samples };
  const pixels = width * height;
  const data = depth === 16 ? new Uint16Array(pixels * channels) : new Uint8Array(pixels * channels);
  const opaque = depth === 16 ? 65535 : 255;
  const scale = depth < 8 ? 255 / (2 ** depth - 1) : 1;
  for (let i = 0, from = 0, to = 0; i < pixels; i++, from += count, to += channels) {
    data[to] = samples[from]! * scale;
    data[to + 1] = samples[isGrey ? from : from + 1]! * scale;
    data[to + 2] = samples[isGrey ? from : from + 2]! * scale;
    if (hasAlpha) data[to + 3] = samples[from + count - 1]!;
    else if (key !== null) data[to + 3] = key.every((value, c) => value === samples[from + c]) ? 0 : opaque;
  }
  return { channels, data };
}

/** Texts by keyword: tEXt, and iTXt where it is not compressed. */
function readTexts(chunks: readonly Chunk[]): Record<string, string> {
  const found: Record<string, string> = Object.create(null);
  for (const { type, data } of chunks) {
    if ((type !== "tEXt" && type !== "iTXt") || data.length > LONGEST_TEXT) continue;
    const whole = (type === "tEXt" ? LATIN1 : UTF8).decode(data);
    const pattern = type === "tEXt" ? /^([^\0]{1,79})\0(.*)$/s : /^([^\0]{1,79})\0\0\0[^\0]*\0[^\0]*\0(.*)$/s;
    const match = pattern.exec(whole);
    if (match) found[match[1]!] = match[2]!;
  }
  return { ...found };
}
