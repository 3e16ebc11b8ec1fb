import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import { attention, attentionVariant } from "../../src/ops/attention.ts";
import { add, affine, cast } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";
import { type AttentionProblem, attentionBackward, attentionForward } from "../helpers/reference_attention.ts";

/** Stands for a masked place in a bias of whole numbers. */
const MASK_LEVEL = 1000;

/** A bias [H, Lq, Lk] in steps of 1/64; about one place in `every` is masked. */
function biasOf(heads: number, rows: number, keys: number, every = 0): Float64Array {
  return noise(heads * rows * keys, 9).map((x, at) => {
    if (every > 0 && at % keys !== 0 && at % every === 1) return -3e38;
    return Math.round(x * 64) / 64;
  });
}

/** Shape [batch, Lq, Lk, heads, head size]. */
function problem(
  [batch, rows, keys, heads, headSize]: number[],
  extra: Partial<AttentionProblem> = {},
): AttentionProblem {
  return {
    batch: batch!,
    rows: rows!,
    keys: keys!,
    heads: heads!,
    headSize: headSize!,
    scale: 1 / Math.sqrt(headSize!),
    ...extra,
  };
}

function inputsOf(p: AttentionProblem, size = 1) {
  const width = p.heads * p.headSize;
  const scaled = (values: Float64Array) => values.map((x) => Math.fround(x * size));
  return {
    q: scaled(noise(p.batch * p.rows * width, 1)),
    k: scaled(noise(p.batch * p.keys * width, 2)),
    v: noise(p.batch * p.keys * width, 3),
    dout: noise(p.batch * p.rows * width, 4),
  };
}

interface Options {
  size?: number;
  dtype?: "f32" | "f16";
  tolerance?: number;
  variant?: "in_place" | "staged";
}

/** Runs forward and backward on the device and compares both with float64. */
async function check(p: AttentionProblem, options: Options = {}): Promise<void> {
  const { dtype = "f32", tolerance = 1e-5 } = options;
  const stored = (x: Float64Array) => (dtype === "f16" ? f16ToF32(f32ToF16(Float32Array.from(x))) : x);
  const { dout, ...wide } = inputsOf(p, options.size);
  const [q, k, v] = [stored(wide.q), stored(wide.k), stored(wide.v)];
  const width = p.heads * p.headSize;
  const inputs = [
    { shape: [p.batch, p.rows, width], values: q, dtype },
    { shape: [p.batch, p.keys, width], values: k, dtype },
    { shape: [p.batch, p.keys, width], values: v, dtype },
  ];
  // The bias comes from whole numbers, which runOps asks no gradient for; attention_bias.test.ts looks at its gradient.
  const biasShape = [p.heads, p.rows, p.keys];
  const levels = p.bias ? Array.from(p.bias, (x) => (x < -1 ? MASK_LEVEL : Math.round((x + 1) * 64))) : [];
  const masks = levels.map((x) => (x === MASK_LEVEL ? 1 : 0));
  const biasInputs = p.bias
    ? [
        { shape: biasShape, values: levels, dtype: "u32" as const },
        { shape: biasShape, values: masks, dtype: "u32" as const },
      ]
    : [];
  const { outputs, gradients } = await runOps(
    [...inputs, ...biasInputs],
    ([a, b, c, level, mask]) => {
      const bias = level && add(affine(cast(level, "f32"), 1 / 64, -1), affine(cast(mask!, "f32"), -3e38, 0));
      return [
        attention(a!, b!, c!, { heads: p.heads, scale: p.scale, causal: p.causal, bias, variant: options.variant }),
      ];
    },
    { seeds: [dout], repeat: true },
  );
  const name = JSON.stringify({ ...p, bias: p.bias !== undefined });
  expect(relativeError(outputs[0]!, attentionForward(p, q, k, v)), `out ${name}`).toBeLessThan(tolerance);
  const expected = attentionBackward(p, q, k, v, dout);
  ["dq", "dk", "dv"].forEach((label, i) => {
    // With one key the weights are constant, and dq and dk are rounding noise around zero.
    if (p.keys === 1 && i < 2) return expect(Math.max(...gradients[i]!.map(Math.abs))).toBeLessThan(1e-5);
    return expect(relativeError(gradients[i]!, expected[i]!), `${label} ${name}`).toBeLessThan(tolerance);
  });
}

describe("the float64 rule", () => {
  it("has the gradient that finite differences of its forward give", () => {
    const p = problem([1, 5, 4, 2, 4], { causal: true, bias: biasOf(2, 5, 4) });
    const { q, k, v, dout } = inputsOf(p);
    const loss = (parts: Float64Array[]) => {
      const out = attentionForward(p, parts[0]!, parts[1]!, parts[2]!);
      return out.reduce((sum, x, i) => sum + x * dout[i]!, 0);
    };
    const step = 1e-5;
    attentionBackward(p, q, k, v, dout).forEach((gradient, which) => {
      const slopes = gradient.map((_, i) => {
        const moved = (by: number) =>
          [q, k, v].map((x, n) => (n === which ? x.map((y, m) => (m === i ? y + by : y)) : x));
        return (loss(moved(step)) - loss(moved(-step))) / (2 * step);
      });
      expect(relativeError(gradient, slopes)).toBeLessThan(1e-8);
    });
  });
});

for (const variant of ["in_place", "staged"] as const) {
  describe(`attention with keys ${variant}`, () => {
    it("agrees with float64 for lengths around the workgroup and the key block", async () => {
      for (const length of [1, 2, 7, 8, 9, 31, 36, 64, 65])
        await check(problem([2, length, length, 2, 8]), { variant });
    });
    it("agrees with float64 where queries and keys differ in number", async () => {
      for (const [rows, keys] of [
        [1, 37],
        [37, 1],
        [5, 64],
        [67, 13],
      ])
        await check(problem([1, rows!, keys!, 2, 8]), { variant });
    });
    it("agrees with float64 for head sizes from 4 to 512", async () => {
      // Every size is a kernel text of its own, and compiling costs more than running here.
      for (const size of variant === "staged" ? [80] : [4, 64]) await check(problem([1, 19, 21, 2, size]), { variant });
      await check(problem([1, 10, 10, 1, 512]), { variant });
    });
    it("shows a row no key behind it under a causal mask", async () => {
      for (const [rows, keys] of [
        [1, 1],
        [9, 9],
        [41, 41],
        [70, 70],
        [20, 30],
        [30, 20],
      ]) {
        await check(problem([2, rows!, keys!, 2, 8], { causal: true }), { variant });
      }
    });
    it("adds a bias and leaves out the places that it masks", async () => {
      const headSize = variant === "staged" ? 40 : 8;
      const causal = variant === "staged";
      await check(problem([2, 13, 17, 3, headSize], { bias: biasOf(3, 13, 17), causal }), { variant });
      await check(problem([1, 19, 19, 2, headSize], { bias: biasOf(2, 19, 19, 3), causal }), { variant });
    });
    it("stays finite and right for scores up to a thousand", async () => {
      // One rounding of a score of 1000 in f32 changes its weight by 6e-5.
      await check(problem([1, 33, 33, 2, 8], { scale: 50 }), { size: 2, tolerance: 2e-3, variant });
    });
    it("reads f16 and computes in f32", async (context) => {
      if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
      await check(problem([2, 18, 22, 2, 8]), { dtype: "f16", variant });
    });
  });
}

describe("attention", () => {
  it("gives zeros and zero gradients for a row whose keys are all masked", async () => {
    const x = noise(3 * 8, 1);
    const level = { shape: [1, 3, 3], values: [0, 0, 0, 1, 1, 1, 0, 0, 0], dtype: "u32" as const };
    const inputs = [2, 3, 4].map((seed) => ({ shape: [1, 3, 8], values: noise(3 * 8, seed) }));
    const { outputs, gradients } = await runOps(
      [...inputs, level],
      ([q, k, v, mask]) => [attention(q!, k!, v!, { heads: 1, bias: affine(cast(mask!, "f32"), -3e38, 0) })],
      { seeds: [x] },
    );
    expect(Array.from(outputs[0]!.slice(8, 16))).toEqual(new Array(8).fill(0));
    expect(Math.max(...gradients[0]!.slice(8, 16).map(Math.abs))).toBe(0);
    expect(gradients.slice(0, 3).every((g) => g!.every(Number.isFinite))).toBe(true);
  });

  it("takes one tensor as queries, keys and values and adds the three gradients", async () => {
    const p = problem([2, 11, 11, 2, 8]);
    const { q, dout } = inputsOf(p);
    const { outputs, gradients } = await runOps(
      [{ shape: [2, 11, 16], values: q }],
      ([x]) => [attention(x!, x!, x!, { heads: 2 })],
      { seeds: [dout] },
    );
    expect(relativeError(outputs[0]!, attentionForward(p, q, q, q))).toBeLessThan(1e-5);
    const [dq, dk, dv] = attentionBackward(p, q, q, q, dout);
    expect(
      relativeError(
        gradients[0]!,
        dq!.map((x, i) => x + dk![i]! + dv![i]!),
      ),
    ).toBeLessThan(1e-5);
  });

  it("computes only the gradients that somebody reads", async () => {
    const u32 = { shape: [1, 4, 8], values: new Array(32).fill(1), dtype: "u32" as const };
    const { calls } = await runOps(
      [{ shape: [1, 4, 8], values: noise(32) }, u32],
      ([q, k]) => {
        const keys = cast(k!, "f32");
        return [attention(q!, keys, keys, { heads: 1 })];
      },
      { seeds: [noise(32, 2)] },
    );
    expect(calls.filter((c) => c.startsWith("attention"))).toEqual([
      "attention forward",
      "attention delta",
      "attention query gradient",
    ]);
  });

  it("refuses shapes that do not fit, by name", async () => {
    const spec = (...shape: number[]) => ({ shape, values: noise(shape.reduce((a, b) => a * b, 1)) });
    const run = (inputs: ReturnType<typeof spec>[], heads: number) =>
      runOps(inputs, ([q, k, v, bias]) => [attention(q!, k!, v!, { heads, bias })]);
    await expect(run([spec(1, 4, 12), spec(1, 4, 12), spec(1, 4, 12)], 2)).rejects.toThrow(/multiple of 4/);
    await expect(run([spec(1, 4, 8), spec(2, 4, 8), spec(2, 4, 8)], 2)).rejects.toThrow(/differ in batch/);
    await expect(run([spec(1, 4, 8), spec(1, 4, 8), spec(1, 5, 8)], 2)).rejects.toThrow(
      /k \[1, 4, 8\] and v \[1, 5, 8\]/,
    );
    await expect(run([spec(1, 4, 8), spec(1, 4, 8), spec(1, 4, 8), spec(4, 4)], 2)).rejects.toThrow(
      /the bias is \[4, 4\]/,
    );
  });
});

describe("the choice of the variant", () => {
  it("stays within 256 invocations, 16 KiB of workgroup memory and whole parts for every head size", () => {
    for (let size = 4; size <= 512; size += 4) {
      for (const kernel of ["forward", "grad_query", "grad_key_value"] as const) {
        for (const inPlace of [true, false]) {
          const { rows, parts, keys, tile } = attentionVariant(kernel, size, inPlace);
          expect(size % (4 * parts)).toBe(0);
          expect(rows * parts).toBeLessThanOrEqual(256);
          expect(tile % keys).toBe(0);
          const partials = parts > 1 ? rows * parts * keys * (kernel === "forward" ? 4 : 8) : 0;
          expect(tile * size * 8 + partials, `${kernel} ${size}`).toBeLessThanOrEqual(16384);
        }
      }
    }
  });
});
