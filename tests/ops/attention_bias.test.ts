// The gradient of a bias that the whole batch shares, against finite differences of attention in float64.

import { describe, expect, it } from "vitest";
import { attention } from "../../src/ops/attention.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

interface Sizes {
  batch: number;
  rows: number;
  keys: number;
  heads: number;
  head: number;
  causal?: boolean;
}

/** Sum of out * dout in float64, as a function of the bias. */
function loss(s: Sizes, q: Float64Array, k: Float64Array, v: Float64Array, dout: Float64Array, bias: Float64Array) {
  const width = s.heads * s.head;
  let total = 0;
  for (let b = 0; b < s.batch; b++) {
    for (let h = 0; h < s.heads; h++) {
      for (let i = 0; i < s.rows; i++) {
        const at = (b * s.rows + i) * width + h * s.head;
        const weights = Array.from({ length: s.keys }, (_, j) => {
          if (s.causal && j > i) return 0;
          let score = 0;
          for (let d = 0; d < s.head; d++) score += q[at + d]! * k[(b * s.keys + j) * width + h * s.head + d]!;
          return Math.exp(score / Math.sqrt(s.head) + bias[(h * s.rows + i) * s.keys + j]!);
        });
        const sum = weights.reduce((x, y) => x + y, 0);
        weights.forEach((w, j) => {
          for (let d = 0; d < s.head; d++) {
            total += (w / sum) * v[(b * s.keys + j) * width + h * s.head + d]! * dout[at + d]!;
          }
        });
      }
    }
  }
  return total;
}

describe("attention's bias", () => {
  it.each([
    { batch: 3, rows: 5, keys: 7, heads: 2, head: 8 },
    { batch: 35, rows: 6, keys: 6, heads: 3, head: 4, causal: true },
  ])("has the gradient of finite differences, summed over the batch: %j", async (s) => {
    const width = s.heads * s.head;
    const [q, k, v, dout] = [s.rows, s.keys, s.keys, s.rows].map((n, i) => noise(s.batch * n * width, i + 1));
    const shape = [s.heads, s.rows, s.keys];
    const bias = noise(s.heads * s.rows * s.keys, 9);
    const { gradients } = await runOps(
      [
        { shape: [s.batch, s.rows, width], values: q! },
        { shape: [s.batch, s.keys, width], values: k! },
        { shape: [s.batch, s.keys, width], values: v! },
        { shape, values: bias },
      ],
      ([a, b, c, d]) => [attention(a!, b!, c!, { heads: s.heads, bias: d!, causal: s.causal })],
      { seeds: [dout!], repeat: true },
    );
    const expected = bias.map((_, at) => {
      const moved = (by: number) => {
        const other = Float64Array.from(bias);
        other[at]! += by;
        return loss(s, q!, k!, v!, dout!, other);
      };
      return (moved(1e-5) - moved(-1e-5)) / 2e-5;
    });
    expect(relativeError(gradients[3]!, expected)).toBeLessThan(2e-5);
  });
});
