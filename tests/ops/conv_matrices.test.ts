// Convolutions on subgroup matrices against float64: forward and both gradients, strides, unequal padding, several pictures.
// The reference gets its factors rounded to f16, as the kernel rounds them, so what is left is the rounding of f32 sums.
// The normal run takes the smallest tiles, LONGTAIL_LONG=1 all variants: on a CPU adapter compiling one costs seconds.

import process from "node:process";
import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import type { KernelLimits } from "../../src/gpu/kernel_limits.ts";
import { convMatrixVariants, defaultConvMatrix } from "../../src/ops/conv_matrix.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { add, relu } from "../../src/ops/pointwise.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type Job, noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { type ConvCase, convReference } from "./table/products.ts";

const long = process.env.LONGTAIL_LONG === "1";

const halves = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(values))));

/** The random walk of f32 rounding over K terms; a factor was rounded on both sides alike. */
const bound = (K: number) => 3e-7 + 1.2e-7 * Math.sqrt(K);

/** A target on which every convolution takes the variant `name` that can. */
function forcing(name: string): () => Partial<Target> {
  return () => ({
    matrices: "all",
    choose: (family, _key, variants) => (family.startsWith("conv2d") && variants.includes(name) ? name : null),
  });
}

/** Gradients of Σ y dy of a convolution in float64. */
function convGradients(x: Float64Array, w: Float64Array, dy: Float64Array, c: ConvCase) {
  const [N, C, H, W] = c.x;
  const [KH, KW] = c.kernel;
  const { stride = 1, padding = [0, 0, 0, 0] } = c;
  const OH = Math.floor((H + padding[0] + padding[2] - KH) / stride) + 1;
  const OW = Math.floor((W + padding[1] + padding[3] - KW) / stride) + 1;
  const dx = new Float64Array(x.length);
  const dw = new Float64Array(w.length);
  dy.forEach((value, at) => {
    const [j, i] = [at % OW, Math.floor(at / OW) % OH];
    const o = Math.floor(at / OW / OH) % c.out;
    const n = Math.floor(at / OW / OH / c.out);
    for (let ch = 0; ch < C; ch++)
      for (let u = 0; u < KH; u++)
        for (let v = 0; v < KW; v++) {
          const row = i * stride + u - padding[0];
          const column = j * stride + v - padding[1];
          if (row < 0 || row >= H || column < 0 || column >= W) continue;
          const pixel = ((n * C + ch) * H + row) * W + column;
          const weight = ((o * C + ch) * KH + u) * KW + v;
          dx[pixel]! += value * w[weight]!;
          dw[weight]! += value * x[pixel]!;
        }
  });
  return { dx, dw };
}

interface MatrixCase extends ConvCase {
  gradients?: boolean;
  /** relu(conv(x) + b + r) instead of the bare convolution. */
  epilogue?: boolean;
}

async function check(name: string, cases: readonly MatrixCase[], wanted = name): Promise<void> {
  const made = cases.map((c) => {
    const [N, C] = c.x;
    const x = noise(
      c.x.reduce((a, b) => a * b, 1),
      1,
    );
    const w = noise(c.out * C * c.kernel[0] * c.kernel[1], 2);
    const y = convReference(halves(x), halves(w), c);
    const { stride, padding, types = ["f32", "f32"] } = c;
    const rest = c.epilogue ? [noise(c.out, 3), noise(y.length, 4)] : [];
    const plane = y.length / N / c.out;
    const expected = c.epilogue
      ? y.map((v, i) => Math.max(0, v + rest[0]![Math.floor(i / plane) % c.out]! + rest[1]![i]!))
      : y;
    const dy = noise(y.length, 5);
    const [H, W] = [2, 3].map((d) => {
      const pads = padding ? padding[d - 2]! + padding[d]! : 0;
      return Math.floor((c.x[d]! + pads - c.kernel[d - 2]!) / (stride ?? 1)) + 1;
    });
    const job: Job = {
      inputs: [
        { shape: c.x, values: x, dtype: types[0] },
        { shape: [c.out, C, ...c.kernel], values: w, dtype: types[1] },
        ...(c.epilogue
          ? [
              { shape: [c.out], values: rest[0]! },
              { shape: [N, c.out, H!, W!], values: rest[1]! },
            ]
          : []),
      ],
      body: ([a, b, bias, other]) => {
        const z = conv2d(a!, b!, { stride, padding, bias });
        return [other ? relu(add(z, other)) : z];
      },
      ...(c.gradients ? { seeds: [dy] } : {}),
      target: forcing(wanted),
      repeat: true,
    };
    return { c, job, expected, ...(c.gradients ? convGradients(halves(x), halves(w), halves(dy), c) : {}) };
  });
  const results = await runMany(made.map(({ job }) => job));
  const failures: string[] = [];
  made.forEach(({ c, expected, dx, dw }, i) => {
    const { outputs, gradients, kernels, calls } = results[i]!;
    const label = `${name} [${c.x}] ${c.kernel} to ${c.out}, stride ${c.stride ?? 1}, padding ${c.padding}`;
    const compare = (what: string, found: Float32Array, exact: Float64Array, terms: number) => {
      const error = relativeError(found, exact);
      if (!(error <= bound(terms))) failures.push(`${label}: ${what} ${error}`);
    };
    const taps = c.kernel[0] * c.kernel[1];
    compare("y", outputs[0]!, expected, c.x[1] * taps);
    if (dx && (c.stride ?? 1) === 1) compare("dx", gradients[0]!, dx, c.out * taps);
    if (dw) compare("dw", gradients[1]!, dw, c.x[0] * c.x[2] * c.x[3]);
    const onMatrices = kernels.filter(({ source }) => source.includes("subgroup_matrix")).length;
    const most = c.gradients ? ((c.stride ?? 1) === 1 ? 3 : 2) : 1;
    if (onMatrices !== most) failures.push(`${label}: ${calls}`);
  });
  expect(failures).toEqual([]);
}

const names = convMatrixVariants(targetOf(await testGpu()).kernels);
const withMatrices = it.runIf(names.length > 0);
const ending = (end: string) => names.filter((name) => name.endsWith(end));

describe("convolutions on subgroup matrices", () => {
  withMatrices(
    "agree with float64 forward and in both gradients, at edges and with padding of every side",
    async () => {
      for (const name of ending("_32x32")) {
        await check(name, [
          { x: [1, 5, 9, 7], out: 6, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
          { x: [1, 3, 6, 11], out: 33, kernel: [3, 3], padding: [0, 2, 1, 0], gradients: true },
          { x: [1, 1, 3, 3], out: 1, kernel: [3, 3], gradients: true },
          // Whole tiles, which matrices store by themselves.
          { x: [1, 8, 8, 8], out: 64, kernel: [3, 3], padding: [1, 1, 1, 1] },
        ]);
      }
    },
  );

  withMatrices(
    "take pictures of a batch as columns of one product, whether or not groups of eight fit them",
    async () => {
      for (const name of ending("_32x32")) {
        await check(name, [
          { x: [3, 4, 4, 6], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
          { x: [3, 4, 5, 5], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true, types: ["f16", "f16"] },
          { x: [2, 4, 8, 4], out: 5, kernel: [3, 3], padding: [1, 1, 1, 1] },
        ]);
      }
    },
  );

  withMatrices("go in strides of two, and through kernels that are not square", async () => {
    for (const name of ending("_32x32")) {
      await check(name, [
        { x: [2, 5, 9, 10], out: 7, kernel: [3, 3], stride: 2, padding: [0, 0, 1, 1], gradients: true },
        { x: [1, 3, 8, 9], out: 7, kernel: [2, 5], padding: [1, 2, 0, 2] },
      ]);
    }
  });

  withMatrices("cut a long sum into parts and add them before bias, residual and activation", async () => {
    for (const name of ending("_32x32_split4")) {
      await check(name, [
        { x: [2, 17, 6, 5], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], epilogue: true },
        { x: [2, 4, 12, 12], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
      ]);
    }
    for (const name of ending("_32x32"))
      await check(name, [{ x: [2, 3, 5, 5], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], epilogue: true }]);
  });

  if (long) {
    withMatrices(
      "agree in all variants",
      async () => {
        for (const name of names) {
          await check(name, [
            { x: [1, 40, 17, 13], out: 150, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
            { x: [2, 32, 16, 16], out: 256, kernel: [3, 3], padding: [1, 1, 1, 1], types: ["f16", "f16"] },
            { x: [3, 20, 6, 8], out: 70, kernel: [3, 3], padding: [1, 0, 1, 2], epilogue: true },
          ]);
        }
      },
      3_600_000,
    );
  }
});
