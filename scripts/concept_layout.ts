// From feature vectors to places in three dimensions: principal components (van der Maaten's usual start), then t-SNE
// (van der Maaten and Hinton 2008, exact gradient) which keeps near neighbours near. Everything is a function of its input;
// the seed only breaks ties between equal vectors.

import { RandomStream } from "../src/base/random.ts";

export type Place = [x: number, y: number, z: number];

const DIMENSIONS = 3;

export interface LayoutOptions {
  seed: number;
  /** How many neighbours a point listens to, about. */
  perplexity?: number;
  iterations?: number;
  /** Least distance of two places: what is drawn at them is not to lie on one another. */
  apart?: number;
}

/** Places of vectors [N][D]: mean 0, and nearly all within radius 1. */
export function layout(vectors: readonly Float32Array[], options: LayoutOptions): Place[] {
  const { perplexity = 20, iterations = 600 } = options;
  const count = vectors.length;
  const start = principalComponents(vectors, DIMENSIONS);
  const random = new RandomStream(options.seed, "concept map");
  const places = new Float64Array(count * DIMENSIONS);
  start.forEach((row, i) => {
    for (let k = 0; k < DIMENSIONS; k++)
      places[i * DIMENSIONS + k] = 0.05 * row[k]! + 1e-5 * (random.uniform(k, i) - 0.5);
  });
  refine(places, affinities(vectors, perplexity), iterations);
  return spaced(scaled(places, count), options.apart ?? 0);
}

/** The first `dimensions` principal components of vectors, by power iteration with deflation; signs are fixed. */
export function principalComponents(vectors: readonly Float32Array[], dimensions: number): number[][] {
  const width = vectors[0]!.length;
  const centre = new Float64Array(width);
  for (const v of vectors) for (let j = 0; j < width; j++) centre[j]! += v[j]! / vectors.length;
  const rows = vectors.map((v) => Float64Array.from(v, (value, j) => value - centre[j]!));
  const axes: Float64Array[] = [];
  for (let k = 0; k < dimensions; k++) {
    let axis = Float64Array.from({ length: width }, (_, j) => 1 + ((j * (k + 3)) % 7));
    for (let round = 0; round < 300; round++) {
      const next = new Float64Array(width);
      for (const row of rows) {
        const along = dot(row, axis);
        for (let j = 0; j < width; j++) next[j]! += along * row[j]!;
      }
      for (const earlier of axes) {
        const along = dot(next, earlier);
        for (let j = 0; j < width; j++) next[j]! -= along * earlier[j]!;
      }
      const length = Math.sqrt(dot(next, next)) || 1;
      axis = next.map((value) => value / length);
    }
    // An axis and its opposite are the same component: the largest entry is made positive.
    const largest = axis.reduce((best, value, j) => (Math.abs(value) > Math.abs(axis[best]!) ? j : best), 0);
    axes.push(axis[largest]! < 0 ? axis.map((value) => -value) : axis);
  }
  return rows.map((row) => axes.map((axis) => dot(row, axis)));
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Squared distances [N · N]. */
function distances(vectors: readonly ArrayLike<number>[]): Float64Array {
  const count = vectors.length;
  const all = new Float64Array(count * count);
  for (let i = 0; i < count; i++) {
    for (let j = i + 1; j < count; j++) {
      const [a, b] = [vectors[i]!, vectors[j]!];
      let sum = 0;
      for (let k = 0; k < a.length; k++) sum += (a[k]! - b[k]!) ** 2;
      all[i * count + j] = sum;
      all[j * count + i] = sum;
    }
  }
  return all;
}

/** Symmetric affinities [N · N] that sum to 1; each point's kernel is as wide as `perplexity` asks. */
function affinities(vectors: readonly Float32Array[], perplexity: number): Float64Array {
  const count = vectors.length;
  const squares = distances(vectors);
  const conditional = new Float64Array(count * count);
  const wanted = Math.log(perplexity);
  for (let i = 0; i < count; i++) {
    let [low, high, precision] = [0, Number.POSITIVE_INFINITY, 1];
    for (let round = 0; round < 60; round++) {
      let sum = 0;
      let weighted = 0;
      for (let j = 0; j < count; j++) {
        const value = i === j ? 0 : Math.exp(-squares[i * count + j]! * precision);
        conditional[i * count + j] = value;
        sum += value;
        weighted += value * squares[i * count + j]!;
      }
      for (let j = 0; j < count; j++) conditional[i * count + j]! /= sum || 1;
      const entropy = Math.log(sum || 1) + (precision * weighted) / (sum || 1);
      if (Math.abs(entropy - wanted) < 1e-7) break;
      if (entropy > wanted) low = precision;
      else high = precision;
      precision = high === Number.POSITIVE_INFINITY ? precision * 2 : (low + high) / 2;
    }
  }
  const joint = new Float64Array(count * count);
  for (let i = 0; i < count; i++)
    for (let j = 0; j < count; j++)
      joint[i * count + j] = (conditional[i * count + j]! + conditional[j * count + i]!) / (2 * count);
  return joint;
}

/** Gradient descent of t-SNE on places [N · 3], in place. */
function refine(places: Float64Array, joint: Float64Array, iterations: number): void {
  const count = places.length / DIMENSIONS;
  const moves = new Float64Array(places.length);
  const gradient = new Float64Array(places.length);
  const kernel = new Float64Array(count * count);
  const rate = count / 4;
  for (let round = 0; round < iterations; round++) {
    // Early exaggeration gathers the neighbourhoods before they find their places.
    const exaggeration = round < iterations / 4 ? 12 : 1;
    const momentum = round < iterations / 4 ? 0.5 : 0.8;
    let total = 0;
    for (let i = 0; i < count; i++) {
      for (let j = i + 1; j < count; j++) {
        let sum = 1;
        for (let k = 0; k < DIMENSIONS; k++) sum += (places[i * DIMENSIONS + k]! - places[j * DIMENSIONS + k]!) ** 2;
        kernel[i * count + j] = 1 / sum;
        total += 2 / sum;
      }
    }
    gradient.fill(0);
    for (let i = 0; i < count; i++) {
      for (let j = i + 1; j < count; j++) {
        const near = kernel[i * count + j]!;
        const pull = 4 * near * (exaggeration * joint[i * count + j]! - near / total);
        for (let k = 0; k < DIMENSIONS; k++) {
          const force = pull * (places[i * DIMENSIONS + k]! - places[j * DIMENSIONS + k]!);
          gradient[i * DIMENSIONS + k]! += force;
          gradient[j * DIMENSIONS + k]! -= force;
        }
      }
    }
    for (let n = 0; n < places.length; n++) {
      moves[n] = momentum * moves[n]! - rate * gradient[n]!;
      places[n]! += moves[n]!;
    }
  }
}

/** How far radii move to those of a ball that is filled evenly: t-SNE leaves most of a ball to few. */
const EVENNESS = 0.85;

/** Centred, within radius 1, and spread out: directions stay, and who is further out stays further out. */
function scaled(places: Float64Array, count: number): Place[] {
  const centre = [0, 0, 0];
  for (let i = 0; i < count; i++)
    for (let k = 0; k < DIMENSIONS; k++) centre[k]! += places[i * DIMENSIONS + k]! / count;
  const rows = Array.from({ length: count }, (_, i) => centre.map((c, k) => places[i * DIMENSIONS + k]! - c));
  const radii = rows.map((row) => Math.hypot(...row));
  const order = radii.map((_, i) => i).sort((a, b) => radii[a]! - radii[b]! || a - b);
  const largest = radii[order.at(-1)!]! || 1;
  for (const [rank, i] of order.entries()) {
    const even = Math.cbrt((rank + 0.5) / count);
    const wanted = EVENNESS * even + (1 - EVENNESS) * (radii[i]! / largest);
    rows[i] = rows[i]!.map((value) => (value * wanted) / (radii[i]! || 1));
  }
  return rows as Place[];
}

/** Pushes places that are nearer than `apart` away from each other, little by little, and keeps them within radius 1. */
function spaced(places: Place[], apart: number): Place[] {
  const rows = places.map((place) => [...place]);
  for (let round = 0; round < 120 && apart > 0; round++) {
    let moved = false;
    for (let i = 0; i < rows.length; i++) {
      for (let j = i + 1; j < rows.length; j++) {
        const [a, b] = [rows[i]!, rows[j]!];
        const way = a.map((value, k) => value - b[k]!);
        const distance = Math.hypot(...way);
        if (distance >= apart) continue;
        moved = true;
        // Two equal places part along an axis of their own.
        const along = distance > 1e-9 ? way.map((w) => w / distance) : [0, 1, 2].map((k) => Number(k === (i + j) % 3));
        const push = 0.3 * (apart - distance);
        for (let k = 0; k < DIMENSIONS; k++) {
          a[k]! += push * along[k]!;
          b[k]! -= push * along[k]!;
        }
      }
    }
    for (const row of rows) {
      const radius = Math.hypot(...row);
      if (radius > 1) for (let k = 0; k < DIMENSIONS; k++) row[k]! /= radius;
    }
    if (!moved) break;
  }
  return rows as Place[];
}

/** Indices of the `count` nearest others of every vector, nearest first. */
export function nearest(vectors: readonly ArrayLike<number>[], count: number): number[][] {
  const squares = distances(vectors);
  return vectors.map((_, i) =>
    vectors
      .map((_, j) => j)
      .filter((j) => j !== i)
      .sort((a, b) => squares[i * vectors.length + a]! - squares[i * vectors.length + b]! || a - b)
      .slice(0, count),
  );
}

/** Share of each vector's `count` nearest others that are among the `count` nearest of its place, on average. */
export function preservedNeighbours(
  vectors: readonly ArrayLike<number>[],
  places: readonly ArrayLike<number>[],
  count: number,
): number {
  const [there, here] = [nearest(vectors, count), nearest(places, count)];
  const kept = there.reduce((sum, list, i) => sum + list.filter((j) => here[i]!.includes(j)).length, 0);
  return kept / (count * vectors.length);
}
