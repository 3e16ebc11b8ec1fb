// The test of an adapter's subgroup matrices: sizes that compute rightly stay, and a driver that compiles one of the kernels
// wrongly loses the size. Such a driver is made up by changing one line of a kernel's text on its way to the device.

import { describe, expect, it } from "vitest";
import type { Gpu } from "../../src/gpu/device.ts";
import { matrixVariants } from "../../src/ops/matmul_matrix.ts";
import { dropFaultyMatrices } from "../../src/ops/matrix_check.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

const withMatrices = it.runIf(matrixVariants(targetOf(await testGpu()).kernels).length > 0);

/** Runs `body` on a driver that takes `wrong` for `right` in every kernel on matrices. */
async function onFaultyDriver<T>({ device }: Gpu, right: RegExp, wrong: string, body: () => Promise<T>): Promise<T> {
  const create = device.createShaderModule.bind(device);
  Object.defineProperty(device, "createShaderModule", {
    configurable: true,
    value: (descriptor: GPUShaderModuleDescriptor) => {
      const isMatrix = descriptor.code.includes("chromium_experimental_subgroup_matrix");
      return create(isMatrix ? { ...descriptor, code: descriptor.code.replace(right, wrong) } : descriptor);
    },
  });
  try {
    return await body();
  } finally {
    Reflect.deleteProperty(device, "createShaderModule");
  }
}

describe("the test of an adapter's matrices", () => {
  withMatrices("keeps sizes that compute rightly and takes out one that the driver does not have", async () => {
    const gpu = await testGpu();
    const facts = { ...gpu.facts };
    const real = facts.subgroupMatrices;
    const wrong = { component: "f16", result: "f32", m: 16, n: 8, k: 32 };
    facts.subgroupMatrices = [wrong, ...real];
    const faults = await dropFaultyMatrices({ ...gpu, facts });
    expect(faults).toHaveLength(1);
    expect(faults[0]!.size).toMatchObject({ m: 16, n: 8, k: 32 });
    expect(faults[0]!.why).toContain("E-ENV-010");
    expect(facts.subgroupMatrices).toEqual(real);
    gpu.check();
  });

  const broken = [
    ["a convolution", /- p\.padTop/, "- p.padTop + 1", /^\d+ of \d+ values of a convolution are wrong$/],
    ["the softmax of attention", /exp\(level/, "cos(level", /^attention is off by/],
  ] as const;
  for (const [what, right, wrong, why] of broken) {
    withMatrices(`takes out a size with which ${what} is wrong`, async () => {
      const gpu = await testGpu();
      const facts = { ...gpu.facts };
      const faults = await onFaultyDriver(gpu, right, wrong, () => dropFaultyMatrices({ ...gpu, facts }));
      expect(faults.length).toBeGreaterThan(0);
      for (const fault of faults) expect(fault.why).toMatch(why);
      expect(facts.subgroupMatrices.filter(({ component, result }) => component === "f16" && result === "f32")).toEqual(
        [],
      );
    });
  }
});
