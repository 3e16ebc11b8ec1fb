// Pictures as PNG files (W3C «Portable Network Graphics», third edition): samples, sheets and reports are written with it,
// pictures of users are read. What a picture was made from travels inside as text, so that a sample found on a disk still
// says its prompt and seed. Writing comes from fast-png, with text in any script added here; reading is in png_decode.ts.

import { encode } from "fast-png";
import { LongtailError } from "../base/errors.ts";
import { crc32 } from "./inflate.ts";
import { decodePngBytes, PNG_SIGNATURE, PngError, readPngHeader } from "./png_decode.ts";

export interface Picture {
  width: number;
  height: number;
  /** 3 = red, green, blue; 4 = with alpha. */
  channels: 3 | 4;
  depth: 8 | 16;
  /** [height, width, channels], Uint16Array where depth is 16. */
  data: Uint8Array | Uint16Array;
  /** Text chunks by keyword, for example `parameters`. */
  text: Record<string, string>;
}

/** Larger pictures are refused before memory is taken for them. */
export const LARGEST_PICTURE = 2 ** 27;

const LATIN1 = /^[\u0020-\u007e\u00a0-\u00ff\n]*$/;

/**
 * Decodes a PNG of any colour type and bit depth to RGB or RGBA; depths below 8 become 8.
 * @param where the file's name, for the message
 * @param maxPixels larger pictures are refused before memory is taken for them
 * @throws E-DATA-020 the picture does not decode, E-DATA-023 it is larger than `maxPixels`
 */
export function decodePng(bytes: Uint8Array, where: string, maxPixels = LARGEST_PICTURE): Picture {
  try {
    const { width, height } = readPngHeader(bytes);
    if (width * height > maxPixels) throw tooManyPixels(where, width, height, maxPixels);
    return decodePngBytes(bytes);
  } catch (error) {
    if (!(error instanceof PngError)) throw error;
    const isOther = bytes.length > 0 && PNG_SIGNATURE.some((byte, i) => bytes[i] !== byte);
    throw damagedPicture(where, isOther ? `it is ${guessType(bytes)}, not a PNG` : error.message, error);
  }
}

export function damagedPicture(where: string, why: string, cause?: unknown): LongtailError {
  return new LongtailError("E-DATA-020", {
    what: "the picture does not decode",
    where,
    why,
    fix: "save the picture anew as PNG, or take it out of the data set",
    cause,
  });
}

export function tooManyPixels(where: string, width: number, height: number, most: number): LongtailError {
  return new LongtailError("E-DATA-023", {
    what: "the picture is too large",
    where,
    why: `its size of ${width} x ${height} is beyond ${(most / 1e6).toFixed(1)} megapixels`,
    fix: "make the picture smaller, or raise the limit of megapixels",
  });
}

function guessType(bytes: Uint8Array): string {
  const at = (offset: number, text: string) =>
    [...text].every((letter, i) => bytes[offset + i] === letter.charCodeAt(0));
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "a JPEG";
  if (at(0, "RIFF") && at(8, "WEBP")) return "a WebP";
  if (at(0, "GIF8")) return "a GIF";
  if (at(4, "ftypavif")) return "an AVIF";
  if (at(0, "<")) return "a text or SVG file";
  return "something else";
}

/** Encodes a picture; texts outside Latin-1 are written as UTF-8 (`iTXt`). */
export function encodePng(picture: Omit<Picture, "text"> & { text?: Record<string, string> }): Uint8Array {
  const latin: Record<string, string> = {};
  const other: [string, string][] = [];
  for (const [key, text] of Object.entries(picture.text ?? {})) {
    if (LATIN1.test(text)) latin[key] = text;
    else other.push([key, text]);
  }
  const { width, height, channels, depth, data } = picture;
  const bytes = encode({ width, height, channels, depth, data, text: latin }, { zlib: { level: 6 } });
  if (other.length === 0) return bytes;
  const ending = 12; // IEND is the last chunk and has no content
  const parts = [
    bytes.subarray(0, -ending),
    ...other.map(([key, text]) => textChunk(key, text)),
    bytes.subarray(-ending),
  ];
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Chunk iTXt: keyword, 0, uncompressed (0, 0), no language (0), no translated keyword (0), UTF-8 text. */
function textChunk(keyword: string, text: string): Uint8Array {
  const content = new TextEncoder().encode(`iTXt${keyword}\0\0\0\0\0${text}`);
  const out = new Uint8Array(content.length + 8);
  const view = new DataView(out.buffer);
  view.setUint32(0, content.length - 4);
  out.set(content, 4);
  view.setUint32(out.length - 4, crc32(content));
  return out;
}

/**
 * A picture as planes of float32: [3, height, width] in [0, 1]. Transparent parts show `background` (white).
 */
export function toPlanes(picture: Picture, background: readonly [number, number, number] = [1, 1, 1]): Float32Array {
  const { width, height, channels, data } = picture;
  const pixels = width * height;
  const largest = picture.depth === 16 ? 65535 : 255;
  const out = new Float32Array(3 * pixels);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < pixels; i++) {
      const value = data[i * channels + c]! / largest;
      const alpha = channels === 4 ? data[i * 4 + 3]! / largest : 1;
      out[c * pixels + i] = alpha === 1 ? value : value * alpha + background[c]! * (1 - alpha);
    }
  }
  return out;
}

/** Planes [3, height, width], nominally in [0, 1], as an 8-bit picture: clamped and rounded, NaN black. */
export function fromPlanes(
  planes: Float32Array,
  width: number,
  height: number,
  text: Record<string, string> = {},
): Picture {
  const pixels = width * height;
  if (planes.length !== 3 * pixels)
    throw new RangeError(`planes of ${planes.length} numbers for 3 x ${height} x ${width}`);
  const data = new Uint8Array(3 * pixels);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < pixels; i++)
      data[i * 3 + c] = Math.round(Math.min(1, Math.max(0, planes[c * pixels + i]! || 0)) * 255);
  }
  return { width, height, channels: 3, depth: 8, data, text };
}

export interface GridOptions {
  columns: number;
  /** Pixels between cells and around them; 2 by default. */
  gap?: number;
  /** Each pixel of a cell becomes a square of this side; 1 by default. */
  zoom?: number;
}

/**
 * One picture of many: cells [3, height, width] row by row on white; `null` leaves a cell empty.
 */
export function pictureGrid(
  cells: readonly (Float32Array | null)[],
  width: number,
  height: number,
  { columns, gap = 2, zoom = 1 }: GridOptions,
): Picture {
  const rows = Math.ceil(cells.length / columns);
  const [cellWidth, cellHeight] = [width * zoom, height * zoom];
  const wide = columns * (cellWidth + gap) + gap;
  const high = rows * (cellHeight + gap) + gap;
  const data = new Uint8Array(wide * high * 3).fill(255);
  for (const [n, cell] of cells.entries()) {
    if (cell === null) continue;
    const small = fromPlanes(cell, width, height).data;
    const left = gap + (n % columns) * (cellWidth + gap);
    const top = gap + Math.floor(n / columns) * (cellHeight + gap);
    for (let y = 0; y < cellHeight; y++) {
      for (let x = 0; x < cellWidth; x++) {
        const from = (Math.floor(y / zoom) * width + Math.floor(x / zoom)) * 3;
        data.set(small.subarray(from, from + 3), ((top + y) * wide + left + x) * 3);
      }
    }
  }
  return { width: wide, height: high, channels: 3, depth: 8, data, text: {} };
}

/** Bytes as a `data:` address, for pages that must not need other files. */
export function dataUri(bytes: Uint8Array, type = "image/png"): string {
  let binary = "";
  const piece = 0x8000; // String.fromCharCode takes only so many arguments
  for (let at = 0; at < bytes.length; at += piece) binary += String.fromCharCode(...bytes.subarray(at, at + piece));
  return `data:${type};base64,${btoa(binary)}`;
}
