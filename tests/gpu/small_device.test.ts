// A device with nothing but what every WebGPU implementation grants, and devices that lack one feature each: the least
// limits are asked for, so Dawn refuses whatever exceeds them. Results agree with those of the whole adapter.

import "../helpers/vectors_of_8.ts";
import { expect, it } from "vitest";
import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { dropFaultyMatrices } from "../../src/ops/matrix_check.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { restFor } from "../../src/platform/rest.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { everyKernel } from "../helpers/every_kernel.ts";
import { GRID, withRun } from "../helpers/flow.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";
import { SMALL_TARGETS } from "../helpers/targets.ts";

const LEAST: Readonly<Record<string, number>> = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxStorageBufferBindingSize: 128 << 20,
  maxBufferSize: 256 << 20,
};

/** The test adapter, with the least limits and without some features. */
async function open(without: readonly string[], least: boolean): Promise<Gpu> {
  const own = await openGpu({ backend: "dawn" });
  const requestAdapter = async (options?: GPURequestAdapterOptions) => {
    const adapter = (await own.requestAdapter(options))!;
    if (!least) return adapter;
    const limits = Object.fromEntries(
      Object.getOwnPropertyNames(Object.getPrototypeOf(adapter.limits))
        .filter((name) => /^(max|min)[A-Z]/.test(name))
        .map((name) => [name, LEAST[name] ?? (adapter.limits as unknown as Record<string, number>)[name]!]),
    );
    return {
      info: adapter.info,
      features: adapter.features,
      limits,
      requestDevice: adapter.requestDevice.bind(adapter),
    };
  };
  const gpu = { requestAdapter } as unknown as GPU;
  return openDevice(gpu, { rest: restFor("dawn"), without, matrices: "off" });
}

const CASES: [string, string[], boolean][] = [
  ["f16", ["shader-f16"], false],
  ["subgroups", ["subgroups"], false],
  ["timestamps", ["timestamp-query"], false],
  [
    "all of them, at the least limits",
    ["shader-f16", "subgroups", "timestamp-query", "subgroup-size-control", "chromium-experimental-subgroup-matrix"],
    true,
  ],
];

it.each(CASES)("an adapter without %s computes the same", async (_, without, least) => {
  const expected = await everyKernel(await testGpu());
  const gpu = await open(without, least);
  try {
    const { facts } = gpu;
    // What was left out is on neither side: the device would refuse a kernel that takes it for given.
    for (const feature of without) expect(gpu.device.features.has(feature as GPUFeatureName)).toBe(false);
    expect(facts.f16).toBe(gpu.device.features.has("shader-f16"));
    expect(facts.subgroups).toBe(gpu.device.features.has("subgroups" as GPUFeatureName));
    expect(facts.timestamps).toBe(gpu.device.features.has("timestamp-query"));
    if (least) {
      const { kernels, ...target } = targetOf(gpu);
      const { kernels: wanted, ...other } = SMALL_TARGETS["a CPU without subgroups"]!;
      expect({ ...target, choose: null }).toEqual({ ...other, choose: null, matrices: "off" });
      expect(kernels).toEqual({ ...wanted, matrices: [] });
    }
    const found = await everyKernel(gpu);
    expected.forEach((values, i) => expect(relativeError(found[i]!, values), `result ${i}`).toBeLessThan(2e-6));
    gpu.check();
  } finally {
    gpu.close();
  }
});

it("bounds checks of the implementation change nothing, subgroup matrices among it", async () => {
  const expected = await everyKernel(await testGpu());
  const gpu = await openDevice(await openGpu({ backend: "dawn", robust: true }), { rest: restFor("dawn") });
  try {
    const matrices = gpu.facts.subgroupMatrices.length;
    expect(await dropFaultyMatrices(gpu)).toEqual([]);
    expect(gpu.facts.subgroupMatrices).toHaveLength(matrices);
    const found = await everyKernel({ ...gpu, matrices: "off" });
    expected.forEach((values, i) => expect(relativeError(found[i]!, values), `result ${i}`).toBeLessThan(2e-6));
    gpu.check();
  } finally {
    gpu.close();
  }
});

it("trains on the least adapter as on the whole one", async () => {
  const update = (gpu?: Gpu) =>
    withRun({ gpu }, async (run) => {
      const { loss, gradientNorm } = await run.trainer.step(1, [run.sample(1), run.sample(2)], GRID);
      return { loss, gradientNorm };
    });
  const expected = await update();
  const gpu = await open(CASES.at(-1)![1], true);
  try {
    const found = await update(gpu);
    expect(Math.abs(found.loss / expected.loss - 1)).toBeLessThan(1e-5);
    expect(Math.abs(found.gradientNorm / expected.gradientNorm - 1)).toBeLessThan(1e-4);
    gpu.check();
  } finally {
    gpu.close();
  }
});
