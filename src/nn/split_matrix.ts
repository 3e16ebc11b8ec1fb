// Matrices above one binding of the adapter, split by output rows: each part is a matrix of its own, its product makes a
// stretch of the outputs. FLUX.1's largest, 18432 × 3072, is 226 MB as f32, and small adapters bind 128 MiB at a time.

import { QUANTIZATION_BLOCK } from "../base/quantize.ts";
import type { StoredMatrix } from "../ops/quantized.ts";
import type { Variable } from "../tensor/variable.ts";

export class SplitMatrix {
  readonly name: string;
  /** [out, in] of the whole. */
  readonly shape: readonly [number, number];
  /** Matrices of consecutive rows, all of one storage. */
  readonly parts: readonly (Variable | StoredMatrix)[];

  constructor(name: string, shape: readonly [number, number], parts: readonly (Variable | StoredMatrix)[]) {
    this.name = name;
    this.shape = shape;
    this.parts = parts;
  }
}

/** Bytes of a value as products read it, whatever it is stored as. */
const DECODED_BYTES = 4;

/**
 * Rows of each part of a matrix [out, in] so that a part's values as f32 fit `limit` bytes; one entry where the whole
 * does. Parts hold whole blocks of quantisation, so that their codes are those of the whole, and are as equal as that allows.
 * Throws a plain Error where the fewest such rows are too many.
 */
export function matrixRows([outputs, inputs]: readonly [number, number], limit: number): number[] {
  const most = Math.floor(limit / (DECODED_BYTES * inputs));
  if (outputs <= most) return [outputs];
  const step = QUANTIZATION_BLOCK / greatestDivisor(inputs, QUANTIZATION_BLOCK);
  const mostWhole = Math.floor(most / step) * step;
  if (mostWhole === 0)
    throw new Error(`${step} rows of ${inputs} values exceed one binding of this adapter (${limit} bytes)`);
  const count = Math.ceil(outputs / mostWhole);
  const rows = Math.ceil(outputs / count / step) * step;
  const parts: number[] = [];
  for (let left = outputs; left > 0; left -= rows) parts.push(Math.min(left, rows));
  return parts;
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
