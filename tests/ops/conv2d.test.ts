import { describe, expect, it } from "vitest";
import { conv2d, type Padding } from "../../src/ops/conv2d.ts";
import { add, relu } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

interface Case {
  n: number;
  ic: number;
  oc: number;
  h: number;
  w: number;
  k: [number, number];
  stride: number;
  padding: Padding;
}

/** Visits every (output, input, weight) index triple that takes part in the convolution. */
function visit(c: Case, body: (y: number, x: number, w: number) => void): [number, number] {
  const oh = Math.floor((c.h + c.padding[0] + c.padding[2] - c.k[0]) / c.stride) + 1;
  const ow = Math.floor((c.w + c.padding[1] + c.padding[3] - c.k[1]) / c.stride) + 1;
  for (let n = 0; n < c.n; n++) {
    for (let o = 0; o < c.oc; o++) {
      for (let i = 0; i < c.ic; i++) {
        for (let oy = 0; oy < oh; oy++) {
          for (let ox = 0; ox < ow; ox++) {
            for (let ky = 0; ky < c.k[0]; ky++) {
              for (let kx = 0; kx < c.k[1]; kx++) {
                const y = oy * c.stride + ky - c.padding[0];
                const x = ox * c.stride + kx - c.padding[1];
                if (y < 0 || y >= c.h || x < 0 || x >= c.w) continue;
                body(
                  ((n * c.oc + o) * oh + oy) * ow + ox,
                  ((n * c.ic + i) * c.h + y) * c.w + x,
                  ((o * c.ic + i) * c.k[0] + ky) * c.k[1] + kx,
                );
              }
            }
          }
        }
      }
    }
  }
  return [oh, ow];
}

const half = (k: number): Padding => [(k - 1) / 2, (k - 1) / 2, (k - 1) / 2, (k - 1) / 2];
const CASES: Record<string, Case> = {
  "3x3 around a tile": { n: 2, ic: 5, oc: 17, h: 9, w: 11, k: [3, 3], stride: 1, padding: half(3) },
  "3x3 of one pixel and one channel": { n: 1, ic: 1, oc: 1, h: 1, w: 1, k: [3, 3], stride: 1, padding: half(3) },
  "3x3 with 16 channels": { n: 1, ic: 16, oc: 16, h: 8, w: 8, k: [3, 3], stride: 1, padding: half(3) },
  "3x3 to three channels": { n: 3, ic: 7, oc: 3, h: 5, w: 13, k: [3, 3], stride: 1, padding: half(3) },
  "1x1 as a product": { n: 2, ic: 6, oc: 9, h: 5, w: 7, k: [1, 1], stride: 1, padding: [0, 0, 0, 0] },
  "stride 2 with padding on all sides": { n: 2, ic: 4, oc: 6, h: 9, w: 8, k: [3, 3], stride: 2, padding: half(3) },
  "stride 2 padded below and to the right": { n: 1, ic: 3, oc: 5, h: 8, w: 10, k: [3, 3], stride: 2, padding: [0, 0, 1, 1] },
  "a 5x2 kernel": { n: 1, ic: 3, oc: 4, h: 7, w: 6, k: [5, 2], stride: 1, padding: [2, 0, 2, 1] },
  "patches of 4": { n: 2, ic: 3, oc: 8, h: 8, w: 12, k: [4, 4], stride: 4, padding: [0, 0, 0, 0] },
};

describe("convolution", () => {
  for (const [name, c] of Object.entries(CASES)) {
    it(`${name}: forward, input gradient and weight gradient agree with float64`, async () => {
      const x = noise(c.n * c.ic * c.h * c.w, 1);
      const w = noise(c.oc * c.ic * c.k[0] * c.k[1], 2);
      const b = noise(c.oc, 3);
      const [oh, ow] = visit(c, () => {});
      const y = Float64Array.from({ length: c.n * c.oc * oh * ow }, (_, i) => b[Math.floor(i / (oh * ow)) % c.oc]!);
      const dy = noise(y.length, 4);
      const dx = new Float64Array(x.length);
      const dw = new Float64Array(w.length);
      visit(c, (iy, ix, iw) => {
        y[iy]! += x[ix]! * w[iw]!;
        dx[ix]! += dy[iy]! * w[iw]!;
        dw[iw]! += dy[iy]! * x[ix]!;
      });
      const { outputs, gradients } = await runOps(
        [{ shape: [c.n, c.ic, c.h, c.w], values: x }, { shape: [c.oc, c.ic, ...c.k], values: w }, { shape: [c.oc], values: b }],
        ([p, q, r]) => [conv2d(p!, q!, { bias: r!, stride: c.stride, padding: c.padding })],
        { seeds: [dy], repeat: true },
      );
      expect(relativeError(outputs[0]!, y)).toBeLessThan(2e-6);
      expect(relativeError(gradients[0]!, dx)).toBeLessThan(2e-6);
      expect(relativeError(gradients[1]!, dw)).toBeLessThan(2e-6);
    });
  }

  it("runs bias, residual and ReLU in its own kernel with the same result", async () => {
    const inputs = [
      { shape: [2, 8, 6, 6], values: noise(576, 1) },
      { shape: [8, 8, 3, 3], values: noise(576, 2) },
      { shape: [8], values: noise(8, 3) },
      { shape: [2, 8, 6, 6], values: noise(576, 4) },
    ];
    const body: Parameters<typeof runOps>[1] = ([x, w, b, r]) => [relu(add(conv2d(x!, w!, { bias: b!, padding: [1, 1, 1, 1] }), r!))];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls).toHaveLength(1);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });
});
