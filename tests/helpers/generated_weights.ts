// Weights that nobody stores: each value is a hash of its tensor's name and its place, the same bits as tests/oracle/pipeline.py
// makes. A whole text-to-image pipeline with real vocabularies is so a list of names and shapes.

import { crc32 } from "node:zlib";

/** `count` numbers in [-1, 1), multiples of 2^-23: a hash of (CRC-32 of the name, place). */
export function hashed(name: string, count: number): Float64Array {
  const seed = crc32(name);
  const out = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let h = (Math.imul(i, 0x9e3779b9) + seed) | 0;
    h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
    h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
    h ^= h >>> 16;
    out[i] = (h >>> 8) / 2 ** 23 - 1;
  }
  return out;
}

const TABLE = /embedding\.weight|relative_attention_bias|(shared|embed_tokens)\.weight$/;

/** Tables ±0.8, matrices and convolutions of variance 1/fan-in, biases ±0.15, gains 1 ± 0.3; rounded to f32 once. */
export function generated(name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  const fanIn = count / shape[0]!;
  const scale =
    shape.length >= 2 ? (TABLE.test(name) ? 0.8 : Math.sqrt(3 / fanIn)) : name.endsWith("bias") ? 0.15 : 0.3;
  const offset = shape.length >= 2 || name.endsWith("bias") ? 0 : 1;
  return Float32Array.from(hashed(name, count), (u) => offset + u * scale);
}
