// Compact storage of frozen weights: 16-bit floats, 8-bit integers in blocks, and NormalFloat4 (Dettmers et al. 2023,
// "QLoRA", section 3 and appendix E). A weight is encoded on the host while it is loaded; the device decodes it with the
// same single f32 product code · scale, so that host and device agree to the last bit.
//
// Blocks are 64 neighbours of the flat, row-major weight; the last one may be shorter, and where rows are no multiple of
// 64 a block runs over a row's end. int8 has blocks too rather than one scale a row: over the embedded transformer the
// relative error is 0.56 % against 0.68 % with a scale a row, for 8.5 bits a weight against 8.1; a row of a large model holds
// more outliers than one of these 256 values, so the difference only grows there.

import { LongtailError } from "./errors.ts";
import { f32ToBf16, f32ToF16 } from "./halves.ts";

/** How a frozen matrix is kept on the device. */
export type Storage = "f32" | "f16" | "bf16" | "int8" | "nf4";
/** Those that need decoding. */
export type CompactStorage = Exclude<Storage, "f32">;

export const STORAGES: readonly Storage[] = ["f32", "f16", "bf16", "int8", "nf4"];

/** Values that share one scale. */
export const QUANTIZATION_BLOCK = 64;

/** Code 0 … 15: quantiles of a normal distribution, scaled to [-1, 1], with an exact zero (QLoRA, appendix E). */
export const NF4: Float32Array = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** Middles between neighbouring codes, in float64. */
const NF4_MIDDLES: Float64Array = Float64Array.from({ length: 15 }, (_, i) => (NF4[i]! + NF4[i + 1]!) / 2);

/** An encoded weight as it is uploaded. */
export interface EncodedWeight {
  /** Words with two, four or eight codes each, the first in the lowest bits. */
  codes: Uint32Array;
  /** One factor a block of 64, for int8 and nf4. */
  scales: Float32Array | null;
}

/** Codes in a 32-bit word. */
export const CODES_PER_WORD: Readonly<Record<CompactStorage, number>> = { f16: 2, bf16: 2, int8: 4, nf4: 8 };

/** Number of words that `count` codes take. */
export function wordCount(storage: CompactStorage, count: number): number {
  return Math.ceil(count / CODES_PER_WORD[storage]);
}

/** Whether a storage has a factor a block. */
export function hasScales(storage: CompactStorage): boolean {
  return storage === "int8" || storage === "nf4";
}

/** Number of scales of `count` values. */
export function scaleCount(count: number): number {
  return Math.ceil(count / QUANTIZATION_BLOCK);
}

/** Bytes that `count` values take, without the padding of their place in a pool. */
export function storedBytes(storage: Storage, count: number): number {
  if (storage === "f32") return 4 * count;
  return 4 * wordCount(storage, count) + (hasScales(storage) ? 4 * scaleCount(count) : 0);
}

/**
 * Encodes a weight. The same values give the same bits on every machine.
 * @param name the tensor, for messages
 * @throws LongtailError E-FILE-036 where a value is NaN or infinite, E-FILE-037 where one is too large for the format
 */
export function encodeWeight(name: string, storage: CompactStorage, values: Float32Array): EncodedWeight {
  if (storage === "f16" || storage === "bf16") {
    const halves = encodeHalves(name, storage, values);
    return { codes: words(new Uint8Array(halves.buffer as ArrayBuffer)), scales: null };
  }
  refuseNotFinite(name, values);
  if (storage === "int8") {
    const { codes, scales } = quantizeInt8(values);
    return { codes: words(new Uint8Array(codes.buffer)), scales };
  }
  return quantizeNf4(values);
}

/** f16 or bf16 patterns of a weight, round to nearest even; errors as `encodeWeight`. */
export function encodeHalves(name: string, storage: "f16" | "bf16", values: Float32Array): Uint16Array {
  refuseNotFinite(name, values);
  const halves = storage === "f16" ? f32ToF16(values) : f32ToBf16(values);
  refuseOverflow(name, storage, values, halves, storage === "f16" ? 0x7c00 : 0x7f80);
  return halves;
}

/** Adding and taking away rounds to the nearest whole number, ties to even, for |x| < 2^51. */
const ROUND = 1.5 * 2 ** 52;

/**
 * Symmetric 8-bit integers: value ≈ code · scale with scale = max|block| / 127.
 * @param block values that share a scale; the loader always takes 64
 */
export function quantizeInt8(
  values: Float32Array,
  block = QUANTIZATION_BLOCK,
): { codes: Int8Array<ArrayBuffer>; scales: Float32Array } {
  const codes = new Int8Array(values.length);
  const scales = new Float32Array(Math.ceil(values.length / block));
  for (let b = 0; b < scales.length; b++) {
    const from = b * block;
    const to = Math.min(values.length, from + block);
    let scale = Math.fround(largest(values, from, to) / 127);
    // Next to the end of f32 a scale that was rounded up would decode to infinity.
    if (!Number.isFinite(Math.fround(127 * scale))) scale = Math.fround(scale * (1 - 2 ** -23));
    scales[b] = scale;
    // Zero for a block of zeros, and where max / 127 is below the smallest number.
    if (scale === 0) continue;
    for (let i = from; i < to; i++) codes[i] = Math.min(127, Math.max(-127, values[i]! / scale + ROUND - ROUND));
  }
  return { codes, scales };
}

/** NormalFloat4: value ≈ NF4[code] · scale with scale = max|block|; the nearest code, the lower one in the middle. */
function quantizeNf4(values: Float32Array): EncodedWeight {
  const codes = new Uint32Array(wordCount("nf4", values.length));
  const scales = new Float32Array(scaleCount(values.length));
  for (let b = 0; b < scales.length; b++) {
    const from = b * QUANTIZATION_BLOCK;
    const to = Math.min(values.length, from + QUANTIZATION_BLOCK);
    const scale = largest(values, from, to);
    scales[b] = scale;
    for (let i = from; i < to; i++) {
      // A block of zeros holds the code of zero.
      const code = scale === 0 ? 7 : nearestNf4(values[i]! / scale);
      codes[i >>> 3]! |= code << (4 * (i & 7));
    }
  }
  return { codes, scales };
}

function nearestNf4(x: number): number {
  let code = x > NF4_MIDDLES[7]! ? 8 : 0;
  if (x > NF4_MIDDLES[code + 3]!) code += 4;
  if (x > NF4_MIDDLES[code + 1]!) code += 2;
  if (x > NF4_MIDDLES[code]!) code += 1;
  return code;
}

function largest(values: Float32Array, from: number, to: number): number {
  let most = 0;
  for (let i = from; i < to; i++) {
    const size = Math.abs(values[i]!);
    if (size > most) most = size;
  }
  return most;
}

/** Bytes as whole words, zeros behind the last. */
function words(bytes: Uint8Array<ArrayBuffer>): Uint32Array {
  if (bytes.byteLength % 4 === 0) return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  padded.set(bytes);
  return new Uint32Array(padded.buffer);
}

function refuseNotFinite(name: string, values: Float32Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & 0x7f800000) !== 0x7f800000) continue;
    throw new LongtailError("E-FILE-036", {
      what: `value ${i} of the weight is ${values[i]}`,
      where: name,
      why: "the file is damaged, or the training that made it diverged",
      fix: "use another copy of these weights",
    });
  }
}

function refuseOverflow(
  name: string,
  storage: CompactStorage,
  values: Float32Array,
  codes: Uint16Array,
  infinity: number,
): void {
  const at = codes.findIndex((code) => (code & 0x7fff) === infinity);
  if (at >= 0) refuseTooLarge(name, storage, values, at);
}

/**
 * For weights that products read as f16, whatever they are stored as.
 * @throws LongtailError E-FILE-037 where a value rounds to no number of f16
 */
export function refuseBeyondHalves(name: string, values: Float32Array): void {
  const at = values.findIndex((v) => Math.abs(v) >= 65_520);
  if (at >= 0) refuseTooLarge(name, "f16", values, at);
}

function refuseTooLarge(name: string, storage: CompactStorage, values: Float32Array, at: number): never {
  throw new LongtailError("E-FILE-037", {
    what: `value ${at} of the weight is ${values[at]}, which ${storage} cannot hold`,
    where: name,
    why: `the largest number of ${storage} is ${storage === "f16" ? "65504" : "3.39e38"}`,
    fix: storage === "f16" ? 'store these weights as "bf16" or "f32"' : 'store these weights as "f32"',
  });
}
