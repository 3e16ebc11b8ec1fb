// Stored bytes of tensors as float32 values, for every file format that holds tensors. Large tensors are read and
// converted piece by piece, so that the stored bytes and the values never lie in memory side by side as a whole.

import { bf16ToF32, e4m3ToF32, e5m2ToF32, f16ToF32 } from "../base/halves.ts";
import { DTYPE_BITS, type Dtype } from "./safetensors_header.ts";

/** Bytes read at once; also what a read takes beyond the values that it returns. */
export const PIECE_BYTES = 1024 * 1024;

/** The type cannot be read as numbers here (4- and 6-bit floats, scales of 8 exponent bits, complex numbers). */
export class NoNumbersError extends Error {}

const words16 = (bytes: Uint8Array) => new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);

/**
 * Values as float32. F64 and integers are rounded, BOOL becomes 0 or 1.
 * @param bytes begin at a multiple of 8 in their buffer, @param out of as many elements; F32 without it is not copied
 * @throws NoNumbersError
 */
export function toFloat32(bytes: Uint8Array, dtype: Dtype, out?: Float32Array<ArrayBuffer>): Float32Array {
  const { buffer, byteOffset, length } = bytes;
  switch (dtype) {
    case "F32": {
      const values = new Float32Array(buffer, byteOffset, length / 4);
      if (out === undefined) return values;
      out.set(values);
      return out;
    }
    case "F16":
      return f16ToF32(words16(bytes), out);
    case "BF16":
      return bf16ToF32(words16(bytes), out);
    case "F8_E4M3":
      return e4m3ToF32(bytes, out);
    case "F8_E5M2":
      return e5m2ToF32(bytes, out);
    default: {
      const values = dtype === "F64" ? new Float64Array(buffer, byteOffset, length / 8) : toIntegers(bytes, dtype);
      const target = out ?? new Float32Array(values.length);
      for (let i = 0; i < target.length; i++) target[i] = Number(values[i]);
      return target;
    }
  }
}

/** Elements of an integer type or BOOL. @throws NoNumbersError */
export function toIntegers(bytes: Uint8Array, dtype: Dtype): ArrayLike<number | bigint> {
  const { buffer, byteOffset, length } = bytes;
  switch (dtype) {
    case "BOOL":
      return bytes.map((byte) => (byte === 0 ? 0 : 1));
    case "U8":
      return bytes;
    case "I8":
      return new Int8Array(buffer, byteOffset, length);
    case "I16":
      return new Int16Array(buffer, byteOffset, length / 2);
    case "U16":
      return words16(bytes);
    case "I32":
      return new Int32Array(buffer, byteOffset, length / 4);
    case "U32":
      return new Uint32Array(buffer, byteOffset, length / 4);
    case "I64":
      return new BigInt64Array(buffer, byteOffset, length / 8);
    case "U64":
      return new BigUint64Array(buffer, byteOffset, length / 8);
    default:
      throw new NoNumbersError(`${dtype} cannot be converted here`);
  }
}

/** Bytes at a multiple of 8 of their buffer, copied only where they are not. */
export const aligned = (bytes: Uint8Array): Uint8Array => (bytes.byteOffset % 8 === 0 ? bytes : bytes.slice());

/**
 * Reads `count` elements that lie one after another.
 * @param read gives a range of bytes of the elements, counted from the first one
 * @param seen is shown every byte in order, for checksums
 * @throws NoNumbersError
 */
export async function readFloats(
  read: (begin: number, length: number) => Promise<Uint8Array>,
  count: number,
  dtype: Dtype,
  seen?: (bytes: Uint8Array) => void,
): Promise<Float32Array> {
  const size = DTYPE_BITS[dtype] / 8;
  if (size < 1) throw new NoNumbersError(`${dtype} cannot be converted here`);
  if (count === 0) return new Float32Array(0);
  if (count * size <= PIECE_BYTES) {
    const bytes = await read(0, count * size);
    seen?.(bytes);
    return toFloat32(aligned(bytes), dtype);
  }
  const out = new Float32Array(count);
  const step = PIECE_BYTES / size;
  for (let first = 0; first < count; first += step) {
    const taken = Math.min(step, count - first);
    const bytes = await read(first * size, taken * size);
    seen?.(bytes);
    toFloat32(aligned(bytes), dtype, out.subarray(first, first + taken));
  }
  return out;
}
