// Kernels that are bound by memory, in GB/s and as a share of the fastest copy of the same run (goal 70 %).
//
// Bytes are those that the mathematics must read and write at least; times are the device's own where it has timestamps,
// the least of several. A software adapter shares its cores with everything else on the machine: there the share is that
// of CPU time, and the second speed is as if all cores had worked on nothing else. Options: --json, --tokens=2304, --width=1024, --seconds=0.4 a kernel, --only=norm (part of a name).

import process from "node:process";
import { measureTask, type Timing } from "../src/cli/bench/measure.ts";
import { COPIES, memoryBoundSizes, memoryBoundTasks } from "../src/cli/bench/memory_bound.ts";
import { describe, fixed, openBenchGpu, printHeader, printRows, printTable, readArguments } from "./lib/report.ts";

const GOAL = 0.7;

const args = readArguments();
const gpu = await openBenchGpu(args);
const usual = memoryBoundSizes(gpu.facts.software);
const sizes = {
  ...usual,
  tokens: Number(args.option("tokens", String(usual.tokens))),
  width: Number(args.option("width", String(usual.width))),
};
const seconds = Number(args.option("seconds", "0.4"));
const only = args.option("only", "");
const mib = (4 * sizes.batch * sizes.tokens * sizes.width) / 2 ** 20;
printHeader(`kernels bound by memory, tensors [${Object.values(sizes).join(", ")}] of ${mib} MiB`, describe(gpu));

const { software } = gpu.facts;
const cores = navigator.hardwareConcurrency;
const usage = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const timings: Timing[] = [];
for (const task of memoryBoundTasks(sizes)) {
  if (COPIES.includes(task.name) || task.name.includes(only))
    timings.push(...(await measureTask(gpu, task, seconds, software ? usage : undefined)));
}
const byClock = (timing: Timing) => timing.bytes! / timing.seconds;
const speed = (timing: Timing) => (timing.work === null ? byClock(timing) : (timing.bytes! / timing.work) * cores);
const copy = Math.max(...timings.filter(({ name }) => COPIES.includes(name)).map(speed));
printTable(
  ["kernel", "ms", "GB/s", ...(software ? ["GB/s by CPU time"] : []), "of the fastest copy"],
  timings.map((t) => [
    t.name,
    fixed(t.seconds * 1e3),
    fixed(byClock(t) / 1e9),
    ...(software ? [fixed(speed(t) / 1e9)] : []),
    `${fixed((100 * speed(t)) / copy, 0)} %${speed(t) < GOAL * copy && !COPIES.includes(t.name) ? "  below" : ""}`,
  ]),
);
const others = timings.filter(({ name }) => !COPIES.includes(name));
console.log(`\n${others.filter((t) => speed(t) >= GOAL * copy).length} of ${others.length} at ${100 * GOAL} % or more`);
printRows(
  args,
  timings.map((t) => ({ name: t.name, ours: speed(t) / 1e9, best_peer: copy / 1e9, ratio: speed(t) / copy })),
);
gpu.close();
Deno.exit(0);
