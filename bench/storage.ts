// Storage of frozen weights: bytes, time of a LoRA training step at batch 8, and errors of output and gradients, by storage.
//
// The embedded transformer with a LoRA of rank 16; all cases run in turn, medians. The decoder alone is timed by timestamp
// queries on a large matrix, against a copy of as many f32 values, in bytes read and written a second. Options: --json,
// --rounds=7, --batch=8.

import { encodeWeight, QUANTIZATION_BLOCK, quantizeInt8, type Storage } from "../src/base/quantize.ts";
import { Safetensors } from "../src/formats/safetensors.ts";
import { fluxConfig } from "../src/models/flux/config.ts";
import { readJson, tensorSource } from "../src/models/weights_file.ts";
import { Parameters } from "../src/nn/parameters.ts";
import { type Decoded, decodeMatrix, type StoredMatrix } from "../src/ops/quantized.ts";
import { projectFolder } from "../src/platform/environment.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import { decodeWeight } from "../tests/helpers/decode_weight.ts";
import { noise } from "./lib/chain.ts";
import {
  describe,
  fixed,
  median,
  openBenchGpu,
  printHeader,
  printRows,
  printTable,
  type Row,
  readArguments,
} from "./lib/report.ts";
import { type StoredTransformer, storedTransformer } from "./lib/stored_transformer.ts";

const CASES: readonly { storage: Storage; decoded?: Decoded }[] = [
  { storage: "f32" },
  { storage: "f16" },
  { storage: "bf16" },
  { storage: "int8" },
  { storage: "nf4" },
  { storage: "nf4", decoded: "f16" },
];
const COMPACT = ["f16", "bf16", "int8", "nf4"] as const;

const args = readArguments();
const rounds = Number(args.option("rounds", "7"));
const batch = Number(args.option("batch", "8"));
const gpu = await openBenchGpu(args);
const target = targetOf(gpu);
printHeader(`frozen weights by storage, embedded transformer, LoRA of rank 16, batch ${batch}`, describe(gpu));

const files = new DiskFiles();
const folder = `${projectFolder}/models/embedded/transformer`;
const config = fluxConfig(await readJson(files, `${folder}/config.json`), folder);
const file = await Safetensors.open(files, `${folder}/diffusion_pytorch_model.safetensors`);
const source = tensorSource(file);
const rows: Row[] = [];

/** ‖a − b‖ / ‖b‖ */
function distance(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

interface Result {
  name: string;
  bytes: number;
  arena: number;
  output: Float32Array;
  gradients: Float32Array;
  times: number[];
  world: StoredTransformer;
}

async function prepare({ storage, decoded }: (typeof CASES)[number]): Promise<Result> {
  const world = storedTransformer(target, { config, storage, decoded, batch, text: 20, side: 4, rank: 16 });
  const { session, step, trained } = world;
  await session.open(gpu);
  await world.load(source);
  session.run(step);
  await session.finish();
  const gradients: number[] = [];
  for (const v of trained) gradients.push(...(await session.read(v.gradient!)));
  return {
    name: decoded ? `${storage}, decoded as ${decoded}` : storage,
    bytes: session.memory().variables.weights,
    arena: session.memory().arena,
    output: await session.read(world.output),
    gradients: Float32Array.from(gradients),
    times: [],
    world,
  };
}

async function measureSteps(): Promise<void> {
  const results: Result[] = [];
  for (const one of CASES) if (one.decoded !== "f16" || target.f16) results.push(await prepare(one));
  for (let i = 0; i < rounds; i++) {
    for (const { world, times } of results) {
      const start = performance.now();
      world.session.run(world.step);
      await world.session.finish();
      times.push(performance.now() - start);
    }
  }
  const plain = results[0]!;
  const table = results.map((r) => {
    const time = median(r.times);
    rows.push({ name: `${r.name} step ms`, ours: time, best_peer: null, ratio: median(plain.times) / time });
    return [
      r.name,
      fixed(r.bytes / 2 ** 20),
      `${fixed((100 * r.bytes) / plain.bytes, 1)} %`,
      fixed(r.arena / 2 ** 20, 1),
      fixed(time, 1),
      fixed(time / median(plain.times)),
      distance(r.output, plain.output).toExponential(1),
      distance(r.gradients, plain.gradients).toExponential(1),
    ];
  });
  printTable(
    ["storage", "weights MiB", "of f32", "arena MiB", "step ms", "of f32", "error of output", "of gradients"],
    table,
  );
  for (const { world } of results) world.session.close();
}

/** Errors of the weights themselves, over all matrices of the model. */
async function measureErrors(): Promise<void> {
  const errors = new Map<string, number>();
  let norm = 0;
  for (const name of source.names()) {
    const shape = source.shape(name);
    if (shape.length !== 2) continue;
    const values = await source.load(name);
    const note = (label: string, decoded: (i: number) => number) => {
      let sum = errors.get(label) ?? 0;
      values.forEach((v, i) => (sum += (decoded(i) - v) ** 2));
      errors.set(label, sum);
    };
    values.forEach((v) => (norm += v * v));
    for (const storage of COMPACT) {
      const decoded = decodeWeight(storage, encodeWeight(name, storage, values), values.length);
      note(`${storage}${storage === "int8" ? `, a scale for ${QUANTIZATION_BLOCK} values` : ""}`, (i) => decoded[i]!);
    }
    const width = shape[1]!;
    const { codes, scales } = quantizeInt8(values, width);
    note("int8, a scale a row", (i) => codes[i]! * scales[Math.floor(i / width)]!);
  }
  console.log("");
  printTable(
    ["relative error of the weights", ""],
    [...errors].map(([label, sum]) => [label, Math.sqrt(sum / norm).toExponential(2)]),
  );
}

/** Bytes a second of the decoder, against a copy. */
async function measureDecoder(): Promise<void> {
  if (!gpu.facts.timestamps) return console.log("\nthis adapter has no timestamp queries: the decoder is not timed");
  const side = gpu.facts.software ? 2048 : 8192;
  const session = new Session(target);
  const values = noise(side * side, 1, 1);
  const from = session.data("from", [side, side]);
  const to = session.data("to", [side, side]);
  const matrices: StoredMatrix[] = [];
  const plans = [session.plan("copy", (graph) => graph.assign(to, graph.read(from)))];
  for (const storage of COMPACT) {
    const parameters = new Parameters(session.pool(storage, "weights"), { storage });
    const matrix = parameters.matrix("weight", [side, side]) as StoredMatrix;
    matrices.push(matrix);
    plans.push(session.plan(storage, (graph) => graph.assign(to, decodeMatrix(graph, matrix))));
  }
  await session.open(gpu);
  for (const matrix of matrices) {
    const { codes, scales } = encodeWeight(matrix.name, matrix.storage, values);
    session.write(matrix.codes, codes);
    if (matrix.scales) session.write(matrix.scales, scales!);
  }
  const least = plans.map(() => Number.POSITIVE_INFINITY);
  for (let i = 0; i < 5 * rounds; i++) {
    for (const [k, plan] of plans.entries())
      least[k] = Math.min(
        least[k]!,
        (await plan.executable!.profile())!.reduce((a, b) => a + b, 0),
      );
  }
  const speeds = plans.map((plan, k) => plan.lowered.calls.reduce((n, c) => n + c.bytes, 0) / least[k]! / 1e9);
  const table = plans.map((plan, k) => {
    const ratio = speeds[k]! / speeds[0]!;
    rows.push({ name: `decode ${plan.name} GB/s`, ours: speeds[k]!, best_peer: speeds[0]!, ratio });
    return [plan.name, fixed(least[k]! * 1e3), fixed(speeds[k], 1), fixed(ratio), fixed(side ** 2 / least[k]! / 1e9)];
  });
  console.log("");
  printTable([`decoder, ${side} x ${side}`, "ms", "GB/s", "of a copy", "values/ns"], table);
  session.close();
}

await measureSteps();
await measureErrors();
await measureDecoder();
printRows(args, rows);
Deno.exit(0);
