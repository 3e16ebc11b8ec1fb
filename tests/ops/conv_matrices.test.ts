// Convolutions on subgroup matrices against float64: forward and both gradients, strides, unequal padding, several pictures.
// The reference gets its factors rounded to f16, as the kernel rounds them, so what is left is the rounding of f32 sums.
// The normal run takes the smallest tiles, LONGTAIL_LONG=1 all variants: on a CPU adapter compiling one costs seconds.

import "../helpers/vectors_of_8.ts";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import type { KernelLimits } from "../../src/gpu/kernel_limits.ts";
import { expandTemplate } from "../../src/gpu/template.ts";
import { chooseConvMatrix, convMatrixVariants, defaultConvMatrix } from "../../src/ops/conv_matrix.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { add, relu } from "../../src/ops/pointwise.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type Job, noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { convGradients, outputSize } from "../helpers/reference_convolution.ts";
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
    // Convolutions of 1x1 are products.
    choose: (_family, _key, variants) => (variants.includes(name) ? name : null),
  });
}

interface MatrixCase extends ConvCase {
  gradients?: boolean;
  /** relu(conv(x) + b + r) instead of the bare convolution. */
  epilogue?: boolean;
}

async function check(name: string, cases: readonly MatrixCase[]): Promise<void> {
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
    const job: Job = {
      inputs: [
        { shape: c.x, values: x, dtype: types[0] },
        { shape: [c.out, C, ...c.kernel], values: w, dtype: types[1] },
        ...(c.epilogue
          ? [
              { shape: [c.out], values: rest[0]! },
              { shape: [N, c.out, ...outputSize(c)], values: rest[1]! },
            ]
          : []),
      ],
      body: ([a, b, bias, other]) => {
        const z = conv2d(a!, b!, { stride, padding, bias });
        return [other ? relu(add(z, other)) : z];
      },
      ...(c.gradients ? { seeds: [dy] } : {}),
      target: forcing(name),
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
  withMatrices("agree with float64 in all passes, at edges and with padding of every side", async () => {
    for (const name of ending("_32x32")) {
      await check(name, [
        { x: [1, 5, 9, 7], out: 6, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
        { x: [1, 3, 6, 11], out: 33, kernel: [3, 3], padding: [0, 3, 1, 0], gradients: true },
        { x: [1, 1, 3, 3], out: 1, kernel: [3, 3], gradients: true },
        // Whole tiles, which matrices store by themselves.
        { x: [2, 8, 8, 8], out: 64, kernel: [3, 3], padding: [1, 1, 1, 1], types: ["f16", "f16"] },
      ]);
    }
  });

  withMatrices("take small pictures of a batch as columns of one product", async () => {
    for (const name of ending("_32x32")) {
      await check(name, [
        { x: [3, 4, 4, 6], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1] },
        // Rows of whole groups of eight pixels.
        { x: [3, 4, 3, 16], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
        { x: [3, 4, 5, 5], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], types: ["f16", "f16"], epilogue: true },
      ]);
    }
  });

  withMatrices("of 1x1 are products, and run where those run", async () => {
    const session = new Session({ ...targetOf(await testGpu()), matrices: "all" });
    const [x, w] = [session.data("x", [2, 33, 5, 7]), session.data("w", [12, 33, 1, 1])];
    const plan = session.plan("1x1", (graph) => {
      graph.assign(session.data("y", [2, 12, 5, 7]), conv2d(graph.read(x), graph.read(w)));
    });
    expect(plan.lowered.calls.map(({ label }) => label)).toEqual(["conv 1x1 12x33 5x7"]);
    expect(plan.lowered.calls[0]!.source).toContain("subgroup_matrix");
  });

  withMatrices("go in strides of two, and through kernels that are not square", async () => {
    for (const name of ending("_32x32")) {
      const padding = [0, 0, 1, 1] as const;
      await check(name, [{ x: [2, 5, 9, 10], out: 7, kernel: [3, 2], stride: 2, padding, gradients: true }]);
    }
  });

  withMatrices("cut a long sum into parts and add them before bias, residual and activation", async () => {
    for (const name of ending("_32x32_split4")) {
      await check(name, [
        { x: [2, 17, 6, 5], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], epilogue: true },
        { x: [1, 3, 13, 11], out: 3, kernel: [3, 3], padding: [1, 1, 1, 1], gradients: true },
      ]);
    }
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

describe("the choice of a matrix variant for convolutions", () => {
  const card: KernelLimits = {
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeWorkgroupsPerDimension: 65535,
    matrices: [{ m: 16, n: 16, k: 16 }],
  };
  const square = (channels: number, out: number, side: number, N = 1) => {
    return { N, IC: channels, H: side, W: side, OC: out, OH: side, OW: side, KH: 3, KW: 3, padTop: 1, padLeft: 1 };
  };

  it("takes large tiles for large pictures, parts of the sum for small ones, none for three channels", () => {
    expect(defaultConvMatrix("forward", square(512, 512, 128), card)).toContain("_128x128");
    expect(defaultConvMatrix("grad_input", square(128, 128, 1024), card)).toContain("_128x128");
    expect(defaultConvMatrix("forward", square(512, 512, 8), card)).toContain("_split");
    expect(defaultConvMatrix("forward", square(128, 3, 1024), card)).toBeNull();
  });

  it("cuts the pixels of a weight gradient where the weights alone are few tiles", () => {
    expect(defaultConvMatrix("grad_weight", square(128, 128, 1024), card)).toBe("matrix_16x16x16_128x128_split16");
    expect(defaultConvMatrix("grad_weight", square(512, 512, 128), card)).toBe("matrix_16x16x16_128x128");
    expect(defaultConvMatrix("grad_weight", square(512, 512, 4), card)).not.toContain("_split");
    expect(defaultConvMatrix("grad_weight", square(128, 3, 1024), card)).toBeNull();
  });

  it("leaves no constant open, and its parts hold every sum, for all variants and passes", () => {
    for (const matrices of [card.matrices!, [{ m: 8, n: 8, k: 8 }]]) {
      const limits = { ...card, matrices };
      for (const name of convMatrixVariants(limits)) {
        for (const pass of ["forward", "grad_input", "grad_weight"] as const) {
          // Whole tiles of one picture after the other; columns that run through the pictures; pixels no eight divides.
          for (const [s, type] of [
            [square(64, 256, 16, 2), "f16"],
            [square(40, 300, 12, 3), "f32"],
            [square(40, 300, 7, 3), "f32"],
          ] as const) {
            const { main, sum, parts } = chooseConvMatrix(pass, s, name, limits, { A: type, B: type });
            const text = expandTemplate(main.source, main.constants);
            expect(text).not.toContain("{{");
            const isAligned = type === "f16";
            expect(text.includes("B : array<vec4<u32>>")).toBe(isAligned);
            const results = pass === "grad_weight" ? s.OC * s.IC * 9 : s.N * s.OC * s.H * s.W;
            expect(parts % results).toBe(0);
            expect(parts > results).toBe(sum !== null);
          }
        }
      }
    }
  });
});
