// The task of the shapes benchmark: C = op(A) op(B) for a few different A and one B, as the layers of a transformer have them.
// Several A give a library with a costly call the chance to spread that cost; results are checked with a random vector
// (Freivalds 1979).

import { noise } from "./chain.ts";

export interface ProductTask {
  m: number;
  n: number;
  k: number;
  /** A lies as [k, m], B as [n, k]. */
  transposeA: boolean;
  transposeB: boolean;
  /** How many A there are. */
  count: number;
}

/** Row-major operands; B is scaled so that products keep the size of A. */
export function productInputs({ m, n, k, count }: ProductTask): { a: Float32Array[]; b: Float32Array } {
  const a = Array.from({ length: count }, (_, i) => noise(m * k, i + 1, 1));
  return { a, b: noise(k * n, 99, Math.sqrt(3 / k)) };
}

export const shapeA = ({ m, k, transposeA }: ProductTask): [number, number] => (transposeA ? [k, m] : [m, k]);
export const shapeB = ({ n, k, transposeB }: ProductTask): [number, number] => (transposeB ? [n, k] : [k, n]);

/** Multiply-adds count as two. */
export const productFlops = ({ m, n, k, count }: ProductTask): number => 2 * m * n * k * count;

/** ‖C v − op(A) op(B) v‖ / ‖op(A) op(B) v‖ of the last product, in double precision. */
export function productError(task: ProductTask, c: ArrayLike<number>): number {
  const { m, n, count } = task;
  const { a, b } = productInputs(task);
  const v = Float64Array.from(noise(n, 3, 1));
  const expected = times(a[count - 1]!, shapeA(task), task.transposeA, times(b, shapeB(task), task.transposeB, v));
  const got = times(c, [m, n], false, v);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < m; i++) {
    difference += (got[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** op(X) v of a matrix that lies as [rows, columns]. */
function times(
  x: ArrayLike<number>,
  [rows, columns]: readonly [number, number],
  transpose: boolean,
  v: Float64Array,
): Float64Array {
  const out = new Float64Array(transpose ? columns : rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < columns; c++) {
      if (transpose) out[c]! += x[r * columns + c]! * v[r]!;
      else sum += x[r * columns + c]! * v[c]!;
    }
    if (!transpose) out[r] = sum;
  }
  return out;
}
