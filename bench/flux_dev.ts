// One SRPO update of a model of FLUX.1-dev's shape, its blocks streamed, by the trainer of `longtail align`: seconds, bytes, memory.
//
// The transformer has 19 + 38 blocks, width 3072 and 11.9 B parameters, which a counter makes (src/models/flux/streamed/
// generated.ts), so no file of 24 GB is needed. The update has one rollout step and one Direct-Align branch, which decodes 64 x
// 64 pixels with an AutoencoderKL of FLUX's widths, scores them with the embedded reward, and goes back to a LoRA on diffusers'
// targets. Memory is counted as bench/memory.ts does. Options: --json, --storage=bf16|nf4|int8|f16, --slots=2+2,
// --blocks=19+38, --width=3072, --rank=16, --text=16, --rows=4, --columns=4.

import type { Storage } from "../src/base/quantize.ts";
import { softwareDeviceBytes } from "../src/platform/device_memory.ts";
import { residentBytes } from "../src/platform/environment.ts";
import { type FluxTask, runFluxJob } from "./lib/flux_job.ts";
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
const [doubleBlocks, singleBlocks] = pair("blocks", "19+38");
const [double, single] = pair("slots", "2+2");
const task: FluxTask = {
  width: whole("width", "3072"),
  doubleBlocks,
  singleBlocks,
  storage: args.option("storage", "bf16") as Storage,
  slots: { double, single },
  rank: whole("rank", "16"),
  text: whole("text", "16"),
  rows: whole("rows", "4"),
  columns: whole("columns", "4"),
};
const gpu = await openBenchGpu(args);
const { width, storage, text, rows, columns } = task;
printHeader(
  `a FLUX.1 transformer of ${doubleBlocks} + ${singleBlocks} blocks, width ${width}, ${text} + ${rows * columns} tokens, streamed as ${storage} through ${double} + ${single} slots`,
  describe(gpu),
);
const started = performance.now();
const job = await runFluxJob(gpu, task);
const total = (performance.now() - started) / 1e3;
const counted = softwareDeviceBytes();
const resident = residentBytes();
const { parts, memory, report } = job;
printTable(
  ["part", "s", "GB streamed", "GB/s", "host filling, s", "waiting, s", "GFLOP/s"],
  parts.map((p) => [
    p.name,
    fixed(p.seconds),
    fixed(p.bytes / 1e9),
    fixed(p.bytes / 1e9 / p.seconds),
    fixed(p.filling),
    fixed(p.waiting),
    fixed(p.flops / p.seconds / 1e9, 1),
  ]),
);
const gib = (bytes: number | null) => fixed(bytes === null ? null : bytes / 2 ** 30, 3);
const { weights, adapter, gradients, data } = memory.variables;
console.log(`
${fixed(job.parameters / 1e9, 3)} B parameters, ${fixed(job.adapterParameters / 1e6, 1)} M of the LoRA
traced in ${fixed(job.tracing)} s (${job.plans} plans, ${job.sharedPlans} of them share another's kernels and places), opened in ${fixed(job.opening)} s, loaded in ${fixed(job.loading)} s
device memory, GiB: planned ${gib(memory.total)} (weights ${gib(weights)}, adapter and gradients ${gib(adapter + gradients)}, inputs ${gib(data)}, arena ${gib(memory.arena)} of ${memory.largestPlan}, tables ${gib(memory.uniforms + memory.bindings)}, uploads ${gib(memory.staging)}), counted ${gib(counted)}
process resident, GiB: ${gib(resident)}
loss ${report.loss}, reward ${report.reward}, norm of the LoRA's gradient ${report.gradientNorm.toExponential(3)}, its update ${report.updateRatio.toExponential(3)} of it, ${report.finite ? "all finite" : "NOT FINITE"}
the update ${fixed(job.seconds)} s, with everything before ${fixed(total)} s`);
const result: Row[] = parts.map((p) => ({ name: p.name, ours: p.seconds, best_peer: null, ratio: null }));
const device = { ours: counted ?? Number.NaN, best_peer: memory.total, ratio: counted && counted / memory.total };
result.push({ name: "device memory, counted against planned", ...device });
result.push({ name: "process resident, GiB", ours: resident / 2 ** 30, best_peer: null, ratio: null });
printRows(args, result);
Deno.exit(report.finite ? 0 : 1);
