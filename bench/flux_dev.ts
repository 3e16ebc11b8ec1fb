// One rollout step and one Direct-Align branch of a model of FLUX.1-dev's shape, its blocks streamed: seconds, bytes, memory.
//
// The transformer has 19 + 38 blocks, width 3072 and 11.9 B parameters, which a counter makes (src/models/flux/streamed/
// generated.ts), so no file of 24 GB is needed. The branch injects noise, predicts a velocity, moves, recovers the latent,
// decodes 64 x 64 pixels with an AutoencoderKL of FLUX's widths, and goes back through decoder and transformer to a LoRA on
// diffusers' targets. Memory is counted as bench/memory.ts does. Options: --json, --storage=bf16|nf4|int8|f16, --slots=2+2,
// --blocks=19+38, --width=3072, --rank=16, --text=16, --rows=4, --columns=4, --spill=yes.

import type { Storage } from "../src/base/quantize.ts";
import type { FluxConfig } from "../src/models/flux/config.ts";
import { positionIds, ropeTables, sinusoids } from "../src/models/flux/embeddings.ts";
import { GeneratedBlocks } from "../src/models/flux/streamed/generated.ts";
import { StreamedFlux } from "../src/models/flux/streamed/streamed.ts";
import { Autoencoder } from "../src/models/vae/autoencoder.ts";
import { Adapter, chooseAdapters } from "../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../src/nn/parameters.ts";
import { backward } from "../src/ops/backward.ts";
import { add, affine, clamp, full, mul, sub } from "../src/ops/pointwise.ts";
import { meanAll } from "../src/ops/reduce.ts";
import { softwareDeviceBytes } from "../src/platform/device_memory.ts";
import { residentBytes } from "../src/platform/environment.ts";
import { Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import type { Variable } from "../src/tensor/variable.ts";
import { branchScalars } from "../src/training/srpo/steps.ts";
import { noise } from "./lib/chain.ts";
import { generatedSource } from "./lib/generated_source.ts";
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
const whole = (name: string, fallback: string) => Number(args.option(name, fallback));
const pair = (name: string, fallback: string) => args.option(name, fallback).split("+").map(Number) as [number, number];
const storage = args.option("storage", "bf16") as Storage;
const [doubleBlocks, singleBlocks] = pair("blocks", "19+38");
const [double, single] = pair("slots", "2+2");
const width = whole("width", "3072");
const [rank, text] = [whole("rank", "16"), whole("text", "16")];
const [rows, columns] = [whole("rows", "4"), whole("columns", "4")];
const spill = args.option("spill", "no") === "yes";
const HEAD = 128;
const config: FluxConfig = {
  inChannels: 64,
  outChannels: 64,
  doubleBlocks,
  singleBlocks,
  headSize: HEAD,
  heads: width / HEAD,
  width,
  jointWidth: 4096,
  pooledWidth: 768,
  guidance: true,
  ropeAxes: [16, 56, 56],
  ropeTheta: 10000,
  mlpRatio: 4,
};
/** From this noise level back to that one, as a branch early in a schedule does it. */
const [FROM, TO] = [0.7, 0.6];

const gpu = await openBenchGpu(args);
printHeader(
  `a FLUX.1 transformer of ${doubleBlocks} + ${singleBlocks} blocks, width ${width}, streamed as ${storage} through ${double} + ${single} slots`,
  describe(gpu),
);
const started = performance.now();
const session = new Session(targetOf(gpu));
const model = new StreamedFlux(session, config, { storage, slots: { double, single } });
const { parameters } = model;
const adapter = new Adapter(
  session,
  parameters,
  chooseAdapters(parameters, { targets: "diffusers", rank, alpha: rank }),
);
const gradients = session.adopt(adapter.pool.twin("gradients", "gradients", ".gradient"));
adapter.pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
const pass = model.pass({ name: "flux", batch: 1, textTokens: text, imageTokens: rows * columns, training: true, spill });
const vaeParameters = new Parameters(session.pool("autoencoder", "weights"));
const vae = new Autoencoder(
  vaeParameters,
  { kind: "kl", scale: 0.3611, shift: 0.1159, config: {} },
  { decoder: true },
);

const latentShape = pass.latents.shape;
const clean = session.data("clean", latentShape);
const start = session.data("noise", latentShape);
const scalars = Object.fromEntries(
  ["from", "keep", "move", "to", "recover", "step"].map((name): [string, Variable] => [name, session.data(name, [1])]),
);
const loss = session.data("loss", [1]);
const scalar = (name: string) => scalars[name]!;
const euler = session.plan("euler step", (graph) => {
  const moved = mul(graph.read(pass.velocity), graph.read(scalar("step")));
  graph.assign(clean, add(moved, graph.read(pass.latents)));
});
const inject = session.plan("inject", (graph) => {
  const mixed = mul(graph.read(clean), graph.read(scalar("keep")));
  graph.assign(pass.latents, add(mul(graph.read(start), graph.read(scalar("from"))), mixed));
});
const judge = session.plan("recover and decode", (graph) => {
  const velocity = graph.read(pass.velocity, true);
  const moved = add(mul(velocity, graph.read(scalar("move"))), graph.read(pass.latents));
  const recovered = mul(sub(moved, mul(graph.read(start), graph.read(scalar("to")))), graph.read(scalar("recover")));
  const pictures = clamp(affine(vae.decode(graph, recovered, rows, columns), 0.25, 0.5), 0, 1);
  const value = meanAll(pictures);
  graph.assign(loss, value);
  const [gradient] = backward(graph, [[value, full(graph, value.shape, 1)]], [velocity]);
  graph.assign(pass.velocityGradient!, gradient!);
});
const traced = performance.now();
await session.open(gpu);
const opened = performance.now();
const source = new GeneratedBlocks(parameters.tensors, { seed: 1 });
await model.load(source);
await loadParameters(session, vaeParameters, generatedSource(vaeParameters.tensors, 2));
adapter.initialise(session, 1);
session.clear(gradients);
const random = (variable: Variable, seed: number, scale = 1.7) =>
  session.write(variable, noise(variable.size, seed, scale));
random(pass.latents, 1);
random(start, 2);
random(pass.states, 3, 0.3);
random(pass.pooled, 4);
const { cosine, sine } = ropeTables(positionIds(text, rows, columns), config.ropeAxes, config.ropeTheta);
session.write(pass.cosine, cosine);
session.write(pass.sine, sine);
session.write(pass.time, sinusoids([1]));
session.write(pass.guidance!, sinusoids([3.5]));
const branch = branchScalars(FROM, TO);
for (const [name, value] of Object.entries({ ...branch, step: -0.3 })) session.write(scalar(name), Float32Array.of(value));
await session.finish();
const loaded = performance.now();

interface Part {
  name: string;
  seconds: number;
  gigabytes: number;
  filling: number;
  waiting: number;
  flops: number;
}
const parts: Part[] = [];
const { times } = model.ring;
async function timed(name: string, flops: number, body: () => Promise<void>): Promise<void> {
  const before = { ...times };
  const from = performance.now();
  await body();
  await session.finish();
  parts.push({
    name,
    seconds: (performance.now() - from) / 1e3,
    gigabytes: (times.bytes - before.bytes) / 1e9,
    filling: (times.filling - before.filling) / 1e3,
    waiting: (times.waiting - before.waiting) / 1e3,
    flops,
  });
}
const flopsOf = (plans: Iterable<{ flops: number }>) => [...plans].reduce((sum, plan) => sum + plan.flops, 0);
const forwardFlops = flopsOf(pass.forwardPlans.values());
await timed("rollout step", forwardFlops, async () => {
  await pass.forward();
  session.run(euler);
});
session.write(pass.time, sinusoids([FROM]));
await timed("branch: inject, velocity", forwardFlops, async () => {
  session.run(inject);
  await pass.forward();
});
await timed("branch: recover, decode, back to v", judge.flops, () => Promise.resolve(session.run(judge)));
await timed("branch: back to the LoRA", flopsOf(pass.backwardPlans.values()), () => pass.backward());

let squares = 0;
let finite = true;
for (const v of gradients.variables) {
  // The second factors begin at zero, so theirs are the gradients that are not.
  if (!v.name.includes("lora_B")) continue;
  for (const x of await session.read(v)) squares += x * x;
}
const velocity = await session.read(pass.velocity);
finite = velocity.every(Number.isFinite) && Number.isFinite(squares);
const memory = session.memory();
const counted = softwareDeviceBytes();
const resident = residentBytes();
const seconds = (a: number, b: number) => (b - a) / 1e3;
printTable(
  ["part", "s", "GB streamed", "GB/s", "host filling, s", "waiting, s", "GFLOP/s"],
  parts.map((p) => [
    p.name,
    fixed(p.seconds),
    fixed(p.gigabytes),
    fixed(p.gigabytes / p.seconds),
    fixed(p.filling),
    fixed(p.waiting),
    fixed(p.flops / p.seconds / 1e9, 1),
  ]),
);
const gib = (bytes: number | null) => fixed(bytes === null ? null : bytes / 2 ** 30, 3);
const total = parts.reduce((sum, p) => sum + p.seconds, 0);
console.log(`
${(parameters.count / 1e9).toFixed(3)} B parameters, ${(adapter.pool.bytes / 4e6).toFixed(1)} M of the LoRA
traced in ${fixed(seconds(started, traced))} s (${session.plans.length} plans, ${session.plans.filter((p) => p.like).length} of them share another's kernels and places), opened in ${fixed(seconds(traced, opened))} s, loaded in ${fixed(seconds(opened, loaded))} s
device memory, GiB: planned ${gib(memory.total)} (weights ${gib(memory.variables.weights)}, adapter and gradients ${gib(memory.variables.adapter + memory.variables.gradients)}, inputs ${gib(memory.variables.data)}, arena ${gib(memory.arena)} of ${memory.largestPlan}, uploads ${gib(memory.staging)}), counted ${gib(counted)}
process resident, GiB: ${gib(resident)}
loss ${(await session.read(loss))[0]}, gradient norm ${Math.sqrt(squares).toExponential(3)}, ${finite ? "all finite" : "NOT FINITE"}
all parts ${fixed(total)} s, with loading ${fixed(seconds(started, performance.now()))} s`);
const result: Row[] = parts.map((p) => ({ name: p.name, ours: p.seconds, best_peer: null, ratio: null }));
result.push({ name: "device memory, planned against counted", ours: counted ?? Number.NaN, best_peer: memory.total, ratio: counted ? counted / memory.total : null });
result.push({ name: "process resident, GiB", ours: resident / 2 ** 30, best_peer: null, ratio: null });
printRows(args, result);
Deno.exit(finite ? 0 : 1);
