// Products, convolutions and attention on subgroup matrices (tensor cores), in TFLOP/s beside the kernels that compute in f32.
//
// Timestamp queries, the least of several replays; a product's time includes rounding its factors to f16 where that is a
// pass of its own, and adding its parts. Some rows of every product are compared with float64. A GPU gets squares of 1024
// to 8192, the weight shapes of FLUX at 512 rows, stored weights, FLUX's attention and the convolutions of its autoencoder at 1024²; a
// CPU adapter small ones, which show that all of it runs. Options: --json, --replays=7, --only=products|stored|attention|convolutions, --forms=all (every form
// that the adapter can run, not the default alone), --size=4096 (one square).

import { f16ToF32, f32ToF16 } from "../src/base/halves.ts";
import { type CompactStorage, encodeWeight } from "../src/base/quantize.ts";
import { attention } from "../src/ops/attention.ts";
import { attentionMatrices } from "../src/ops/attention_matrix.ts";
import { backward } from "../src/ops/backward.ts";
import { conv2d } from "../src/ops/conv2d.ts";
import { matmul } from "../src/ops/matmul.ts";
import { matrixVariants } from "../src/ops/matmul_matrix.ts";
import { dropFaultyMatrices } from "../src/ops/matrix_check.ts";
import { storedLinear } from "../src/ops/quantized.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import { type Plan, Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import type { Variable } from "../src/tensor/variable.ts";
import { noise } from "./lib/chain.ts";
import {
  describe,
  fixed,
  openBenchGpu,
  printHeader,
  printRows,
  printTable,
  type Row,
  readArguments,
} from "./lib/report.ts";

const args = readArguments();
const replays = Number(args.option("replays", "7"));
const only = args.option("only", "");
const everyForm = args.option("forms", "default") === "all";
const gpu = await openBenchGpu(args);
printHeader("subgroup matrices, TFLOP/s", describe(gpu));
if (!gpu.facts.timestamps) {
  console.log("this adapter has no timestamp queries");
  Deno.exit(1);
}
for (const { size, why } of await dropFaultyMatrices(gpu))
  console.log(`matrices of ${size.m}x${size.n}x${size.k} are left out: ${why}`);
const target = targetOf(gpu);
const { software } = gpu.facts;
const forms = matrixVariants(target.kernels).map(({ name }) => name);
if (forms.length === 0) {
  console.log("this adapter has no f16 matrices with f32 sums");
  Deno.exit(1);
}
const rows: Row[] = [];
const table: string[][] = [];

/** Numbers in [-1, 1), a block of them repeated: making hundreds of millions would take longer than multiplying them. */
function values(count: number, seed: number): Float32Array {
  const block = noise(Math.min(count, (1 << 18) + 11), seed, 1);
  const out = new Float32Array(count);
  for (let at = 0; at < count; at += block.length) out.set(block.subarray(0, Math.min(block.length, count - at)), at);
  return out;
}

/** Least seconds of all calls of a plan. */
async function timed(plan: Plan): Promise<number> {
  await plan.executable!.profile();
  let seconds = Number.POSITIVE_INFINITY;
  for (let i = 0; i < replays; i++) {
    const calls = (await plan.executable!.profile())!;
    seconds = Math.min(
      seconds,
      calls.reduce((a, b) => a + b, 0),
    );
  }
  return seconds;
}

/** A session whose products and attention take the form `name`, "default", or with "f32" none on matrices. */
function sessionFor(name: string): Session {
  return new Session({
    ...target,
    matrices: name === "f32" ? "off" : "all",
    stagedDecoding: true,
    choose: (_family, _key, variants) => (variants.includes(name) ? name : null),
  });
}

interface Product {
  name: string;
  sizes: readonly [M: number, N: number, K: number];
  transA?: boolean;
  transB?: boolean;
  /** Of A and B in memory. */
  types?: readonly ["f32" | "f16", "f32" | "f16"];
  storage?: CompactStorage;
}

/** TFLOP/s of one form; throws where the result is wrong. */
async function measureProduct(p: Product, form: string): Promise<number> {
  const [M, N, K] = p.sizes;
  const session = sessionFor(form);
  const [typeA, typeB] = p.types ?? ["f16", "f16"];
  const [a, b] = [values(M * K, 1), values(N * K, 2)];
  const inputs: [Variable, Float32Array | Uint16Array | Uint32Array][] = [];
  const data = (name: string, shape: number[], dtype: "f32" | "f16", source: Float32Array) => {
    const variable = session.data(name, shape, dtype);
    inputs.push([variable, dtype === "f16" ? f32ToF16(source) : source]);
    return variable;
  };
  const x = data("a", p.transA ? [1, K, M] : [1, M, K], typeA, a);
  const result = session.data("c", [1, M, N]);
  let trace: (graph: Graph, left: Tensor) => Tensor;
  let right = b;
  if (p.storage) {
    const { storage } = p;
    const encoded = encodeWeight("b", storage, b);
    const codes = session.data("codes", [encoded.codes.length], "u32");
    const scales = encoded.scales ? session.data("scales", [encoded.scales.length]) : null;
    inputs.push([codes, encoded.codes]);
    if (scales) inputs.push([scales, encoded.scales!]);
    trace = (_graph, left) =>
      storedLinear(left, { name: "b", storage, shape: [N, K], codes, scales, decoded: form === "f32" ? "f32" : "f16" });
    // Their values are tested elsewhere; the rounding of a storage is no fault of a kernel.
    right = new Float32Array(0);
  } else {
    const y = data("b", p.transB ? [1, N, K] : [1, K, N], typeB, b);
    trace = (graph, left) => matmul(left, graph.read(y), { transposeA: p.transA, transposeB: p.transB });
  }
  const plan = session.plan(p.name, (graph) => graph.assign(result, trace(graph, graph.read(x))));
  try {
    await session.open(gpu);
    for (const [variable, source] of inputs) session.write(variable, source);
    const seconds = await timed(plan);
    if (right.length > 0) {
      const got = new Float32Array(await session.readBits(result, 0, Math.min(2, M) * N));
      checkRows(p, a, b, got);
    }
    return (2 * M * N * K) / seconds / 1e12;
  } finally {
    session.close();
  }
}

/** Compares values of the first rows with float64 of factors rounded to f16. */
function checkRows(p: Product, a: Float32Array, b: Float32Array, got: Float32Array): void {
  const [M, N, K] = p.sizes;
  const half = (x: number) => f16ToF32(f32ToF16(Float32Array.of(x)))[0]!;
  for (let i = 0; i < 48; i++) {
    const row = i % Math.min(2, M);
    const col = (i * 7919) % N;
    let sum = 0;
    let size = 0;
    for (let k = 0; k < K; k++) {
      const term = half(a[p.transA ? k * M + row : row * K + k]!) * half(b[p.transB ? col * K + k : k * N + col]!);
      sum += term;
      size += Math.abs(term);
    }
    if (!(Math.abs(got[row * N + col]! - sum) < 1e-3 * size))
      throw new Error(`${p.name}: [${row}, ${col}] is ${got[row * N + col]}, not ${sum}`);
  }
}

interface Heads {
  heads: number;
  tokens: number;
  headSize: number;
}

/** TFLOP/s forward and backward, counted as 4 and 10 FLOP a score and column as everywhere. */
async function measureAttention({ heads, tokens, headSize }: Heads, form: string): Promise<[number, number]> {
  const session = sessionFor(form);
  const shape = [1, tokens, heads * headSize];
  const variables = ["q", "k", "v"].map((name) => session.data(name, shape, "f16"));
  const seed = session.data("dout", shape);
  const forward = session.plan("forward", (graph) => {
    const [q, k, v] = variables.map((x) => graph.read(x)) as [Tensor, Tensor, Tensor];
    graph.assign(session.data("out", shape), attention(q, k, v, { heads }));
  });
  const both = session.plan("both", (graph) => {
    const leaves = variables.map((x) => graph.read(x, true)) as [Tensor, Tensor, Tensor];
    const y = attention(leaves[0], leaves[1], leaves[2], { heads });
    backward(graph, [[y, graph.read(seed)]], leaves).forEach((g, i) => {
      graph.assign(session.data(`gradient ${i}`, shape), g!);
    });
  });
  try {
    await session.open(gpu);
    variables.forEach((x, i) => session.write(x, f32ToF16(values(x.size, i + 1))));
    session.write(seed, values(seed.size, 4));
    const one = await timed(forward);
    const all = await timed(both);
    const product = 2 * heads * tokens ** 2 * headSize;
    return [(2 * product) / one / 1e12, (5 * product) / (all - one) / 1e12];
  } finally {
    session.close();
  }
}

/** A 3x3 convolution of stride 1 of one square picture. */
interface Convolution {
  channels: number;
  out: number;
  side: number;
}

/** TFLOP/s forward, of the input gradient and of the weight gradient; throws where the result is wrong. */
async function measureConvolution({ channels, out, side }: Convolution, form: string): Promise<number[]> {
  const session = sessionFor(form);
  const x = session.data("x", [1, channels, side, side], "f16");
  const w = session.data("w", [out, channels, 3, 3], "f16");
  const [y, dx, dw] = [
    session.data("y", [1, out, side, side]),
    session.data("dx", x.shape),
    session.data("dw", w.shape),
  ];
  const seed = session.data("dy", y.shape);
  const padding = [1, 1, 1, 1] as const;
  const forward = session.plan("forward", (graph) => {
    graph.assign(y, conv2d(graph.read(x), graph.read(w), { padding }));
  });
  const gradients = ([0, 1] as const).map((which) =>
    session.plan(`gradient ${which}`, (graph) => {
      const leaves = [graph.read(x, which === 0), graph.read(w, which === 1)] as const;
      const result = conv2d(leaves[0], leaves[1], { padding });
      const wanted = leaves[which];
      graph.assign([dx, dw][which]!, backward(graph, [[result, graph.read(seed)]], [wanted])[0]!);
    }),
  );
  try {
    await session.open(gpu);
    const [a, b] = [values(x.size, 1), values(w.size, 2)];
    session.write(x, f32ToF16(a));
    session.write(w, f32ToF16(b));
    session.write(seed, values(seed.size, 3));
    const flops = 2 * out * channels * 9 * side ** 2;
    // The forward pass is no part of a gradient's plan, because nothing there reads its result.
    const seconds: number[] = [];
    for (const plan of [forward, ...gradients]) seconds.push(await timed(plan));
    const got = await session.read(y, 0, side);
    for (let column = 0; column < side; column += 7) checkPixel(a, b, { channels, out, side }, column, got[column]!);
    return seconds.map((time) => flops / time / 1e12);
  } finally {
    session.close();
  }
}

/** Compares a value of the first channel's first row with float64. */
function checkPixel(x: Float32Array, w: Float32Array, { channels, side }: Convolution, at: number, got: number): void {
  const half = (v: number) => f16ToF32(f32ToF16(Float32Array.of(v)))[0]!;
  let [sum, size] = [0, 0];
  for (let c = 0; c < channels; c++) {
    for (let tap = 3; tap < 9; tap++) {
      const [row, column] = [Math.floor(tap / 3) - 1, at + (tap % 3) - 1];
      if (column < 0 || column >= side || row >= side) continue;
      const term = half(x[(c * side + row) * side + column]!) * half(w[c * 9 + tap]!);
      sum += term;
      size += Math.abs(term);
    }
  }
  if (!(Math.abs(got - sum) < 1e-3 * size)) throw new Error(`convolution: column ${at} is ${got}, not ${sum}`);
}

function report(name: string, form: string, ours: number, peer: number | null): void {
  rows.push({ name: `${name} / ${form}`, ours, best_peer: peer, ratio: peer ? ours / peer : null });
  table.push([
    name,
    form,
    fixed(ours, software ? 4 : 1),
    fixed(peer, software ? 4 : 1),
    fixed(peer ? ours / peer : null),
  ]);
  console.error(`${name} / ${form}: ${fixed(ours, software ? 4 : 1)}`);
}

const squares = args.option("size", "")
  ? [Number(args.option("size", ""))]
  : software
    ? [128]
    : [1024, 2048, 4096, 8192];
const HALVES = ["f16", "f16"] as const;
const MIXED = ["f32", "f16"] as const;
const flux: readonly (readonly [M: number, N: number, K: number])[] = software
  ? [[64, 96, 96]]
  : [
      [512, 3072, 3072],
      [512, 12288, 3072],
      [512, 3072, 12288],
    ];
const products: Product[] = [
  ...squares.flatMap((n): Product[] => [
    { name: `${n}³ NN`, sizes: [n, n, n], types: HALVES },
    { name: `${n}³ NT`, sizes: [n, n, n], transB: true, types: HALVES },
    { name: `${n}³ TN`, sizes: [n, n, n], transA: true, types: HALVES },
    { name: `${n}³ NT, left factor f32`, sizes: [n, n, n], transB: true, types: MIXED },
  ]),
  ...flux.flatMap(([M, N, K]): Product[] => [
    { name: `FLUX ${M}x${N}x${K} NT`, sizes: [M, N, K], transB: true, types: MIXED },
    { name: `FLUX ${M}x${K}x${N} NN (dX)`, sizes: [M, K, N], types: MIXED },
  ]),
  ...(software ? [] : [16, 64]).flatMap((rank): Product[] => [
    { name: `rank ${rank} down NT`, sizes: [512, rank, 3072], transB: true, types: MIXED },
    { name: `rank ${rank} up NT`, sizes: [512, 3072, rank], transB: true, types: MIXED },
    { name: `rank ${rank} gradient TN`, sizes: [rank, 3072, 512], transA: true, types: MIXED },
  ]),
];
if (only === "" || only === "products") {
  for (const p of products) {
    const plain = await measureProduct(p, "f32");
    for (const form of everyForm ? ["default", ...forms] : ["default"])
      report(p.name, form, await measureProduct(p, form), plain);
  }
}
if (only === "" || only === "stored") {
  for (const M of software ? [64] : [512, 4608]) {
    const sizes = software ? ([M, 96, 128] as const) : ([M, 3072, 3072] as const);
    const halves = await measureProduct({ name: "f16", sizes, storage: "f16" }, "default");
    report(`stored f16 ${sizes.join("x")}`, "default", halves, null);
    for (const storage of ["bf16", "int8", "nf4"] as const)
      report(
        `stored ${storage} against f16 ${sizes.join("x")}`,
        "default",
        await measureProduct({ name: storage, sizes, storage }, "default"),
        halves,
      );
  }
}
if (only === "" || only === "attention") {
  const shapes: Heads[] = software
    ? [{ heads: 2, tokens: 96, headSize: 16 }]
    : [
        { heads: 24, tokens: 4608, headSize: 128 },
        { heads: 24, tokens: 2537, headSize: 128 },
        { heads: 16, tokens: 4096, headSize: 64 },
      ];
  for (const s of shapes) {
    const name = `attention ${s.heads} heads, ${s.tokens} tokens, ${s.headSize}`;
    const plain = await measureAttention(s, "f32");
    const own = attentionMatrices("forward", target.kernels, s.headSize).map((f) => f.name);
    for (const form of everyForm ? ["default", ...own] : ["default"]) {
      const ours = await measureAttention(s, form);
      report(`${name} forward`, form, ours[0], plain[0]);
      report(`${name} backward`, form, ours[1], plain[1]);
    }
  }
}
if (only === "" || only === "convolutions") {
  // The autoencoder's decoder at 1024²: 512 channels from 128², 256 and 128 at the end.
  const shapes: Convolution[] = software
    ? [{ channels: 16, out: 16, side: 16 }]
    : [
        { channels: 512, out: 512, side: 128 },
        { channels: 512, out: 512, side: 256 },
        { channels: 512, out: 256, side: 512 },
        { channels: 256, out: 128, side: 1024 },
        { channels: 128, out: 128, side: 1024 },
      ];
  for (const s of shapes) {
    const plain = await measureConvolution(s, "f32");
    for (const form of everyForm ? ["default", ...forms] : ["default"]) {
      const ours = await measureConvolution(s, form);
      ["forward", "input gradient", "weight gradient"].forEach((pass, i) => {
        report(`conv 3x3 ${s.channels} to ${s.out}, ${s.side}² ${pass}`, form, ours[i]!, plain[i]!);
      });
    }
  }
}
printTable(["task", "form", "matrices", "f32 kernels or f16", "ratio"], table);
printRows(args, rows);
gpu.close();
Deno.exit(0);
