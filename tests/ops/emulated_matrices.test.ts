// The kernels on subgroup matrices as a card with subgroups of 32 runs them, with matrices that the adapter at hand does
// not have: their instructions are emulated (tests/helpers/emulated_matrices.ts), so that the sharing of rows between
// lanes, the sizes of tiles and every offset are tested where no such card is. LONGTAIL_LONG=1 takes more
// sizes, and attention.

import process from "node:process";
import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import type { MatrixSize } from "../../src/gpu/kernel_limits.ts";
import { attention } from "../../src/ops/attention.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { matmul } from "../../src/ops/matmul.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { cardLimits, withEmulatedMatrices } from "../helpers/emulated_matrices.ts";
import { type Job, noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { attentionBackward, attentionForward } from "../helpers/reference_attention.ts";
import { convGradients } from "../helpers/reference_convolution.ts";
import { convReference, product } from "./table/products.ts";

const long = process.env.LONGTAIL_LONG === "1";
const LANES = 32;
const SQUARE: MatrixSize = { m: 16, n: 16, k: 16 };
const SIZES: MatrixSize[] = long
  ? [SQUARE, { m: 16, n: 8, k: 16 }, { m: 16, n: 8, k: 8 }, { m: 8, n: 16, k: 16 }, { m: 8, n: 8, k: 8 }]
  : [SQUARE];

/**
 * Kernels of attention that a size has a form for in subgroups of 32: a lane's weights of a row take the place of its
 * scores, 8 of the 32 keys that are staged with rows of 8, which are half of the columns of a matrix of 8x16x16. Gradients
 * of keys and values keep their weights elsewhere. tests/ops/attention_matrix.test.ts holds every subgroup's list.
 */
const ATTENTION = ["attention forward", "attention query gradient", "attention key and value gradient"];
const attentionOn = ({ m, k }: MatrixSize): string[] => (m === 8 && k === 16 ? ATTENTION.slice(2) : ATTENTION);

const halves = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(values))));

/** A card's view of the adapter, with one form of products and of attention. */
function card(size: MatrixSize, ending: string): (own: Target) => Partial<Target> {
  return (own) => ({
    kernels: cardLimits(own.kernels, LANES, size),
    matrices: "all",
    stagedDecoding: true,
    choose: (_family, _key, names) => names.find((name) => name.startsWith("matrix") && name.endsWith(ending)) ?? null,
  });
}

// Deno's own implementation does not read all of the text that is left.
const isAble = (await testGpu()).facts.f16 && process.env.LONGTAIL_TEST_GPU !== "deno";

for (const size of SIZES) {
  const name = `${size.m}x${size.n}x${size.k}`;
  describe.runIf(isAble)(`on emulated matrices of ${name} in subgroups of ${LANES}`, () => {
    const endings = long ? ["_32x32", "_64x64", "_32x32_straight"] : ["_32x32"];
    for (const ending of endings) {
      it(`products agree with float64 in tiles of ${ending.slice(1)}`, async () => {
        const layouts = [
          { transA: false, transB: true },
          { transA: true, transB: false },
        ];
        const cases = layouts.slice(0, long ? 2 : 1).map(({ transA, transB }) => {
          const [M, N, K] = [70, 65, 75] as const;
          const [a, b] = [noise(M * K, 1), noise(N * K, 2)];
          const job: Job = {
            inputs: [
              { shape: transA ? [1, K, M] : [1, M, K], values: a },
              { shape: transB ? [1, N, K] : [1, K, N], values: b },
            ],
            body: ([x, y]) => [matmul(x!, y!, { transposeA: transA, transposeB: transB })],
            target: card(size, ending),
          };
          return { job, expected: product(halves(a), halves(b), [M, N, K], { transA, transB }) };
        });
        const results = await withEmulatedMatrices(await testGpu(), LANES, size, () =>
          runMany(cases.map((c) => c.job)),
        );
        results.forEach(({ outputs, kernels }, i) => {
          expect(kernels[0]!.source).toContain("subgroup_matrix");
          expect(relativeError(outputs[0]!, cases[i]!.expected)).toBeLessThan(1e-6);
        });
      }, 600_000);
    }

    it("convolutions agree with float64 in all passes", async () => {
      const c = { x: [2, 5, 7, 8], out: 35, kernel: [3, 3], padding: [1, 1, 1, 1] } as const;
      const [x, w, dy] = [noise(560, 1), noise(1575, 2), noise(3920, 3)];
      const job: Job = {
        inputs: [
          { shape: c.x, values: x },
          { shape: [c.out, 5, 3, 3], values: w },
        ],
        body: ([a, b]) => [conv2d(a!, b!, { padding: c.padding })],
        seeds: long ? [dy] : undefined,
        target: card(size, "_32x32"),
      };
      const [result] = await withEmulatedMatrices(await testGpu(), LANES, size, () => runMany([job]));
      expect(result!.kernels.filter(({ source }) => source.includes("subgroup_matrix"))).toHaveLength(long ? 3 : 1);
      const exact = convReference(halves(x), halves(w), c);
      expect(relativeError(result!.outputs[0]!, exact)).toBeLessThan(1e-6);
      if (!long) return;
      const { dx, dw } = convGradients(halves(x), halves(w), halves(dy), c);
      expect(relativeError(result!.gradients[0]!, dx)).toBeLessThan(1e-6);
      expect(relativeError(result!.gradients[1]!, dw)).toBeLessThan(1e-6);
    }, 600_000);

    // A minute each.
    const forms = long ? ["_4_ahead", "_4", "_8", "_shared2", "_shared2_ahead"] : [];
    for (const ending of forms) {
      it(`attention and its gradients agree with float64 in form ${ending.slice(1)}`, async () => {
        const p = { batch: 1, rows: 70, keys: 97, heads: 2, headSize: 32, scale: 0.6, causal: ending === "_shared2" };
        const width = p.heads * p.headSize;
        const [q, k, v] = [p.rows, p.keys, p.keys].map((rows, i) => halves(noise(rows * width, i + 1)));
        const dout = halves(noise(p.rows * width, 4));
        // Later keys are longer, so that levels move.
        const rising = halves(k!.map((x, i) => x * (1 + Math.floor(i / width / 32))));
        const job: Job = {
          inputs: [
            { shape: [1, p.rows, width], values: q! },
            { shape: [1, p.keys, width], values: rising },
            { shape: [1, p.keys, width], values: v! },
          ],
          body: ([a, b, c]) => [attention(a!, b!, c!, { heads: p.heads, scale: p.scale, causal: p.causal })],
          seeds: [dout],
          target: card(size, ending),
        };
        const [result] = await withEmulatedMatrices(await testGpu(), LANES, size, () => runMany([job]));
        const onMatrices = result!.calls.filter((_, i) => result!.kernels[i]!.source.includes("subgroup_matrix"));
        expect(onMatrices.sort()).toEqual([...attentionOn(size)].sort());
        expect(relativeError(result!.outputs[0]!, attentionForward(p, q!, rising, v!))).toBeLessThan(5e-4);
        attentionBackward(p, q!, rising, v!, dout).forEach((expected, i) => {
          expect(relativeError(result!.gradients[i]!, expected), ["dq", "dk", "dv"][i]).toBeLessThan(2e-3);
        });
      }, 600_000);
    }
  });
}
