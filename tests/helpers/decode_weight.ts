// The values of an encoded weight on the host: the reference for the device's decoder (shaders that read compact weights).

import { bf16ToF32, f16ToF32 } from "../../src/base/halves.ts";
import { type CompactStorage, type EncodedWeight, NF4, QUANTIZATION_BLOCK } from "../../src/base/quantize.ts";

/** The values that an encoded weight stands for: what the device's decoder gives, bit for bit. */
export function decodeWeight(storage: CompactStorage, encoded: EncodedWeight, count: number): Float32Array {
  const { codes, scales } = encoded;
  if (storage === "f16" || storage === "bf16") {
    const halves = new Uint16Array(codes.buffer, codes.byteOffset, count);
    return storage === "f16" ? f16ToF32(halves) : bf16ToF32(halves);
  }
  const out = new Float32Array(count);
  const bytes = new Int8Array(codes.buffer, codes.byteOffset, codes.byteLength);
  for (let i = 0; i < count; i++) {
    const code = storage === "int8" ? bytes[i]! : NF4[(bytes[i >> 1]! >> (4 * (i & 1))) & 15]!;
    // The store rounds the float64 product of two f32 values once, as an f32 multiplication does.
    out[i] = code * scales![Math.floor(i / QUANTIZATION_BLOCK)]!;
  }
  return out;
}
