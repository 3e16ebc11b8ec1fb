// Leading singular triples of a dense matrix by randomised subspace iteration (Halko, Martinsson & Tropp, "Finding
// structure with randomness", 2011, algorithms 4.4 and 5.1), in double precision on the host. The start comes from
// counter-based random numbers, so the same matrix always gives the same bits.

import { RandomStream } from "../../base/random.ts";

/** Columns beyond the rank that make the wanted ones converge faster. */
const OVERSAMPLING = 16;
const MOST_ITERATIONS = 12;
/** Iterations end when another one adds less than this share of the energy found. */
const TOLERANCE = 1e-6;
/** A column whose length falls by this factor when others are taken out of it is made of rounding. */
const DEPENDENT = 1e-13;
/** Singular values below this share of the largest are rounding, and counted as zero. */
const ROUNDING = 1e-14;

export interface Svd {
  /** [rows, k], orthonormal columns where the singular value is not zero. */
  left: Float64Array;
  /** k values, largest first; k = min(rank, rows, columns). */
  values: Float64Array;
  /** [columns, k], orthonormal columns where the singular value is not zero. */
  right: Float64Array;
}

/** ‖x‖². */
export function energyOf(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * x[i]!;
  return sum;
}

/**
 * The `rank` leading singular triples of `matrix` [rows, columns]. Where the spectrum has no gap at the rank, the kept
 * energy is within about 1e-5 of the best possible.
 * @param name names the random stream of the start
 */
export function truncatedSvd(matrix: Float64Array, rows: number, columns: number, rank: number, name: string): Svd {
  const least = Math.min(rows, columns);
  const kept = Math.min(rank, least);
  const width = Math.min(kept + OVERSAMPLING, least);
  const transposed = transpose(matrix, rows, columns);
  const start = Float64Array.from(new RandomStream(0, `svd.${name}`).normals(0, columns * width));
  let range = multiply(matrix, start, rows, columns, width);
  orthonormalise(range, rows, width);
  let image = multiply(transposed, range, columns, rows, width);
  let triangle = orthonormalise(image, columns, width);
  let found = leadingEnergy(triangle, width, kept);
  for (let i = 0; i < MOST_ITERATIONS && width < least; i++) {
    range = multiply(matrix, image, rows, columns, width);
    orthonormalise(range, rows, width);
    image = multiply(transposed, range, columns, rows, width);
    triangle = orthonormalise(image, columns, width);
    const now = leadingEnergy(triangle, width, kept);
    const gained = now - found;
    found = now;
    if (gained <= TOLERANCE * now) break;
  }
  // matrix ≈ range · rangeᵀ · matrix = range · (image · triangle)ᵀ, and the triangle is small.
  const small = jacobi(triangle, width);
  return {
    left: multiply(range, columnsOf(small.right, width, kept), rows, width, kept),
    values: small.values.slice(0, kept),
    right: multiply(image, columnsOf(small.left, width, kept), columns, width, kept),
  };
}

function leadingEnergy(triangle: Float64Array, width: number, kept: number): number {
  return energyOf(jacobi(triangle, width).values.subarray(0, kept));
}

function columnsOf(square: Float64Array, width: number, count: number): Float64Array {
  const out = new Float64Array(width * count);
  for (let i = 0; i < width; i++) out.set(square.subarray(i * width, i * width + count), i * count);
  return out;
}

function transpose(a: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j]!;
  return out;
}

/** a [m, n] · b [n, k], in blocks of 4 × 4 that fit the registers: twice as fast as rows alone. */
function multiply(a: Float64Array, b: Float64Array, m: number, n: number, k: number): Float64Array {
  const out = new Float64Array(m * k);
  const rows = m - (m % 4);
  const columns = k - (k % 4);
  for (let i = 0; i < rows; i += 4) {
    const a0 = i * n;
    const a1 = a0 + n;
    const a2 = a1 + n;
    const a3 = a2 + n;
    for (let c = 0; c < columns; c += 4) {
      let s00 = 0,
        s01 = 0,
        s02 = 0,
        s03 = 0,
        s10 = 0,
        s11 = 0,
        s12 = 0,
        s13 = 0;
      let s20 = 0,
        s21 = 0,
        s22 = 0,
        s23 = 0,
        s30 = 0,
        s31 = 0,
        s32 = 0,
        s33 = 0;
      for (let j = 0, at = c; j < n; j++, at += k) {
        const b0 = b[at]!,
          b1 = b[at + 1]!,
          b2 = b[at + 2]!,
          b3 = b[at + 3]!;
        const x0 = a[a0 + j]!,
          x1 = a[a1 + j]!,
          x2 = a[a2 + j]!,
          x3 = a[a3 + j]!;
        s00 += x0 * b0;
        s01 += x0 * b1;
        s02 += x0 * b2;
        s03 += x0 * b3;
        s10 += x1 * b0;
        s11 += x1 * b1;
        s12 += x1 * b2;
        s13 += x1 * b3;
        s20 += x2 * b0;
        s21 += x2 * b1;
        s22 += x2 * b2;
        s23 += x2 * b3;
        s30 += x3 * b0;
        s31 += x3 * b1;
        s32 += x3 * b2;
        s33 += x3 * b3;
      }
      const to = i * k + c;
      out[to] = s00;
      out[to + 1] = s01;
      out[to + 2] = s02;
      out[to + 3] = s03;
      out[to + k] = s10;
      out[to + k + 1] = s11;
      out[to + k + 2] = s12;
      out[to + k + 3] = s13;
      out[to + 2 * k] = s20;
      out[to + 2 * k + 1] = s21;
      out[to + 2 * k + 2] = s22;
      out[to + 2 * k + 3] = s23;
      out[to + 3 * k] = s30;
      out[to + 3 * k + 1] = s31;
      out[to + 3 * k + 2] = s32;
      out[to + 3 * k + 3] = s33;
    }
  }
  for (let i = 0; i < m; i++) {
    for (let c = i < rows ? columns : 0; c < k; c++) {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += a[i * n + j]! * b[j * k + c]!;
      out[i * k + c] = sum;
    }
  }
  return out;
}

/**
 * Replaces the columns of `x` [rows, k] by orthonormal ones and returns the triangle R [k, k] with x = q · R (Gram–Schmidt
 * with every projection done twice, which is as orthogonal as Householder's). A dependent column becomes zero.
 */
function orthonormalise(x: Float64Array, rows: number, k: number): Float64Array {
  const q = transpose(x, rows, k);
  const triangle = new Float64Array(k * k);
  for (let c = 0; c < k; c++) {
    const own = q.subarray(c * rows, (c + 1) * rows);
    const before = Math.sqrt(energyOf(own));
    for (let pass = 0; pass < 2; pass++) {
      for (let d = 0; d < c; d++) {
        const other = q.subarray(d * rows, (d + 1) * rows);
        const part = dot(own, other);
        triangle[d * k + c]! += part;
        if (part !== 0) for (let i = 0; i < rows; i++) own[i]! -= part * other[i]!;
      }
    }
    const length = Math.sqrt(energyOf(own));
    if (length <= DEPENDENT * before) {
      own.fill(0);
      continue;
    }
    triangle[c * k + c] = length;
    for (let i = 0; i < rows; i++) own[i]! /= length;
  }
  x.set(transpose(q, k, rows));
  return triangle;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/**
 * SVD of a small square matrix by one-sided Jacobi rotations (Hestenes 1958): square = left · diag(values) · rightᵀ,
 * values in descending order, a left column zero where its value is.
 */
export function jacobi(square: Float64Array, n: number): Svd {
  // Rows of u are the columns of the matrix: rotations then run along memory.
  const u = transpose(square, n, n);
  const v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  for (let sweep = 0; sweep < 60; sweep++) {
    let turned = false;
    for (let p = 0; p < n - 1; p++) {
      for (let r = p + 1; r < n; r++) {
        let [aa, bb, ab] = [0, 0, 0];
        for (let i = 0; i < n; i++) {
          const [x, y] = [u[p * n + i]!, u[r * n + i]!];
          aa += x * x;
          bb += y * y;
          ab += x * y;
        }
        if (ab === 0 || Math.abs(ab) <= 1e-15 * Math.sqrt(aa * bb)) continue;
        turned = true;
        const zeta = (bb - aa) / (2 * ab);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        rotate(u, p * n, r * n, n, cosine, cosine * tangent);
        rotate(v, p * n, r * n, n, cosine, cosine * tangent);
      }
    }
    if (!turned) break;
  }
  const lengths = Array.from({ length: n }, (_, c) => Math.sqrt(energyOf(u.subarray(c * n, (c + 1) * n))));
  const floor = ROUNDING * Math.max(...lengths);
  for (let c = 0; c < n; c++) if (lengths[c]! <= floor) lengths[c] = 0;
  const order = lengths.map((_, c) => c).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const left = new Float64Array(n * n);
  const right = new Float64Array(n * n);
  order.forEach((from, to) => {
    for (let i = 0; i < n; i++) {
      if (lengths[from]! > 0) left[i * n + to] = u[from * n + i]! / lengths[from]!;
      right[i * n + to] = v[from * n + i]!;
    }
  });
  return { left, values: Float64Array.from(order, (c) => lengths[c]!), right };
}

function rotate(x: Float64Array, p: number, r: number, n: number, cosine: number, sine: number): void {
  for (let i = 0; i < n; i++) {
    const [a, b] = [x[p + i]!, x[r + i]!];
    x[p + i] = cosine * a - sine * b;
    x[r + i] = sine * a + cosine * b;
  }
}
