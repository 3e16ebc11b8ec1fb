// The test of an adapter's subgroup matrices: sizes that compute rightly stay, and a driver that compiles one of the kernels
// wrongly loses the size. Such a driver is made up by changing one line of a kernel's text on its way to the device.

import "../helpers/vectors_of_8.ts";
import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matrixVariants } from "../../src/ops/matmul_matrix.ts";
import { dropFaultyMatrices } from "../../src/ops/matrix_check.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { restFor } from "../../src/platform/rest.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import { openDeviceOf } from "../../src/runs/device.ts";
import { projectSources } from "../../src/runs/project.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { NodeFiles } from "../helpers/files.ts";
import { noise, runOps, testGpu } from "../helpers/gpu.ts";

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

  withMatrices("warns the user of a run, which goes on without that size", async () => {
    const { config } = await loadConfig({ source: "lora" }, projectSources(new NodeFiles()));
    const events: RunEvent[] = [];
    const implementation = await openGpu({ backend: "dawn" });
    const requestAdapter = async () => {
      const adapter = (await implementation.requestAdapter())!;
      const requestDevice = async (descriptor: GPUDeviceDescriptor) => {
        const device = await adapter.requestDevice(descriptor);
        const create = device.createShaderModule.bind(device);
        const wrong = (code: string) =>
          code.includes("subgroup_matrix") ? code.replace(/exp\(level/, "cos(level") : code;
        device.createShaderModule = (module) => create({ ...module, code: wrong(module.code) });
        return device;
      };
      return { info: adapter.info, features: adapter.features, limits: adapter.limits, requestDevice };
    };
    const faulty = { requestAdapter } as unknown as GPU;
    const wanted = { ...config, device: { ...config.device, matrices: "all" as const } };
    const gpu = await openDeviceOf(faulty, wanted, (event) => events.push(event), restFor("dawn"));
    try {
      expect(events).toMatchObject([
        { kind: "warning", code: "E-ENV-061", text: expect.stringContaining("attention is off") },
      ]);
      expect(matrixVariants(targetOf(gpu).kernels)).toEqual([]);
      // What asks for matrices gets other kernels, and right values.
      const x = noise(64 * 64);
      const { outputs } = await runOps([{ shape: [64, 64], values: x }], ([a]) => [matmul(a!, a!)], {
        gpu,
        target: () => ({ matrices: "all" }),
      });
      const first = Array.from({ length: 64 }, (_, k) => x[k]! * x[64 * k]!).reduce((sum, v) => sum + v, 0);
      expect(outputs[0]![0]).toBeCloseTo(first, 4);
    } finally {
      gpu.close();
    }
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
