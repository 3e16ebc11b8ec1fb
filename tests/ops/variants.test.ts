// Every variant of matmul and convolution that this adapter can run, against float64, bare and with the longest epilogue
// that a model asks for: a driver may compile one text of many wrongly. The normal run takes the variants that the main
// job uses by default and a few others; LONGTAIL_LONG=1 takes all.

import process from "node:process";
import { describe, expect, it } from "vitest";
import { mainJob } from "../../bench/lib/main_job.ts";
import { convGradWeightVariants, convVariants } from "../../src/ops/conv_choice.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { matmulVariants } from "../../src/ops/matmul_choice.ts";
import { add, geluTanh, mul, relu } from "../../src/ops/pointwise.ts";
import { WINOGRAD } from "../../src/ops/winograd.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type Job, noise, runMany, testGpu } from "../helpers/gpu.ts";
import { measure } from "../helpers/table.ts";
import { type ConvCase, convCase, convReference, matmulCase, product } from "./table/products.ts";
import { type Case, Draw, input } from "./table/types.ts";
import { OPERATIONS } from "./table.ts";

const long = process.env.LONGTAIL_LONG === "1";
/** Variants that the normal run takes besides the defaults. */
const EXTRA = 1;

type Type = "f32" | "f16";

const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** r + gate · gelu(x Wᵀ + b): bias, activation, gate and residual in the store of the product. */
function gatedProduct(
  [M, N, K]: readonly [number, number, number],
  types: readonly [Type, Type] = ["f32", "f32"],
): Case {
  return {
    label: `${types.join(" ")} r + g gelu(x Wᵀ + b) ${M}x${N}x${K}`,
    inputs: [
      input([1, M, K], { dtype: types[0] }),
      input([1, N, K], { seed: 2, dtype: types[1] }),
      input([N], { seed: 3 }),
      input([1, 1, N], { seed: 4 }),
      input([1, M, N], { seed: 5 }),
    ],
    body: ([x, w, b, g, r]) => [add(r!, mul(geluTanh(add(matmul(x!, w!, { transposeB: true }), b!)), g!))],
    reference: ([x, w, b, g, r]) => [
      product(x!, w!, [M, N, K], { transB: true }).map((v, i) => r![i]! + g![i % N]! * gelu(v + b![i % N]!)),
    ],
    terms: 4 * Math.max(M, N, K),
  };
}

/** relu(conv(x) + b + r): bias, residual and activation in the store of the convolution. */
function residualConv(c: ConvCase): Case {
  const plain = convCase(c);
  const [OH, OW] = [0, 1].map((d) => {
    const pads = (c.padding?.[d] ?? 0) + (c.padding?.[d + 2] ?? 0);
    return Math.floor((c.x[2 + d]! + pads - c.kernel[d]!) / (c.stride ?? 1)) + 1;
  }) as [number, number];
  return {
    ...plain,
    label: `relu(conv + b + r) ${plain.label}`,
    inputs: [...plain.inputs, input([c.out], { seed: 3 }), input([c.x[0], c.out, OH, OW], { seed: 5, scale: 4 })],
    body: ([x, w, b, r]) => [relu(add(conv2d(x!, w!, { stride: c.stride, padding: c.padding, bias: b }), r!))],
    reference: ([x, w, b, r]) => [
      convReference(x!, w!, c).map((v, i) => Math.max(0, v + b![Math.floor(i / (OH * OW)) % c.out]! + r![i]!)),
    ],
    terms: 4 * plain.terms,
  };
}

/** Odd, prime and just past the tiles; gradients of one layout run the others. */
const MATMULS: Case[] = [
  gatedProduct([33, 67, 71]),
  matmulCase([17, 33, 65], { batch: 2 }),
  matmulCase([61, 130, 9], { transB: true, types: ["f32", "f16"] }),
];
const MATMULS_LONG: Case[] = [
  ...MATMULS,
  gatedProduct([70, 65, 64], ["f32", "f16"]),
  gatedProduct([129, 68, 16], ["f16", "f16"]),
  matmulCase([130, 65, 128], { transA: true }),
  matmulCase([9, 17, 33], { transA: true, transB: true, types: ["f16", "f16"] }),
];
const CONVS: ConvCase[] = [
  { x: [2, 5, 9, 11], out: 17, kernel: [3, 3], padding: [1, 1, 1, 1] },
  { x: [1, 9, 10, 13], out: 7, kernel: [3, 3], stride: 2, padding: [1, 1, 1, 1] },
];
const CONVS_LONG: ConvCase[] = [
  ...CONVS,
  { x: [1, 33, 8, 8], out: 34, kernel: [3, 3], padding: [1, 1, 1, 1] },
  { x: [1, 3, 9, 17], out: 5, kernel: [5, 2], padding: [2, 0, 2, 1] },
  { x: [1, 6, 7, 9], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], types: ["f32", "f16"] },
  { x: [1, 6, 7, 9], out: 9, kernel: [3, 3], padding: [1, 1, 1, 1], types: ["f16", "f16"] },
  { x: [1, 4, 8, 8], out: 6, kernel: [3, 3], stride: 2, padding: [0, 0, 1, 1] },
];

/** Variants that the main job's plans run on this adapter without a tuner, from what their kernels' texts were given. */
let usedOnce: Promise<Record<string, Set<string>>> | null = null;
function usedByMainJob(): Promise<Record<string, Set<string>>> {
  usedOnce ??= findUsed();
  return usedOnce;
}

async function findUsed(): Promise<Record<string, Set<string>>> {
  const job = await mainJob(targetOf(await testGpu()));
  const used: Record<string, Set<string>> = { matmul: new Set(), conv2d: new Set(), conv2d_grad_weight: new Set() };
  for (const { constants: c } of job.session.plans.flatMap((p) => p.lowered.calls)) {
    const broadcast = c["BROADCAST"] ? "_broadcast" : "";
    if (c["ROWS"] !== undefined && c["COLS"] !== undefined)
      used["matmul"]!.add(`direct_${c["ROWS"]}x${c["COLS"]}x${c["LANES"]}${broadcast}`);
    else if (c["TILE_M"] !== undefined) used["matmul"]!.add(`tiled_${c["TILE_M"]}x${c["TILE_N"]}x${c["TILE_K"]}`);
    else if (c["VECTORS"] !== undefined)
      used["conv2d_grad_weight"]!.add(`weight_${c["CHANNELS"]}x${c["LANES"]}${broadcast}`);
    else if (c["PIXELS"] !== undefined)
      used["conv2d"]!.add(`direct_${c["CHANNELS"]}x${c["PIXELS"]}x${c["LANES"]}${broadcast}`);
  }
  return used;
}

async function check(family: string, operation: string, name: string, cases: readonly Case[]): Promise<string[]> {
  const entry = OPERATIONS.find((e) => e.name === operation)!;
  const gpu = await testGpu();
  const usable = cases.filter((c) => gpu.facts.f16 || c.inputs.every((x) => x.dtype !== "f16"));
  const jobs = usable.map(
    (c): Job => ({
      inputs: c.inputs,
      body: c.body,
      seeds: c.reference(c.inputs.map((x) => Float64Array.from(x.values))).map((y) => noise(y.length, 50)),
      target: () => ({
        choose: (asked, _key, variants) => (asked === family && variants.includes(name) ? name : null),
      }),
    }),
  );
  const results = await runMany(jobs);
  return usable.flatMap((c, i) => {
    const m = measure(entry, c, results[i]!, jobs[i]!.seeds as Float64Array[]);
    return m.worst <= 1
      ? []
      : [
          `${name}, ${c.label}: ${m.what} off by ${m.error.toExponential(2)}, tolerance ${m.tolerance.toExponential(2)}`,
        ];
  });
}

const FAMILIES = [
  { family: "matmul", operation: "matmul NN", all: matmulVariants, cases: long ? MATMULS_LONG : MATMULS },
  {
    family: "conv2d",
    operation: "conv2d",
    all: convVariants,
    besides: [WINOGRAD],
    cases: (long ? CONVS_LONG : CONVS).flatMap((c) => (long ? [convCase(c), residualConv(c)] : [residualConv(c)])),
  },
  {
    family: "conv2d_grad_weight",
    operation: "conv2d",
    all: convGradWeightVariants,
    cases: (long ? CONVS_LONG : CONVS).map(convCase),
  },
];

describe("kernel variants", () => {
  for (const { family, operation, all, cases, besides = [] } of FAMILIES) {
    it(
      `of ${family} agree with float64, ${long ? "all of them" : "the main job's and a sample"}`,
      async () => {
        const names = all(targetOf(await testGpu()).kernels);
        const used = (await usedByMainJob())[family]!;
        // The main job trains no convolution, so the weight gradient has no default of its own.
        if (family !== "conv2d_grad_weight") expect(used.size).toBeGreaterThan(0);
        const draw = new Draw(7);
        const others = names.filter((n) => !used.has(n));
        const sample = long ? others : Array.from({ length: EXTRA }, () => draw.pick(others));
        // Cells of strided gradients name fewer pixels than the variant they come from.
        const chosen = [...new Set([...used, ...sample])].filter((n) => names.includes(n)).concat(besides);
        const failures: string[] = [];
        for (const name of chosen) {
          const found = await check(family, operation, name, cases);
          if (long) console.log(`${family} ${name}: ${found.length === 0 ? "agrees" : found.join("; ")}`);
          failures.push(...found);
        }
        expect(failures).toEqual([]);
      },
      long ? 1_800_000 : 300_000,
    );
  }
});
