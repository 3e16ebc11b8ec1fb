// Products on subgroup matrices against float64, in all layouts, splits and storages. The reference gets the factors
// rounded to f16, as the kernels round them, so what is left is the rounding of f32 sums. The normal run takes a sample of
// the variants, LONGTAIL_LONG=1 all: on a CPU adapter compiling one costs seconds.

import "../helpers/vectors_of_8.ts";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import { type CompactStorage, encodeWeight } from "../../src/base/quantize.ts";
import type { KernelLimits } from "../../src/gpu/kernel_limits.ts";
import { expandTemplate } from "../../src/gpu/template.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { chooseMatrix, defaultMatrixVariant, matrixVariants } from "../../src/ops/matmul_matrix.ts";
import { accumulate, add, geluTanh, mul } from "../../src/ops/pointwise.ts";
import { storedLinear } from "../../src/ops/quantized.ts";
import type { Constant } from "../../src/ops/resample.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { decodeWeight } from "../helpers/decode_weight.ts";
import { type Job, noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { product } from "./table/products.ts";
import { Draw } from "./table/types.ts";

const long = process.env.LONGTAIL_LONG === "1";

/** What an f16 memory of these values holds. */
const halves = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(values))));

/** The random walk of f32 rounding over K terms; a factor was rounded on both sides alike. */
const bound = (K: number) => 3e-7 + 1.2e-7 * Math.sqrt(K);

/** A target on which every product takes the variant `name`. */
function forcing(name: string): () => Partial<Target> {
  return () => ({
    matrices: "all",
    stagedDecoding: true,
    choose: (family, _key, variants) => (family === "matmul" && variants.includes(name) ? name : null),
  });
}

interface ProductCase {
  sizes: readonly [M: number, N: number, K: number];
  transA?: boolean;
  transB?: boolean;
  batch?: number;
  types?: readonly ["f32" | "f16", "f32" | "f16"];
  /** r + g gelu(x Wᵀ + b) instead of the bare product. */
  epilogue?: boolean;
}

interface Checked {
  label: string;
  job: Job;
  expected: Float64Array;
  K: number;
}

const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

function productJob(name: string, c: ProductCase): Checked {
  const { transA = false, transB = false, batch = 1, types = ["f32", "f32"], epilogue = false } = c;
  const [M, N, K] = c.sizes;
  const a = noise(batch * M * K, 1);
  const b = noise(batch * N * K, 2);
  const rest = [noise(N, 3), noise(N, 4), noise(batch * M * N, 5)] as const;
  const [ha, hb] = [halves(a), halves(b)];
  const expected = new Float64Array(batch * M * N);
  for (let i = 0; i < batch; i++)
    expected.set(product(ha, hb, c.sizes, { transA, transB, atA: i * M * K, atB: i * K * N }), i * M * N);
  return {
    label: `${name} ${types} ${transA ? "T" : "N"}${transB ? "T" : "N"} ${batch}x ${c.sizes}`,
    K,
    expected: epilogue ? expected.map((v, i) => rest[2][i]! + rest[1][i % N]! * gelu(v + rest[0][i % N]!)) : expected,
    job: {
      inputs: [
        { shape: transA ? [batch, K, M] : [batch, M, K], values: a, dtype: types[0] },
        { shape: transB ? [batch, N, K] : [batch, K, N], values: b, dtype: types[1] },
        ...(epilogue
          ? [
              { shape: [N], values: rest[0] },
              { shape: [1, 1, N], values: rest[1] },
              { shape: [batch, M, N], values: rest[2] },
            ]
          : []),
      ],
      body: ([x, y, bias, gate, residual]) => {
        const xy = matmul(x!, y!, { transposeA: transA, transposeB: transB });
        return [epilogue ? add(residual!, mul(geluTanh(add(xy, bias!)), gate!)) : xy];
      },
      target: forcing(name),
      repeat: true,
    },
  };
}

async function check(cases: readonly Checked[]): Promise<void> {
  const results = await runMany(cases.map(({ job }) => job));
  const failures = cases.flatMap(({ label, expected, K }, i) => {
    const error = relativeError(results[i]!.outputs[0]!, expected);
    return error <= bound(K) ? [] : [`${label}: ${error}`];
  });
  expect(failures).toEqual([]);
  expect(results.every(({ kernels }) => kernels[0]!.source.includes("subgroup_matrix"))).toBe(true);
}

/** Names of the adapter's variants whose name ends like this, one for each size of its matrices. */
async function namesOf(ending: string): Promise<string[]> {
  const all = matrixVariants(targetOf(await testGpu()).kernels);
  return all.map(({ name }) => name).filter((name) => name.endsWith(ending));
}

const withMatrices = it.runIf(matrixVariants(targetOf(await testGpu()).kernels).length > 0);

describe("products on subgroup matrices", () => {
  withMatrices("agree with float64 at the edges of a tile, for sizes that no vector divides", async () => {
    for (const name of await namesOf("_32x32")) {
      const draw = new Draw(11);
      const odd = (most: number) => 2 * draw.int(0, most >> 1) + 1;
      const drawn = Array.from({ length: 6 }, (): ProductCase => ({ sizes: [draw.int(1, 99), odd(99), odd(99)] }));
      const edges = [
        [1, 1, 1],
        [31, 31, 31],
        [33, 33, 33],
        [32, 97, 65],
        [3, 257, 1],
      ] as const;
      const cases: ProductCase[] = [...edges.map((sizes) => ({ sizes })), { sizes: [17, 9, 13], batch: 3 }, ...drawn];
      await check(cases.map((c) => productJob(name, c)));
    }
  });

  withMatrices("cut K into parts that are added in order, before bias, activation, gate and residual", async () => {
    for (const name of await namesOf("_32x32_split4")) {
      const cases: ProductCase[] = [
        [33, 20, 300],
        [7, 61, 128],
        [64, 32, 132],
        [5, 6, 4],
        [33, 20, 28],
      ].map((sizes) => ({
        sizes: sizes as [number, number, number],
        transB: true,
        epilogue: sizes[0] !== 64,
      }));
      await check(cases.map((c) => productJob(name, c)));
    }
  });

  withMatrices("read a transposed left factor, and halves and floats together", async () => {
    for (const name of await namesOf("_32x32")) {
      await check(
        [
          [40, 33, 37],
          [8, 65, 64],
          [64, 31, 1],
        ].map((sizes) =>
          productJob(name, { sizes: sizes as [number, number, number], transA: true, types: ["f16", "f32"] }),
        ),
      );
    }
  });

  withMatrices("fetch the next tile while they multiply, and store whole tiles from the matrices", async () => {
    const ahead = await namesOf("_32x32_ahead");
    for (const name of ahead.length > 0 ? ahead : await namesOf("_64x64")) {
      const sizes = [
        [64, 64, 32],
        [64, 128, 72],
        [128, 64, 200],
      ] as [number, number, number][];
      await check(sizes.map((s) => productJob(name, { sizes: s, transB: true, types: ["f16", "f16"], batch: 2 })));
    }
  });

  withMatrices("read whole tiles of the left factor straight from memory", async () => {
    for (const name of (await namesOf("_32x32_straight")).slice(0, 1)) {
      const types = ["f16", "f16"] as const;
      await check([
        productJob(name, { sizes: [64, 50, 96], types, batch: 2 }),
        // An edge, where it stages them after all.
        productJob(name, { sizes: [60, 50, 96], types }),
      ]);
    }
  });

  withMatrices("visit every tile once, whatever their order is", async () => {
    const banded = (await namesOf("_band8")).filter((name) => name.includes("_64x64"));
    for (const name of long ? await namesOf("_band8") : banded.slice(0, 1)) {
      await check([
        productJob(name, { sizes: [64 * 17 + 3, 150, 8], types: ["f16", "f16"] }),
        productJob(name, { sizes: [130, 70, 8], types: ["f16", "f16"] }),
      ]);
    }
  });

  withMatrices("add into a gradient buffer what was there before", async () => {
    const [name] = await namesOf("_32x32");
    // Rows of C that are stored four values at a time, and others.
    for (const N of [36, 37]) {
      const gpu = await testGpu();
      const session = new Session({ ...targetOf(gpu), ...forcing(name!)() });
      const [M, K] = [33, 40];
      const [x, y, sum] = [session.data("x", [K, M]), session.data("y", [K, N]), session.data("sum", [M, N])];
      const flat = { transposeA: true };
      const plan = session.plan("adding", (g) => accumulate(sum, matmul(g.read(x), g.read(y), flat)));
      try {
        await session.open(gpu);
        const [a, b, start] = [noise(K * M, 1), noise(K * N, 2), noise(M * N, 3)];
        session.write(x, Float32Array.from(a));
        session.write(y, Float32Array.from(b));
        session.write(sum, Float32Array.from(start));
        session.run(plan);
        const expected = product(halves(a), halves(b), [M, N, K], { transA: true }).map((v, i) => v + start[i]!);
        expect(relativeError(await session.read(sum), expected)).toBeLessThan(bound(K));
      } finally {
        session.close();
      }
    }
  });

  withMatrices("round a factor once where many tiles read it, for products that follow each other", async () => {
    for (const name of (await namesOf("_32x32")).slice(0, 1)) {
      const [M, N, K] = [7, 1030, 40];
      const [x, a, b] = [noise(M * K, 1), noise(N * K, 2), noise(N * K, 3)];
      const [result] = await runMany([
        {
          inputs: [
            { shape: [M, K], values: x },
            { shape: [N, K], values: a },
            { shape: [N, K], values: b },
          ],
          body: ([input, one, other]) => {
            const twice = add(input!, input!);
            return [one!, other!].map((w) => matmul(twice, w, { transposeB: true }));
          },
          target: forcing(name),
        },
      ]);
      expect(result!.calls.filter((call) => call === "round to f16")).toHaveLength(1);
      [a, b].forEach((w, i) => {
        const expected = product(halves(x.map((v) => 2 * v)), halves(w), [M, N, K], { transB: true });
        expect(relativeError(result!.outputs[i]!, expected)).toBeLessThan(bound(K));
      });
    }
  });

  if (long) {
    withMatrices(
      "agree in all variants and layouts",
      async () => {
        const layouts = [{}, { transB: true }, { transA: true }, { transA: true, transB: true }];
        const draw = new Draw(5);
        for (const { name } of matrixVariants(targetOf(await testGpu()).kernels)) {
          for (const layout of layouts) {
            const sizes = [draw.int(1, 300), draw.int(1, 300), draw.int(1, 150)] as const;
            const whole = [256, 256, 64] as const;
            await check([
              productJob(name, { ...layout, sizes }),
              productJob(name, { ...layout, sizes: whole, types: ["f16", "f16"] }),
              productJob(name, { ...layout, sizes, types: ["f32", "f16"], epilogue: true }),
            ]);
          }
        }
      },
      3_600_000,
    );
  }
});

/** y = x Wᵀ and dx with a stored weight, on a kernel that decodes it while staging and on one that gets a decoded copy. */
async function storedBothWays(name: string, storage: CompactStorage, sizes: readonly number[], backward: boolean) {
  const [M, N, K] = sizes as [number, number, number];
  const encoded = encodeWeight(
    "w",
    storage,
    Float32Array.from(noise(N * K, 8), (v) => v * 0.5),
  );
  const values = decodeWeight(storage, encoded, N * K);
  const [x, seed] = [noise(M * K, 1), noise(M * N, 2)];
  const job = (stagedDecoding: boolean): Job => ({
    inputs: [{ shape: [M, K], values: x }],
    body: ([input], _graph, constant: Constant) => [
      storedLinear(input!, {
        name: "w",
        storage,
        shape: [N, K],
        codes: constant("codes", encoded.codes, [encoded.codes.length]).variable!,
        scales: encoded.scales ? constant("scales", encoded.scales, [encoded.scales.length]).variable! : null,
        decoded: name.startsWith("matrix") ? "f16" : "f32",
      }),
    ],
    seeds: backward ? [seed] : undefined,
    target: () => ({ ...forcing(name)(), stagedDecoding }),
  });
  return { results: await runMany([job(true), job(false)]), x, seed, values };
}

describe("stored weights decoded while they are staged", () => {
  const cases = [
    ["nf4", [33, 40, 72], true],
    ["int8", [33, 40, 72], true],
    ["bf16", [35, 33, 37], false],
  ] as const;
  for (const [storage, sizes, backward] of cases) {
    withMatrices(`from ${storage} give the bits of a decoded copy on matrices`, async () => {
      for (const name of await namesOf("_32x32")) {
        const { results, x, seed, values } = await storedBothWays(name, storage, sizes, backward);
        const [fused, plain] = results as [(typeof results)[0], (typeof results)[0]];
        const [M, N, K] = sizes;
        expect(fused.calls).toHaveLength(backward ? 2 : 1);
        expect(plain.calls).toHaveLength(backward ? 4 : 2);
        expect(fused.outputs).toEqual(plain.outputs);
        expect(fused.gradients).toEqual(plain.gradients);
        const y = product(halves(x), halves(values), [M, N, K], { transB: true });
        expect(relativeError(fused.outputs[0]!, y)).toBeLessThan(bound(K));
        if (!backward) continue;
        const dx = product(halves(seed), halves(values), [M, K, N]);
        expect(relativeError(fused.gradients[0]!, dx)).toBeLessThan(bound(N));
      }
    });
    it(`from ${storage} give the bits of a decoded copy in f32 tiles`, async () => {
      const { results } = await storedBothWays("tiled_32x32x16", storage, sizes, backward);
      const [fused, plain] = results as [(typeof results)[0], (typeof results)[0]];
      expect(fused.calls).toHaveLength(backward ? 2 : 1);
      expect(fused.outputs).toEqual(plain.outputs);
      expect(fused.gradients).toEqual(plain.gradients);
    });
  }
});

describe("the choice of a matrix variant", () => {
  const card: KernelLimits = {
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeWorkgroupsPerDimension: 65535,
    matrices: [
      { m: 16, n: 16, k: 16 },
      { m: 16, n: 8, k: 16 },
      { m: 16, n: 8, k: 8 },
    ],
  };

  it("expands every variant of every size that adapters are known to report", () => {
    for (const limits of [
      card,
      { ...card, matrices: [{ m: 8, n: 8, k: 8 }] },
      { ...card, matrices: [{ m: 8, n: 16, k: 16 }] },
    ]) {
      const names = matrixVariants(limits).map(({ name }) => name);
      for (const { m, n, k } of limits.matrices!) expect(names).toContain(`matrix_${m}x${n}x${k}_128x128`);
      for (const name of names) {
        for (const [transA, transB] of [
          [false, false],
          [false, true],
          [true, false],
        ] as const) {
          const { main, splits } = chooseMatrix({ M: 300, N: 200, K: 999, transA, transB }, name, limits, { B: "nf4" });
          expect(expandTemplate(main.source, main.constants)).not.toContain("{{");
          // Every value of K lies in one part, and no part is empty.
          const chunk = main.params[12]!;
          expect(chunk % 32).toBe(0);
          expect((splits - 1) * chunk).toBeLessThan(999);
          expect(splits * chunk).toBeGreaterThanOrEqual(999);
        }
      }
    }
  });

  it("fills a card with large products and cuts the inner side of small ones", () => {
    const of = (M: number, N: number, K: number) => defaultMatrixVariant({ M, N, K }, card);
    expect(of(4096, 4096, 4096)).toBe("matrix_16x16x16_128x128");
    expect(of(8192, 8192, 8192)).toBe("matrix_16x16x16_128x128_band8");
    expect(of(512, 3072, 12288)).toBe("matrix_16x16x16_128x64");
    expect(of(512, 16, 3072)).toBe("matrix_16x16x16_32x32_split4");
    expect(of(4, 3072, 3072)).toBeNull();
  });

  it("is empty where subgroups differ in size or no f16 matrices with f32 sums exist", () => {
    expect(matrixVariants({ ...card, subgroupMinSize: 16 })).toEqual([]);
    expect(matrixVariants({ ...card, matrices: [] })).toEqual([]);
    expect(matrixVariants({ ...card, matrices: [{ m: 16, n: 16, k: 12 }] })).toEqual([]);
  });
});
