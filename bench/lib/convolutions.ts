// The task of the convolution benchmark: a 3x3 convolution with padding 1, its input gradient or its weight gradient, at the
// shapes of an autoencoder. Values are those of [N, C, H, W] and [O, I, 3, 3]; a library that orders them otherwise turns
// them before and after. Some elements of every result are computed again in double precision.

import { noise } from "./chain.ts";

export type ConvKind = "forward" | "input gradient" | "weight gradient";

export interface ConvTask {
  kind: ConvKind;
  batch: number;
  inputs: number;
  outputs: number;
  side: number;
}

export const pictureShape = ({ batch, inputs, side }: ConvTask): number[] => [batch, inputs, side, side];
export const weightShape = ({ inputs, outputs }: ConvTask): number[] => [outputs, inputs, 3, 3];
export const resultShape = ({ batch, outputs, side }: ConvTask): number[] => [batch, outputs, side, side];

const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** x, w and the gradient that arrives. */
export function convInputs(task: ConvTask): { x: Float32Array; w: Float32Array; dy: Float32Array } {
  return {
    x: noise(size(pictureShape(task)), 1, 1),
    w: noise(size(weightShape(task)), 2, 1 / Math.sqrt(9 * task.inputs)),
    dy: noise(size(resultShape(task)), 3, 1),
  };
}

/** Multiply-adds count as two; the same for all three kinds. */
export const convFlops = ({ batch, inputs, outputs, side }: ConvTask): number =>
  18 * batch * inputs * outputs * side ** 2;

const CHECKED = 64;

/** Largest difference of some elements relative to the largest of them. */
export function convError(task: ConvTask, result: ArrayLike<number>): number {
  const { x, w, dy } = convInputs(task);
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < CHECKED; i++) {
    // Corners and edges come too: both ends, and steps that are no divisor of a row.
    const at =
      i === 0 ? 0 : i === 1 ? result.length - 1 : Math.floor((i * 0.6180339887 * result.length) % result.length);
    const expected = element(task, at, x, w, dy);
    scale = Math.max(scale, Math.abs(expected));
    worst = Math.max(worst, Math.abs(result[at]! - expected));
  }
  return worst / scale;
}

function element(t: ConvTask, at: number, x: Float32Array, w: Float32Array, dy: Float32Array): number {
  const { side, inputs, outputs, batch } = t;
  const inside = (r: number, c: number) => r >= 0 && r < side && c >= 0 && c < side;
  let sum = 0;
  if (t.kind === "weight gradient") {
    const [tap, i, o] = [at % 9, Math.floor(at / 9) % inputs, Math.floor(at / (9 * inputs))];
    const [dr, dc] = [Math.floor(tap / 3) - 1, (tap % 3) - 1];
    for (let n = 0; n < batch; n++) {
      for (let r = 0; r < side; r++) {
        for (let c = 0; c < side; c++) {
          if (!inside(r + dr, c + dc)) continue;
          const from = ((n * inputs + i) * side + r + dr) * side + c + dc;
          sum += x[from]! * dy[((n * outputs + o) * side + r) * side + c]!;
        }
      }
    }
    return sum;
  }
  // The input gradient gathers what the forward pass scatters: the same sum with taps turned round.
  const forward = t.kind === "forward";
  const [mine, others] = forward ? [outputs, inputs] : [inputs, outputs];
  const [c, r] = [at % side, Math.floor(at / side) % side];
  const [own, n] = [Math.floor(at / side ** 2) % mine, Math.floor(at / (side ** 2 * mine))];
  for (let other = 0; other < others; other++) {
    for (let tap = 0; tap < 9; tap++) {
      const [dr, dc] = [Math.floor(tap / 3) - 1, (tap % 3) - 1];
      const [y, z] = forward ? [r + dr, c + dc] : [r - dr, c - dc];
      if (!inside(y, z)) continue;
      const weight = forward ? (own * inputs + other) * 9 + tap : (other * inputs + own) * 9 + tap;
      sum += (forward ? x : dy)[((n * others + other) * side + y) * side + z]! * w[weight]!;
    }
  }
  return sum;
}

/** Elements of a dense array with its dimensions in another order: result[i0, i1, ...] = values at `order`'s places. */
export function reordered(values: ArrayLike<number>, shape: readonly number[], order: readonly number[]): Float32Array {
  const strides = shape.map((_, i) => size(shape.slice(i + 1)));
  const [a, b, c, d] = order.map((o) => shape[o]!) as [number, number, number, number];
  const [sa, sb, sc, sd] = order.map((o) => strides[o]!) as [number, number, number, number];
  const out = new Float32Array(values.length);
  let at = 0;
  for (let i = 0; i < a; i++) {
    for (let j = 0; j < b; j++) {
      for (let k = 0; k < c; k++) {
        for (let l = 0; l < d; l++) out[at++] = values[i * sa + j * sb + k * sc + l * sd]!;
      }
    }
  }
  return out;
}
