import { describe, expect, test } from "vitest";
import type { KernelLimits } from "../../src/gpu/kernel_limits.ts";
import { expandTemplate } from "../../src/gpu/template.ts";
import {
  chooseConv,
  chooseConvGradInput,
  chooseConvGradWeight,
  convGradWeightVariants,
  convVariants,
  defaultConvVariant,
  defaultGradWeightVariant,
} from "../../src/ops/conv_choice.ts";
import { chooseMatmul, defaultMatmulVariant, matmulVariants } from "../../src/ops/matmul_choice.ts";

const limits: KernelLimits = {
  subgroups: true,
  subgroupMinSize: 8,
  subgroupMaxSize: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
};
const conv = { N: 2, IC: 5, H: 9, W: 7, OC: 6, OH: 5, OW: 4, KH: 3, KW: 3, stride: 2, padTop: 1, padLeft: 1 };

describe("kernel choice", () => {
  test("every matmul variant expands without a missing constant, in all layouts", () => {
    for (const name of matmulVariants(limits)) {
      for (const [transA, transB] of [
        [false, false],
        [true, false],
        [false, true],
        [true, true],
      ]) {
        const choice = chooseMatmul({ M: 33, N: 17, K: 9, transA: transA!, transB: transB! }, name, limits);
        expect(expandTemplate(choice.source, choice.constants)).not.toContain("{{");
      }
    }
  });

  test("every convolution variant expands, for unrolled and for large kernels", () => {
    for (const shape of [conv, { ...conv, stride: 1, OH: 9, OW: 7 }, { ...conv, KH: 7, KW: 7, OH: 3, OW: 2 }]) {
      for (const name of convVariants(limits)) {
        for (const choice of [chooseConv(shape, name, limits), chooseConvGradInput(shape, name, limits)]) {
          expect(expandTemplate(choice.source, choice.constants)).not.toContain("{{");
        }
      }
      for (const name of convGradWeightVariants(limits)) {
        const choice = chooseConvGradWeight(shape, name, limits, { chunks: 2 });
        expect(choice.chunks).toBe(2);
        for (const part of [choice.main, choice.sum!])
          expect(expandTemplate(part.source, part.constants)).not.toContain("{{");
      }
    }
  });

  test("defaults are variants that the adapter can run, with and without subgroups", () => {
    for (const adapter of [limits, { ...limits, subgroups: false, subgroupMinSize: 0, subgroupMaxSize: 0 }]) {
      for (const isSoftware of [true, false]) {
        for (const M of [1, 3, 80, 600]) {
          const shape = { M, N: 1024, K: 256, transB: true };
          expect(matmulVariants(adapter)).toContain(defaultMatmulVariant(shape, adapter, isSoftware));
        }
        expect(convVariants(adapter)).toContain(defaultConvVariant(conv, adapter, isSoftware));
        expect(convGradWeightVariants(adapter)).toContain(defaultGradWeightVariant(conv, adapter, isSoftware));
      }
    }
  });

  test("a convolution to few channels has one tile of them, and more pixels in a lane", () => {
    const to = (OC: number) => defaultConvVariant({ ...conv, OC, OW: 64 }, limits, true);
    expect([1, 2, 3, 4].map(to)).toEqual(["1x4", "2x4", "4x8", "4x8"].map((size) => `direct_${size}x8_broadcast`));
    // 8x4 and 16x8 are those that a driver compiles wrongly.
    expect([5, 8, 9, 64].map(to)).toEqual(["8x2", "8x2", "16x4", "16x4"].map((size) => `direct_${size}x8_broadcast`));
    for (const OC of [3, 5, 9]) {
      const { grid, constants } = chooseConv({ ...conv, OC, OW: 64 }, to(OC), limits);
      const tiles = Math.ceil((conv.N * conv.OH * Math.ceil(64 / Number(constants["PIXELS"]))) / 8);
      expect(grid[0]! * grid[1]!, `${OC} channels`).toBe(tiles);
    }
  });

  test("default products of any number of rows own whole rows, in vectors of 8 and of 16 lanes", () => {
    for (const lanes of [8, 16]) {
      const adapter = { ...limits, subgroups: true, subgroupMinSize: lanes, subgroupMaxSize: lanes };
      for (const transB of [false, true]) {
        for (const [N, K] of [
          [33, 3],
          [1024, 256],
          [1024, 4096],
          [16385, 5],
          [4096, 16384],
        ] as const) {
          for (const M of [1, 2, 3, 5, 60, 80, 101, 196, 260, 600, 4100]) {
            const shape = { M, N, K, transB };
            const name = defaultMatmulVariant(shape, adapter, true);
            const rows = Number(/^direct_(\d+)x/.exec(name)![1]);
            const { constants } = chooseMatmul(shape, name, adapter);
            const owned = ["GROUPS", "SUB", "EACH"].map((key) => constants[key] as number);
            expect(owned.every(Number.isInteger), `${name} of ${M}x${N}x${K}`).toBe(true);
            expect(owned.reduce((product, n) => product * n)).toBe(rows);
            // An even number may be one more than there are.
            expect(rows).toBeLessThanOrEqual(M + (M % 2));
            if (M === 1) expect(rows).toBe(1);
          }
        }
      }
    }
  });

  test("grids above the limit of one dimension fold into y and cover all tiles", () => {
    const choice = chooseMatmul({ M: 500, N: 500, K: 4 }, "direct_1x1x8", {
      ...limits,
      maxComputeWorkgroupsPerDimension: 200,
    });
    const [x, y] = choice.grid;
    expect(Math.max(x, y)).toBeLessThanOrEqual(200);
    expect(x * y).toBeGreaterThanOrEqual(500 * 63);
    expect(choice.params[9]).toBe(x);
  });
});
