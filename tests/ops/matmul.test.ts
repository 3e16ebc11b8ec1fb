// Values and gradients of all layouts are tested from the table (table.test.ts), variants in variants.test.ts.

import { describe, expect, it } from "vitest";
import { subgroupLanes, vectorLanes } from "../../src/gpu/kernel_limits.ts";
import { linear, matmul } from "../../src/ops/matmul.ts";
import { stretchesOf } from "../../src/ops/matmul_choice.ts";
import { add, geluTanh, mul, relu } from "../../src/ops/pointwise.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";
import { product } from "./table/products.ts";

describe("matrix products", () => {
  it("multiplies a matrix by its own transpose, one buffer bound twice", async () => {
    const a = noise(12 * 9, 1);
    const { outputs } = await runOps([{ shape: [1, 12, 9], values: a }], ([x]) => [
      matmul(x!, x!, { transposeB: true }),
    ]);
    expect(relativeError(outputs[0]!, product(a, a, [12, 12, 9], { transB: true }))).toBeLessThan(1e-6);
  });

  it("runs bias, activation, gate and residual in the product's own kernel with the same result", async () => {
    const [B, L, K, N] = [2, 9, 16, 24];
    const inputs = [
      { shape: [B, L, K], values: noise(B * L * K, 1) },
      { shape: [N, K], values: noise(N * K, 2) },
      { shape: [N], values: noise(N, 3) },
      { shape: [B, 1, N], values: noise(B * N, 4) },
      { shape: [B, L, N], values: noise(B * L * N, 5) },
    ];
    const body: Parameters<typeof runOps>[1] = ([x, w, b, g, r]) => [add(r!, mul(geluTanh(linear(x!, w!, b!)), g!))];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls).toHaveLength(1);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });

  it.each([1, 3, 4, 5, 7, 8, 9, 64, 65])(
    "of %i terms are right in all layouts, with few columns and with many",
    async (K) => {
      for (const [M, N] of [
        [257, 3],
        [19, 77],
      ] as const) {
        for (const [transposeA, transposeB] of [
          [false, false],
          [false, true],
          [true, false],
        ] as const) {
          const [a, b] = [noise(M * K, 1), noise(K * N, 2)];
          const inputs = [
            { shape: transposeA ? [1, K, M] : [1, M, K], values: a },
            { shape: transposeB ? [1, N, K] : [1, K, N], values: b },
          ];
          const { outputs } = await runOps(inputs, ([x, y]) => [matmul(x!, y!, { transposeA, transposeB })]);
          const expected = product(a, b, [M, N, K], { transA: transposeA, transB: transposeB });
          expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-6);
        }
      }
    },
  );

  it("shares the rows of large products evenly among tiles, the last of which is smaller", async () => {
    const [M, N, K] = [101, 1100, 832];
    const [a, b] = [noise(M * K, 1), noise(K * N, 2)];
    const lanes = vectorLanes(targetOf(await testGpu()).kernels);
    const isVector = subgroupLanes(targetOf(await testGpu()).kernels) > 0;
    for (const transposeB of [false, true]) {
      const inputs = [
        { shape: [1, M, K], values: a },
        { shape: transposeB ? [1, N, K] : [1, K, N], values: b },
      ];
      const { outputs, kernels } = await runOps(inputs, ([x, y]) => [matmul(x!, y!, { transposeB })]);
      // Four tiles of 26 rows; where B's rows lie along K, two of 52 with 16 lanes and seven of 16 with 8.
      const alongK = lanes === 16 ? [52, 2] : [16, 4];
      const [rows, cols] = transposeB ? alongK : [26, lanes === 16 ? 8 : 4];
      if (isVector) expect(kernels[0]!.grid[0]).toBe(Math.ceil(M / rows!) * Math.ceil(N / (cols! * lanes)));
      expect(relativeError(outputs[0]!, product(a, b, [M, N, K], { transB: transposeB }))).toBeLessThan(1e-6);
    }
  });

  it("adds up in stretches where rows of B lie far apart, with its epilogue once, at the end", async () => {
    const [M, N, K] = [66, 1025, 515];
    const inputs = [
      { shape: [M, K], values: noise(M * K, 1) },
      { shape: [K, N], values: noise(K * N, 2) },
      { shape: [N], values: noise(N, 3) },
    ];
    const body: Parameters<typeof runOps>[1] = ([a, b, c]) => [relu(add(matmul(a!, b!), c!))];
    const ran = await runOps(inputs, body, { target: () => ({ software: true }), repeat: true });
    expect(stretchesOf({ M, N, K }, "direct_32x4x8_broadcast", true)).toEqual([
      [0, 256],
      [256, 512],
      [512, 515],
    ]);
    expect(ran.calls).toHaveLength(3);
    const [a, b, c] = inputs.map((x) => x.values) as readonly Float64Array[];
    const exact = Float64Array.from({ length: M * N }, (_, i) => {
      const [row, column] = [Math.floor(i / N), i % N];
      let sum = c![column]!;
      for (let k = 0; k < K; k++) sum += a![row * K + k]! * b![k * N + column]!;
      return Math.max(0, sum);
    });
    expect(relativeError(ran.outputs[0]!, exact)).toBeLessThan(1e-6);
  });
});
