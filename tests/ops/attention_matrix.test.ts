// Attention on subgroup matrices against float64 and against the kernels that compute in f32. Inputs hold halves, so what
// differs is the rounding to f16 of the weights and of their gradients: half a unit of 2^-11, 1.4e-4 to 2.8e-4 of each on
// average, more where the weights' gradients nearly cancel (sharp weights). LONGTAIL_LONG=1 takes every form and head size.

import "../helpers/vectors_of_8.ts";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import type { KernelLimits } from "../../src/gpu/kernel_limits.ts";
import { expandTemplate } from "../../src/gpu/template.ts";
import { attention } from "../../src/ops/attention.ts";
import {
  type AttentionKernel,
  attentionMatrices,
  attentionReads,
  chooseAttentionMatrix,
} from "../../src/ops/attention_matrix.ts";
import { backward } from "../../src/ops/backward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type Job, noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { type AttentionProblem, attentionBackward, attentionForward } from "../helpers/reference_attention.ts";

const long = process.env.LONGTAIL_LONG === "1";
const KERNELS: readonly AttentionKernel[] = ["forward", "grad_query", "grad_key_value"];

const OUT_BOUND = 5e-4;
const GRADIENT_BOUND = 1e-3;

const halves = (values: ArrayLike<number>): Float64Array =>
  Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(values))));

interface Options {
  dtype?: "f32" | "f16";
  /** Only the result. */
  forward?: boolean;
  /** Factor on q and k: sharp weights where it is large. */
  size?: number;
  /** Every 32 keys are longer than those before by this factor, so that maxima keep rising. */
  rise?: number;
  gradientBound?: number;
  /** The form of each kernel by the end of its name; the default elsewhere. */
  ending?: string;
  /** Compares with the kernels that compute in f32, too. */
  plain?: boolean;
}

function problem([batch, rows, keys, heads, headSize]: readonly number[], causal = false): AttentionProblem {
  const p = { batch: batch!, rows: rows!, keys: keys!, heads: heads!, headSize: headSize! };
  return { ...p, scale: 1 / Math.sqrt(p.headSize), causal };
}

async function check(problems: readonly AttentionProblem[], options: Options = {}): Promise<void> {
  const { dtype = "f32", size = 1, rise = 1, ending } = options;
  const prepared = problems.map((p) => {
    const width = p.heads * p.headSize;
    const values = (rows: number, seed: number, factor: (row: number) => number) =>
      halves(noise(p.batch * rows * width, seed).map((x, i) => x * factor(Math.floor(i / width) % rows)));
    const q = values(p.rows, 1, () => size);
    const k = values(p.keys, 2, (row) => size * rise ** Math.floor(row / 32));
    const v = values(p.keys, 3, () => 1);
    const dout = halves(noise(p.batch * p.rows * width, 4));
    const job = (matrices: "all" | "off"): Job => ({
      inputs: [
        { shape: [p.batch, p.rows, width], values: q, dtype },
        { shape: [p.batch, p.keys, width], values: k, dtype },
        { shape: [p.batch, p.keys, width], values: v, dtype },
      ],
      body: ([a, b, c]) => [attention(a!, b!, c!, { heads: p.heads, causal: p.causal })],
      seeds: options.forward ? undefined : [dout],
      target: () => ({
        matrices,
        choose: (family, _key, names) =>
          family === "attention" && ending ? (names.find((name) => name.endsWith(ending)) ?? null) : null,
      }),
      repeat: true,
    });
    return { p, q, k, v, dout, job };
  });
  const results = await runMany(prepared.map(({ job }) => job("all")));
  const plain = options.plain ? await runMany(prepared.map(({ job }) => job("off"))) : null;
  prepared.forEach(({ p, q, k, v, dout }, i) => {
    const { outputs, gradients, kernels } = results[i]!;
    const name = `${JSON.stringify({ ...p, dtype, ...options })}`;
    const onMatrices = kernels.filter(({ source }) => source.includes("subgroup_matrix"));
    expect(onMatrices, name).toHaveLength(options.forward ? 1 : 3);
    expect(relativeError(outputs[0]!, attentionForward(p, q, k, v)), `out ${name}`).toBeLessThan(OUT_BOUND);
    if (plain) expect(relativeError(outputs[0]!, plain[i]!.outputs[0]!), `out ${name}`).toBeLessThan(OUT_BOUND);
    if (options.forward) return;
    const bound = options.gradientBound ?? GRADIENT_BOUND;
    attentionBackward(p, q, k, v, dout).forEach((expected, which) => {
      const label = `${["dq", "dk", "dv"][which]} ${name}`;
      const found = gradients[which]!;
      // With one key the weights are constant, and dq and dk are rounding noise around zero.
      if (p.keys === 1 && which < 2) return expect(Math.max(...found.map(Math.abs)), label).toBeLessThan(1e-3);
      expect(relativeError(found, expected), label).toBeLessThan(bound);
      if (plain) expect(relativeError(found, plain[i]!.gradients[which]!), label).toBeLessThan(bound);
    });
  });
}

const { kernels: limits } = targetOf(await testGpu());
const withMatrices = it.runIf(attentionMatrices("forward", limits, 16).length > 0);

describe("attention on subgroup matrices", () => {
  withMatrices("agrees with float64 for lengths around its tiles", async () => {
    const lengths = [
      [1, 1],
      [31, 33],
      [32, 32],
      [33, 31],
      [7, 130],
      [130, 5],
      [64, 96],
    ] as const;
    await check(lengths.map(([rows, keys]) => problem([2, rows, keys, 2, 16])));
  });

  withMatrices("agrees with the kernels in f32 for heads of 64, from halves in memory", async () => {
    // Its gradients in that size are compiled for ten seconds; heads of 16 have the same kernels' texts.
    await check([problem([1, 70, 97, 2, 64])], { dtype: "f16", plain: true, forward: !long });
  });

  withMatrices("shows a row no key behind it under a causal mask", async () => {
    const lengths = [
      [1, 1],
      [77, 77],
      [33, 70],
      [70, 33],
    ] as const;
    await check(lengths.map(([rows, keys]) => problem([1, rows, keys, 2, 16], true)));
  });

  withMatrices("keeps its sums while the maximum of a row rises from tile to tile", async () => {
    // Scores reach 180; sums that live over the loop are scaled in most of the ten tiles.
    await check([problem([1, 40, 320, 1, 16])], { forward: true, size: 4, rise: 1.25 });
    // dq = Σ ds k with rounded ds: what cancels in it is larger than what stays.
    await check([problem([1, 40, 160, 1, 16])], { size: 2, rise: 1.4, gradientBound: 5e-3 });
  });

  withMatrices("rounds keys and values once where many workgroups read them", async () => {
    await check([problem([1, 1030, 40, 1, 16])], { forward: !long });
  });

  withMatrices("lets two subgroups share the keys of dk and dv", async () => {
    await check([problem([1, 70, 65, 2, 16])], { ending: "_shared2" });
  });

  if (long) {
    withMatrices(
      "agrees in all forms, head sizes and types",
      async () => {
        for (const headSize of [16, 64, 80, 128]) {
          const names = new Set(
            KERNELS.flatMap((kernel) => attentionMatrices(kernel, limits, headSize)).map((f) => f.name),
          );
          for (const ending of names) {
            for (const dtype of ["f32", "f16"] as const)
              await check([problem([2, 71, 101, 2, headSize]), problem([1, 300, 260, 1, headSize])], { ending, dtype });
            await check([problem([2, 71, 71, 2, headSize], true)], { ending });
          }
        }
      },
      3_600_000,
    );
  }

  withMatrices("needs memory in proportion to the tokens", async () => {
    const gpu = await testGpu();
    const bytes = (tokens: number) => {
      const session = new Session({ ...targetOf(gpu), matrices: "all" });
      const shape = [1, tokens, 128];
      const [x, seed] = [session.data("x", shape), session.data("seed", shape)];
      const plan = session.plan("attention", (graph) => {
        const [q, k, v] = [graph.read(x, true), graph.read(x, true), graph.read(x, true)];
        const y = attention(q, k, v, { heads: 2 });
        backward(graph, [[y, graph.read(seed)]], [q, k, v]).forEach((g, i) => {
          graph.assign(session.data(`gradient ${i}`, shape), g!);
        });
      });
      return plan.lowered.slots.reduce((sum, slot) => sum + slot.bytes, 0);
    };
    expect(bytes(8192) / bytes(4096)).toBeLessThan(2.01);
  });
});

describe("the forms of attention on subgroup matrices", () => {
  const card: KernelLimits = {
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeWorkgroupsPerDimension: 65535,
    matrices: [
      { m: 16, n: 8, k: 8 },
      { m: 16, n: 16, k: 16 },
      { m: 16, n: 8, k: 16 },
    ],
  };
  const s = { batch: 1, heads: 24, rows: 4608, keys: 4608, causal: false };

  it("take the largest matrices first and expand for every head size of a model", () => {
    for (const kernel of KERNELS) {
      for (const headSize of [64, 128]) {
        const forms = attentionMatrices(kernel, card, headSize);
        expect(forms[0]!.name).toMatch(/^matrix_16x16x16_4(_shared2)?_ahead$/);
        for (const form of forms) {
          const types = { q: "f16", k: "f16", v: "f16", dout: "f32", out: "f32" } as const;
          const { source, constants } = chooseAttentionMatrix(kernel, { ...s, headSize }, form, types);
          expect(expandTemplate(source, constants)).not.toContain("{{");
          expect(16 * (constants["STAGE"] as number)).toBeLessThanOrEqual(card.maxComputeWorkgroupStorageSize);
        }
      }
    }
  });

  it("own every row once", () => {
    for (const kernel of KERNELS) {
      for (const form of attentionMatrices(kernel, card, 128)) {
        const owned = ((form.groups / form.sharers) * form.size.m) as number;
        const groups = attentionReads(kernel, { ...s, headSize: 128 }, form);
        expect(groups * owned).toBeGreaterThanOrEqual(4608);
        expect((groups - 1) * owned).toBeLessThan(4608);
      }
    }
  });

  // Which kernels have a form for heads of 32 columns: forward, gradient of queries, gradient of keys and values. With 32
  // keys staged, rows of 8 leave a lane of a subgroup of 32 eight scores, too few for the halves of 16 columns in their place.
  it.each([
    [8, "8x16x16 8x8x8", "16x16x16 16x8x16 16x8x8"],
    [16, "16x16x16 16x8x16 16x8x8 8x16x16 8x8x8", ""],
    [32, "16x16x16 16x8x16 16x8x8 8x8x8", ""],
    [64, "", "16x16x16 16x8x16 16x8x8 8x16x16 8x8x8"],
  ])(
    "are there for all three kernels or for none in subgroups of %i, but with 8x16x16 in those of 32",
    (lanes, all, none) => {
      const kernelsWith = (name: string) => {
        const [m, n, k] = name.split("x").map(Number) as [number, number, number];
        const limits = { ...card, subgroupMinSize: lanes, subgroupMaxSize: lanes, matrices: [{ m, n, k }] };
        return KERNELS.filter((kernel) => attentionMatrices(kernel, limits, 32).length > 0);
      };
      for (const name of all.split(" ").filter(Boolean)) expect(kernelsWith(name), name).toEqual(KERNELS);
      for (const name of none.split(" ").filter(Boolean)) expect(kernelsWith(name), name).toEqual([]);
      if (lanes === 32) expect(kernelsWith("8x16x16")).toEqual(["grad_key_value"]);
    },
  );

  it("are none for heads that no matrix divides and for heads whose results no register holds", () => {
    for (const kernel of KERNELS) {
      expect(attentionMatrices(kernel, card, 72).every(({ size }) => size.k === 8)).toBe(true);
      expect(attentionMatrices(kernel, card, 60)).toEqual([]);
      expect(attentionMatrices(kernel, card, 512)).toEqual([]);
      expect(attentionMatrices(kernel, { ...card, subgroupMinSize: 16 }, 64)).toEqual([]);
    }
  });
});
