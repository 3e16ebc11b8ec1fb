// A device with nothing but what every WebGPU implementation grants, and devices that lack one feature each: the least
// limits are asked for, so Dawn refuses whatever exceeds them. Results agree with those of the whole adapter.

import { expect, it } from "vitest";
import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { attention } from "../../src/ops/attention.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { linear } from "../../src/ops/matmul.ts";
import { layerNorm } from "../../src/ops/norm.ts";
import { mul, silu } from "../../src/ops/pointwise.ts";
import { sum } from "../../src/ops/reduce.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { restFor } from "../../src/platform/rest.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { GRID, withRun } from "../helpers/flow.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";
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

/** Something of every kind of kernel, with its gradients. */
async function everything(gpu: Gpu) {
  const values = (count: number, seed: number) => noise(count, seed);
  const { outputs, gradients } = await runOps(
    [
      { shape: [2, 48, 64], values: values(2 * 48 * 64, 1) },
      { shape: [192, 64], values: values(192 * 64, 2).map((v) => v / 8) },
      { shape: [2, 20, 16, 16], values: values(2 * 20 * 256, 3) },
      { shape: [24, 20, 3, 3], values: values(24 * 180, 4).map((v) => v / 12) },
    ],
    ([x, w, picture, kernel]) => {
      const wide = silu(linear(layerNorm(x!, 1e-6), w!));
      const attended = attention(wide, wide, wide, { heads: 3 });
      const image = conv2d(picture!, kernel!, { padding: [1, 1, 1, 1] });
      const strided = conv2d(picture!, kernel!, { stride: 2, padding: [0, 0, 0, 0] });
      return [mul(attended, wide), sum(reshape(image, [2, 24, 256]), 2), strided];
    },
    {
      gpu,
      seeds: [values(2 * 48 * 192, 5), values(48, 6), values(2 * 24 * 49, 7)],
    },
  );
  return [...outputs, ...gradients.map((g) => g!)];
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
  const expected = await everything(await testGpu());
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
    const found = await everything(gpu);
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
