// Arithmetic on adapter layers in double precision on the host: norms and inner products of changes without making them,
// singular values of a product of two factors, and the change itself row by row. The identities are those of linear
// algebra; the rotations are Jacobi's (models/flux/svd.ts).

import { isLokr, type LokrLayer, type LoraLayer } from "../../formats/adapter_layers.ts";
import { wholeFactor } from "../../formats/lokr.ts";
import { energyOf, jacobi } from "../../models/flux/svd.ts";

export type AnyLayer = LoraLayer | LokrLayer;

/** ‖ΔW‖, the Frobenius norm of what the layer adds (a DoRA's magnitude is not part of it). */
export function changeNorm(layer: AnyLayer): number {
  if (isLokr(layer)) {
    const [a, b] = [wholeFactor(layer.first), wholeFactor(layer.second)];
    return Math.abs(layer.scale) * Math.sqrt(energyOf(a) * energyOf(b));
  }
  return Math.sqrt(Math.max(0, changeProduct(layer, layer)));
}

/** ⟨ΔW₁, ΔW₂⟩, the sum of the products of all elements; both layers must be of one size. */
export function changeProduct(x: AnyLayer, y: AnyLayer): number {
  if (isLokr(x) || isLokr(y)) {
    const [a, b] = [denseChange(x), denseChange(y)];
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
    return sum;
  }
  // ⟨B₁A₁, B₂A₂⟩ = ⟨B₁ᵀB₂, A₁A₂ᵀ⟩, both of which are only rank × rank.
  const ups = columnProducts(x.up, x.rank, y.up, y.rank, x.outputs);
  let sum = 0;
  for (let k = 0; k < x.rank; k++) {
    for (let l = 0; l < y.rank; l++) {
      let product = 0;
      for (let j = 0; j < x.inputs; j++) product += x.down[k * x.inputs + j]! * y.down[l * y.inputs + j]!;
      sum += product * ups[k * y.rank + l]!;
    }
  }
  return sum * x.scale * y.scale;
}

function columnProducts(a: Float32Array, ra: number, b: Float32Array, rb: number, rows: number): Float64Array {
  const out = new Float64Array(ra * rb);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < ra; k++) {
      const value = a[i * ra + k]!;
      if (value === 0) continue;
      for (let l = 0; l < rb; l++) out[k * rb + l]! += value * b[i * rb + l]!;
    }
  }
  return out;
}

/** ΔW as a dense matrix [outputs, inputs]. */
export function denseChange(layer: AnyLayer): Float64Array {
  const out = new Float64Array(layer.outputs * layer.inputs);
  const row = changeRows(layer);
  for (let i = 0; i < layer.outputs; i++) row(i, out.subarray(i * layer.inputs, (i + 1) * layer.inputs));
  return out;
}

/** A function that adds row i of ΔW to a row of `inputs` values. */
export function changeRows(layer: AnyLayer): (i: number, row: Float64Array) => void {
  if (isLokr(layer)) {
    const [a, b] = [wholeFactor(layer.first), wholeFactor(layer.second)];
    const { first, second, scale } = layer;
    return (i, row) => {
      const [top, low] = [Math.floor(i / second.rows), i % second.rows];
      for (let p = 0; p < first.columns; p++) {
        const value = scale * a[top * first.columns + p]!;
        if (value === 0) continue;
        for (let q = 0; q < second.columns; q++) {
          row[p * second.columns + q]! += value * b[low * second.columns + q]!;
        }
      }
    };
  }
  const { rank, inputs, up, down, scale } = layer;
  return (i, row) => {
    for (let k = 0; k < rank; k++) {
      const value = scale * up[i * rank + k]!;
      if (value === 0) continue;
      for (let j = 0; j < inputs; j++) row[j]! += value * down[k * inputs + j]!;
    }
  };
}

export interface ProductSvd {
  /** Singular values of up · down, largest first; as many as the layer's rank. */
  values: Float64Array;
  /** The layer cut to its `rank` leading triples, √σ in both factors, its scale unchanged. */
  cut(rank: number): LoraLayer;
}

/** Singular values of up · down by a QR of each factor and the SVD of the small product of their triangles. */
export function productSvd(layer: LoraLayer): ProductSvd {
  const { rank, inputs, outputs } = layer;
  const upColumns = new Float64Array(rank * outputs);
  for (let i = 0; i < outputs; i++) for (let k = 0; k < rank; k++) upColumns[k * outputs + i] = layer.up[i * rank + k]!;
  const downRows = Float64Array.from(layer.down);
  const left = orthonormalise(upColumns, outputs, rank);
  const right = orthonormalise(downRows, inputs, rank);
  const core = new Float64Array(rank * rank);
  for (let i = 0; i < rank; i++) {
    for (let j = 0; j < rank; j++) {
      let sum = 0;
      for (let k = Math.max(i, j); k < rank; k++) sum += left[i * rank + k]! * right[j * rank + k]!;
      core[i * rank + j] = sum;
    }
  }
  const small = jacobi(core, rank);
  const cut = (kept: number): LoraLayer => {
    const up = new Float32Array(outputs * kept);
    const down = new Float32Array(kept * inputs);
    for (let k = 0; k < kept; k++) {
      const root = Math.sqrt(small.values[k]!);
      const u = combination(upColumns, outputs, small.left, rank, k);
      const v = combination(downRows, inputs, small.right, rank, k);
      for (let i = 0; i < outputs; i++) up[i * kept + k] = root * u[i]!;
      for (let j = 0; j < inputs; j++) down[k * inputs + j] = root * v[j]!;
    }
    return { ...layer, rank: kept, up, down };
  };
  return { values: small.values, cut };
}

/** Column `column` of basis · weights, where the basis lies as `count` vectors one after another. */
function combination(basis: Float64Array, length: number, weights: Float64Array, count: number, column: number) {
  const out = new Float64Array(length);
  for (let k = 0; k < count; k++) {
    const weight = weights[k * count + column]!;
    if (weight !== 0) for (let i = 0; i < length; i++) out[i]! += weight * basis[k * length + i]!;
  }
  return out;
}

/** A vector that falls by this factor when others are taken out of it is made of rounding. */
const DEPENDENT = 1e-13;

/** Makes `count` vectors orthonormal in place and returns the triangle R [count, count]; a dependent one becomes zero. */
function orthonormalise(vectors: Float64Array, length: number, count: number): Float64Array {
  const triangle = new Float64Array(count * count);
  for (let c = 0; c < count; c++) {
    const own = vectors.subarray(c * length, (c + 1) * length);
    const before = Math.sqrt(energyOf(own));
    // Twice is enough for orthogonality to rounding (Parlett).
    for (let pass = 0; pass < 2; pass++) {
      for (let d = 0; d < c; d++) {
        const other = vectors.subarray(d * length, (d + 1) * length);
        let part = 0;
        for (let i = 0; i < length; i++) part += own[i]! * other[i]!;
        triangle[d * count + c]! += part;
        if (part !== 0) for (let i = 0; i < length; i++) own[i]! -= part * other[i]!;
      }
    }
    const rest = Math.sqrt(energyOf(own));
    if (rest <= DEPENDENT * before) {
      own.fill(0);
      continue;
    }
    triangle[c * count + c] = rest;
    for (let i = 0; i < length; i++) own[i]! /= rest;
  }
  return triangle;
}
