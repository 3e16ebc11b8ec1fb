// Decompression (RFC 1951) of data from strangers. A few bytes can claim to become gigabytes, so the input is pushed in
// small pieces and the work ends as soon as more comes out than was announced; no memory is taken beyond that.

import { Inflate } from "fflate";

export { crc32 } from "./crc32.ts";

/** What is wrong with compressed data. The caller knows the file and makes a coded error of it. */
export class InflateError extends Error {}

/** Deflate makes at most 1032 bytes of one, so the largest piece becomes 17 MB at most; small outputs take small pieces. */
const SMALLEST_PIECE = 512;
const LARGEST_PIECE = 16 * 1024;

export interface InflateOptions {
  /** What to do with data beyond `length`: refuse it (default), or leave it unread. */
  surplus?: "refuse" | "ignore";
}

/**
 * Inflates raw deflate data to exactly `length` bytes.
 * @param parts the compressed bytes, in any number of pieces
 * @throws InflateError damaged, incomplete, or longer than `length`
 */
export function inflate(
  parts: readonly Uint8Array[],
  length: number,
  { surplus = "refuse" }: InflateOptions = {},
): Uint8Array {
  const out = new Uint8Array(length);
  let filled = 0;
  let beyond = false;
  let ended = false;
  const piece = Math.min(LARGEST_PIECE, Math.max(SMALLEST_PIECE, length >> 7));
  const stream = new Inflate((data) => {
    const room = Math.min(data.length, length - filled);
    out.set(room === data.length ? data : data.subarray(0, room), filled);
    filled += room;
    beyond ||= data.length > room;
  });
  for (const [i, part] of parts.entries()) {
    for (let at = 0; at < part.length && !ended; at += piece) {
      const last = i === parts.length - 1 && at + piece >= part.length;
      try {
        stream.push(part.subarray(at, at + piece), last);
      } catch (error) {
        throw new InflateError(`its compressed data is damaged (${(error as Error).message})`, { cause: error });
      }
      if (beyond && surplus === "refuse")
        throw new InflateError(`its data is longer than the ${length} bytes that it announces`);
      ended = beyond || (surplus === "ignore" && filled === length);
    }
  }
  if (filled < length) throw new InflateError(`its data ends after ${filled} of ${length} bytes`);
  return out;
}

/**
 * Inflates a zlib stream (RFC 1950) that may lie in pieces; what follows `length` bytes is not read.
 * @throws InflateError no zlib header, damaged or incomplete
 */
export function inflateZlib(parts: readonly Uint8Array[], length: number): Uint8Array {
  const rest = parts.filter((part) => part.length > 0);
  const head: number[] = [];
  while (head.length < 2 && rest.length > 0) {
    head.push(rest[0]![0]!);
    rest[0] = rest[0]!.subarray(1);
    if (rest[0]!.length === 0) rest.shift();
  }
  const [method, flags] = [head[0] ?? 0, head[1] ?? 0];
  const presetDictionary = (flags & 32) !== 0;
  if ((method & 15) !== 8 || method >> 4 > 7 || ((method << 8) | flags) % 31 !== 0 || presetDictionary)
    throw new InflateError("its compressed data has no valid header");
  return inflate(rest, length, { surplus: "ignore" });
}
