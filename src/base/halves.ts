// The small float formats of checkpoints and of GPU storage: float16, bfloat16 and the two 8-bit floats of the OCP paper
// «FP8 Formats for Deep Learning». Reading goes through tables of bit patterns, writing rounds to the nearest even value.
// Bit patterns are Uint16Array or Uint8Array; all functions work on whole arrays and need a little-endian machine.

/** Bit patterns of float32 for all 65,536 float16 patterns, made on first use. */
let halfTable: Uint32Array | undefined;

function halfBits(): Uint32Array {
  if (halfTable) return halfTable;
  const table = new Uint32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >>> 10) & 31;
    const mantissa = half & 0x3ff;
    if (exponent === 31) table[half] = sign | 0x7f800000 | (mantissa << 13);
    else if (exponent > 0) table[half] = sign | ((exponent + 112) << 23) | (mantissa << 13);
    else if (mantissa > 0) {
      // Subnormals of float16 are normal numbers of float32: shift until the leading one becomes the hidden bit.
      const shift = Math.clz32(mantissa) - 21;
      table[half] = sign | ((113 - shift) << 23) | ((mantissa << (13 + shift)) & 0x7fffff);
    } else table[half] = sign;
  }
  halfTable = table;
  return table;
}

/** float16 patterns to float32, exact; NaN payloads keep their upper bits. */
export function f16ToF32(source: Uint16Array, out = new Float32Array(source.length)): Float32Array {
  const table = halfBits();
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < source.length; i++) bits[i] = table[source[i]!]!;
  return out;
}

/** float32 to float16 patterns, round to nearest even; above 65,519 becomes infinity, NaN stays a quiet NaN. */
export function f32ToF16(source: Float32Array, out = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) out[i] = halfFromBits(bits[i]!);
  return out;
}

function halfFromBits(x: number): number {
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  // 2^-14, the smallest normal float16: re-bias the exponent and let the rounding carry run into it.
  if (magnitude >= 0x38800000 && magnitude < 0x477ff000) {
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude <= 0x33000000) return sign; // at most half of the smallest subnormal, ties go to even
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const value = mantissa >>> shift;
  return sign | (rest > half || (rest === half && (value & 1) === 1) ? value + 1 : value);
}

/** bfloat16 patterns to float32, exact. */
export function bf16ToF32(source: Uint16Array, out = new Float32Array(source.length)): Float32Array {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < source.length; i++) bits[i] = source[i]! << 16;
  return out;
}

/** float32 to bfloat16 patterns, round to nearest even; NaN stays a quiet NaN. */
export function f32ToBf16(source: Float32Array, out = new Uint16Array(source.length)): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    // The rounding carry of a NaN could turn it into infinity or into the other sign.
    if ((x & 0x7fffffff) > 0x7f800000) out[i] = (x >>> 16) | 0x40;
    else out[i] = (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return out;
}

function smallFloatTable(exponentBits: number, bias: number, special: (code: number) => number | null): Float32Array {
  const mantissaBits = 7 - exponentBits;
  return Float32Array.from({ length: 256 }, (_, code) => {
    const sign = code & 0x80 ? -1 : 1;
    const found = special(code & 0x7f);
    if (found !== null) return sign * found;
    const exponent = (code & 0x7f) >> mantissaBits;
    const fraction = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
    return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
  });
}

/** Values of all e4m3fn codes: bias 7, largest 448, no infinity, NaN only as 0x7f and 0xff. */
export const E4M3FN: Float32Array = smallFloatTable(4, 7, (code) => (code === 0x7f ? Number.NaN : null));

/** Values of all e5m2 codes: bias 15, largest 57,344, infinity and NaN as in IEEE. */
export const E5M2: Float32Array = smallFloatTable(5, 15, (code) =>
  code < 0x7c ? null : code === 0x7c ? Number.POSITIVE_INFINITY : Number.NaN,
);

/** e4m3fn codes to float32, exact. */
export function e4m3ToF32(source: Uint8Array, out = new Float32Array(source.length)): Float32Array {
  for (let i = 0; i < source.length; i++) out[i] = E4M3FN[source[i]!]!;
  return out;
}

/** e5m2 codes to float32, exact. */
export function e5m2ToF32(source: Uint8Array, out = new Float32Array(source.length)): Float32Array {
  for (let i = 0; i < source.length; i++) out[i] = E5M2[source[i]!]!;
  return out;
}
