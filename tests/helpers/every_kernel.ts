// Something of every kind of kernel, with its gradients: for comparing devices with each other. As a program it runs that on
// the adapter at hand and prints the size of its subgroups and all values as JSON, so that the driver's environment may differ.

import process from "node:process";
import type { Gpu } from "../../src/gpu/device.ts";
import { attention } from "../../src/ops/attention.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { linear } from "../../src/ops/matmul.ts";
import { layerNorm } from "../../src/ops/norm.ts";
import { mul, silu } from "../../src/ops/pointwise.ts";
import { sum } from "../../src/ops/reduce.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { noise, runOps, testGpu } from "./gpu.ts";

/** What the program prints. */
export interface Probe {
  subgroups: [number, number] | null;
  values: number[][];
}

/** Results and gradients; the same calls for every adapter, with the kernels that suit it. */
export async function everyKernel(gpu: Gpu): Promise<Float32Array[]> {
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

if (import.meta.main) {
  const gpu = await testGpu();
  const values = (await everyKernel(gpu)).map((list) => [...list]);
  process.stdout.write(JSON.stringify({ subgroups: gpu.facts.subgroupSizes, values } satisfies Probe));
  process.exit(0);
}
