// Changes to training pictures that are made once, on the host: similarity transforms, blur, smooth displacement. Pictures
// are [3, S, S] in [0, 1] on white.

import { RandomStream } from "../../base/random.ts";
import { type Motion, similarity } from "./draws.ts";

/** Displacements are drawn on a grid of this many points a side and interpolated. */
const GRID = 5;
const BLUR_RADIUS = 4;
const UNIT_MAP = Float32Array.of(1, 0, 0, 0, 1, 0);

/**
 * The picture through an affine map [6], bilinear, white outside; the same as the kernel affine_sample.
 * @param moved displacement of each pixel's place [2, S, S], x then y, in half pictures
 */
export function sampleAffine(
  planes: Float32Array,
  side: number,
  map: Float32Array,
  moved?: Float32Array,
): Float32Array {
  const area = side * side;
  const out = new Float32Array(planes.length);
  const [a, b, c, d, e, f] = map as unknown as [number, number, number, number, number, number];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const at = y * side + x;
      const fromX = (2 * x + 1) / side - 1;
      const fromY = (2 * y + 1) / side - 1;
      const toX = a * fromX + b * fromY + c + (moved?.[at] ?? 0);
      const toY = d * fromX + e * fromY + f + (moved?.[area + at] ?? 0);
      const px = ((toX + 1) * side - 1) / 2;
      const py = ((toY + 1) * side - 1) / 2;
      const x0 = Math.floor(px);
      const y0 = Math.floor(py);
      for (let plane = 0; plane < out.length; plane += area) {
        let sum = 0;
        for (let j = 0; j < 2; j++) {
          for (let i = 0; i < 2; i++) {
            const [column, row] = [x0 + i, y0 + j];
            if (column < 0 || row < 0 || column >= side || row >= side) continue;
            const weight = (i ? px - x0 : 1 - px + x0) * (j ? py - y0 : 1 - py + y0);
            sum += weight * (planes[plane + row * side + column]! - 1);
          }
        }
        out[plane + at] = sum + 1;
      }
    }
  }
  return out;
}

/** A random similarity transform; `index` numbers the draws of a stream. */
export function moveRandomly(
  planes: Float32Array,
  side: number,
  motion: Motion,
  stream: RandomStream,
  index: number,
): Float32Array {
  const u = stream.uniforms(index, 4);
  return sampleAffine(
    planes,
    side,
    similarity(motion, (k) => u[k]!),
  );
}

/** Gaussian blur over 9 × 9 pixels; the border is continued outwards. */
export function blur(planes: Float32Array, side: number, sigma: number): Float32Array {
  const taps = Float64Array.from({ length: 2 * BLUR_RADIUS + 1 }, (_, i) => {
    return Math.exp(-((i - BLUR_RADIUS) ** 2) / (2 * sigma ** 2));
  });
  const total = taps.reduce((x, y) => x + y, 0);
  const pass = (from: Float32Array, horizontal: boolean): Float32Array =>
    from.map((_, at) => {
      const x = at % side;
      const y = Math.floor(at / side) % side;
      const first = at - (horizontal ? x : y * side);
      let sum = 0;
      taps.forEach((tap, i) => {
        const place = Math.min(side - 1, Math.max(0, (horizontal ? x : y) + i - BLUR_RADIUS));
        sum += tap * from[first + place * (horizontal ? 1 : side)]!;
      });
      return sum / total;
    });
  return pass(pass(planes, true), false);
}

/** Cubic convolution with a = -0.75 (torch's bicubic). */
function cubic(x: number): number {
  const t = Math.abs(x);
  if (t < 1) return (1.25 * t - 2.25) * t * t + 1;
  return t < 2 ? -0.75 * (((t - 5) * t + 8) * t - 4) : 0;
}

/** A smooth random displacement of `amount` half pictures (standard deviation at the grid's points). */
export function warp(
  planes: Float32Array,
  side: number,
  amount: number,
  stream: RandomStream,
  index: number,
): Float32Array {
  const points = stream.normals(index, 2 * GRID * GRID);
  // Corners of the grid lie on the corners of the picture.
  const weights = Array.from({ length: side }, (_, i) => {
    const at = (i * (GRID - 1)) / (side - 1);
    const row = new Float64Array(GRID);
    for (let k = Math.floor(at) - 1; k < Math.floor(at) + 3; k++) {
      row[Math.min(GRID - 1, Math.max(0, k))]! += cubic(at - k);
    }
    return row;
  });
  const moved = new Float32Array(2 * side * side);
  for (let at = 0; at < moved.length; at++) {
    const first = Math.floor(at / (side * side)) * GRID * GRID;
    const row = weights[Math.floor(at / side) % side]!;
    const column = weights[at % side]!;
    let sum = 0;
    for (let j = 0; j < GRID; j++)
      for (let i = 0; i < GRID; i++) sum += row[j]! * column[i]! * points[first + j * GRID + i]!;
    moved[at] = sum * amount;
  }
  return sampleAffine(planes, side, UNIT_MAP, moved);
}

/** White noise of a standard deviation. */
export function addNoise(planes: Float32Array, deviation: number, stream: RandomStream, index: number): Float32Array {
  const noise = stream.normals(index, planes.length);
  return planes.map((value, i) => value + deviation * noise[i]!);
}

/** Values in [0, 1] as bytes, and back: pools of views are large, and every step of a CLIP reads a batch of them. */
export const toBytes = (planes: Float32Array): Uint8Array =>
  Uint8Array.from(planes, (v) => Math.round(Math.min(1, Math.max(0, v)) * 255));
export function fromBytes(bytes: Uint8Array): Float32Array {
  const out = new Float32Array(bytes.length);
  for (let i = 0; i < out.length; i++) out[i] = bytes[i]! / 255;
  return out;
}

/** Named streams, so that one kind of change does not shift the numbers of another. */
export const changeStream = (seed: number, name: string): RandomStream => new RandomStream(seed, `pretrain ${name}`);
