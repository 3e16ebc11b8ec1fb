// Arguments up to 1e5 and beyond in the operations where a formula of exp, tanh or cubes could leave the numbers: against float64,
// with gradients. What the models make of such numbers is in tests/models/range.test.ts.

import { describe, expect, it } from "vitest";
import { attention } from "../../src/ops/attention.ts";
import { layerNorm, rmsNorm } from "../../src/ops/norm.ts";
import { geluErf, geluTanh, quickGelu, sigmoid, silu, tanh } from "../../src/ops/pointwise.ts";
import { softmax } from "../../src/ops/softmax.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { noise, relativeError, runMany } from "../helpers/gpu.ts";
import { attentionForward } from "../helpers/reference_attention.ts";

const SIZES = [0, 1e-8, 0.5, 4, 14.9, 15.1, 79, 81, 88, 104, 1e3, 1e4, 65504, 65520, 1e5, 1e10, 1e18];
const POINTS = SIZES.flatMap((v) => [v, -v]);
const logistic = (x: number) => (x < -700 ? 0 : 1 / (1 + Math.exp(-x)));
const inner = (x: number) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);

/** Each with its value in float64. */
const FUNCTIONS: Record<string, [(x: Tensor) => Tensor, (x: number) => number]> = {
  sigmoid: [sigmoid, logistic],
  silu: [silu, (x) => x * logistic(x)],
  "quick GELU": [quickGelu, (x) => x * logistic(1.702 * x)],
  tanh: [tanh, Math.tanh],
  "GELU by tanh": [geluTanh, (x) => 0.5 * x * (1 + Math.tanh(inner(x)))],
  "GELU by erf": [geluErf, (x) => (Math.abs(x) > 10 ? Math.max(x, 0) : Number.NaN)],
};

describe("functions of large numbers", () => {
  it("are finite and right, and so are their slopes", async () => {
    const shape = [POINTS.length];
    const names = Object.keys(FUNCTIONS);
    const runs = await runMany(
      names.map((name) => ({
        inputs: [{ shape, values: POINTS }],
        body: ([x]) => [FUNCTIONS[name]![0](x!)],
        seeds: [POINTS.map(() => 1)],
      })),
    );
    names.forEach((name, k) => {
      const { outputs, gradients } = runs[k]!;
      POINTS.forEach((x, i) => {
        const expected = FUNCTIONS[name]![1](Math.fround(x));
        const [value, slope] = [outputs[0]![i]!, gradients[0]![i]!];
        expect(Number.isFinite(value) && Number.isFinite(slope), `${name}(${x}) = ${value}, slope ${slope}`).toBe(true);
        const size = Math.max(1, Math.abs(expected));
        if (!Number.isNaN(expected)) expect(Math.abs(value - expected) / size, `${name}(${x})`).toBeLessThan(2e-6);
        // Far from zero every one of them is flat or the identity.
        if (Math.abs(x) < 1e3) return;
        const flat = name === "tanh" || name === "sigmoid" || x < 0;
        expect(Math.abs(slope - (flat ? 0 : 1)), `slope of ${name} at ${x}`).toBeLessThan(1e-6);
      });
    });
  });
});

describe("rows of large numbers", () => {
  it("have the softmax, the norms and the attention that float64 gives them", async () => {
    const [rows, width] = [6, 64];
    const shape = [rows, width];
    for (const scale of [1e3, 1e5, 1e10]) {
      const x = Float32Array.from(noise(rows * width, 3), (v) => v * scale);
      const [runSoftmax, runLayer, runRms, runAttention] = await runMany([
        { inputs: [{ shape, values: x }], body: ([t]) => [softmax(t!)] },
        { inputs: [{ shape, values: x }], body: ([t]) => [layerNorm(t!, 1e-6)], seeds: [noise(rows * width, 4)] },
        {
          inputs: [
            { shape, values: x },
            { shape: [width], values: new Float32Array(width).fill(1) },
          ],
          body: ([t, gain]) => [rmsNorm(t!, 1e-6, gain!)],
          seeds: [noise(rows * width, 4)],
        },
        {
          // Scores are about scale · 8: one key takes all.
          inputs: [1, 2, 3].map((seed) => ({
            shape: [1, rows, width],
            values: Float32Array.from(noise(rows * width, seed), (v) => (seed === 1 ? v * scale : v)),
          })),
          body: ([q, k, v]) => [attention(q!, k!, v!, { heads: 2, scale: 1 })],
          seeds: [noise(rows * width, 4)],
        },
      ]);
      const row = (i: number) => [...x.subarray(i * width, (i + 1) * width)];
      const exact = { soft: [] as number[], layer: [] as number[], rms: [] as number[] };
      for (let i = 0; i < rows; i++) {
        const values = row(i);
        const top = Math.max(...values);
        const powers = values.map((v) => Math.exp(v - top));
        const total = powers.reduce((a, b) => a + b);
        exact.soft.push(...powers.map((v) => v / total));
        const mean = values.reduce((a, b) => a + b) / width;
        const spread = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / width + 1e-6);
        exact.layer.push(...values.map((v) => (v - mean) / spread));
        const size = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / width + 1e-6);
        exact.rms.push(...values.map((v) => v / size));
      }
      expect(relativeError(runSoftmax!.outputs[0]!, exact.soft)).toBeLessThan(1e-6);
      expect(relativeError(runLayer!.outputs[0]!, exact.layer)).toBeLessThan(1e-6);
      expect(relativeError(runRms!.outputs[0]!, exact.rms)).toBeLessThan(1e-6);
      const parts = [1, 2, 3].map((seed) =>
        Float32Array.from(noise(rows * width, seed), (v) => (seed === 1 ? v * scale : v)),
      );
      const problem = { batch: 1, rows, keys: rows, heads: 2, headSize: width / 2, scale: 1 };
      const attended = attentionForward(problem, parts[0]!, parts[1]!, parts[2]!);
      expect(relativeError(runAttention!.outputs[0]!, attended)).toBeLessThan(1e-5);
      for (const run of [runLayer, runRms, runAttention])
        for (const gradient of run!.gradients) expect(gradient!.every(Number.isFinite), `${scale}`).toBe(true);
    }
  });
});
