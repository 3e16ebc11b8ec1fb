// Host time of replayed plans against a bare loop of setPipeline, setBindGroup and dispatch; their submits and their garbage.
//
// The plans are those of the main job: a step of the rollout, a micro-step, a whole update as the trainer submits it (six,
// two, and the optimizer), and a thousand tiny kernels. First they run as they are, which shows the device time and sets how
// much a submit holds; then their grids are set to zero, so that the device has nothing to do. Both loops use the same
// pipelines, bind groups and grids, in turns, and are timed until submit returns. The heap is counted after collections.
// Options: --json, --rounds=60, --steps=1000, --gpu=deno.

import type { Gpu } from "../src/gpu/device.ts";
import { matmul } from "../src/ops/matmul.ts";
import { rmsNorm } from "../src/ops/norm.ts";
import type { Executable } from "../src/tensor/executable.ts";
import { type Plan, Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import { heapUsed } from "../tests/helpers/heap.ts";
import { noise } from "./lib/chain.ts";
import { mainJob, SETTINGS } from "./lib/main_job.ts";
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

const GOAL = 1.2;
/** As many submits as a step may make, or one for so much device time, whichever is more. */
const LEAST_SUBMITS = 8;
const SUBMIT_MS = 50;

/** What the executable holds; a benchmark may look inside. */
interface Inside {
  pipelines: GPUComputePipeline[];
  groups: GPUBindGroup[];
  grids: Uint32Array;
}

const args = readArguments();
const rounds = Number(args.option("rounds", "60"));
const steps = Number(args.option("steps", "1000"));
const gpu = await openBenchGpu(args);
printHeader(`host time of a replayed step / a bare loop over the same objects (goal at most ${GOAL})`, describe(gpu));

function inside(executable: Executable): Inside {
  return executable as unknown as Inside;
}

/** The least that a program can do to run these dispatches: nothing is allocated but the encoder. */
function bareLoop({ device }: Gpu, plans: readonly Inside[]): void {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const { pipelines, groups, grids } of plans) {
    const count = pipelines.length;
    for (let i = 0; i < count; i++) {
      pass.setPipeline(pipelines[i]!);
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroups(grids[i * 3]!, grids[i * 3 + 1]!, grids[i * 3 + 2]!);
    }
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
}

/** Milliseconds on the host of one `step`. */
function time(step: () => void): number {
  const start = performance.now();
  step();
  return performance.now() - start;
}

/** KiB that the heap grew by over `count` steps, garbage collected before and after. */
async function growth(session: Session, count: number, step: () => void): Promise<number> {
  const walk = async (times: number) => {
    for (let i = 0; i < times; i++) {
      step();
      if (i % 20 === 19) await session.finish();
    }
    await session.finish();
  };
  // What is made once, such as compiled code, is no growth.
  await walk(100);
  const before = heapUsed();
  await walk(count);
  return (heapUsed() - before) / 1024;
}

const rows: Row[] = [];
const table: string[][] = [];

async function measure(name: string, session: Session, plans: readonly Plan[], deviceMs: number): Promise<void> {
  const ours = () => {
    for (const plan of plans) session.run(plan);
  };
  const objects = plans.map((plan) => inside(plan.executable!));
  const bare = () => bareLoop(gpu, objects);
  const times: { ours: number[]; bare: number[] } = { ours: [], bare: [] };
  for (let round = -5; round < rounds; round++) {
    // The order changes, so that neither always has the warmer cache.
    for (const which of round % 2 === 0 ? (["ours", "bare"] as const) : (["bare", "ours"] as const)) {
      const ms = time(which === "ours" ? ours : bare);
      if (round >= 0) times[which].push(ms);
      await session.finish();
    }
  }
  const calls = plans.reduce((sum, plan) => sum + plan.lowered.calls.length, 0);
  const submits = plans.reduce((sum, plan) => sum + plan.executable!.submits, 0);
  const allowed = Math.max(LEAST_SUBMITS, Math.ceil(deviceMs / SUBMIT_MS));
  const [a, b] = [median(times.ours), median(times.bare)];
  const [left, leftBare] = [await growth(session, steps, ours), await growth(session, steps, bare)];
  rows.push({ name: `${name}: host ms`, ours: a, best_peer: b, ratio: a / b });
  rows.push({
    name: `${name}: submits, of those allowed`,
    ours: submits,
    best_peer: allowed,
    ratio: submits / allowed,
  });
  rows.push({ name: `${name}: heap growth KiB in ${steps} steps`, ours: left, best_peer: leftBare, ratio: null });
  table.push([
    name,
    String(calls),
    deviceMs > 0 ? fixed(deviceMs, 1) : "-",
    `${submits} of ${allowed}`,
    fixed(a, 3),
    fixed(b, 3),
    fixed(a / b, 3),
    fixed((a / calls) * 1e3, 2),
    `${fixed(left, 0)} / ${fixed(leftBare, 0)}`,
  ]);
}

const tiny = new Session(targetOf(gpu));
const x = tiny.data("x", [8, 8]);
const w = tiny.data("w", [8, 8]);
const gain = tiny.data("gain", [8]);
const y = tiny.data("y", [8, 8]);
const tinyPlan = tiny.plan("tiny", (graph) => {
  let value = graph.read(x);
  // Two kernels in turn, so that every dispatch changes the pipeline.
  for (let i = 0; i < 500; i++) value = rmsNorm(matmul(value, graph.read(w)), 1e-6, graph.read(gain));
  graph.assign(y, value);
});
await tiny.open(gpu);
for (const [i, v] of [x, w, gain].entries()) tiny.write(v, noise(v.size, i + 1, 1));
await measure("tiny kernels", tiny, [tinyPlan], 0);
tiny.close();

const { session, trainer } = await mainJob(targetOf(gpu));
await session.open(gpu);
const { rollout, micro, optimizer } = trainer.plans;
const once = (plans: readonly Plan[]) => async () => {
  for (const plan of plans) session.run(plan);
  await session.finish();
};
/** Milliseconds of the device for one replay: the least of three, which a busy machine disturbs least. */
async function deviceTime(plans: readonly Plan[]): Promise<number> {
  const run = once(plans);
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 4; i++) {
    const start = performance.now();
    await run();
    if (i > 0) least = Math.min(least, performance.now() - start);
  }
  return least;
}
const [step] = rollout!.plans as [Plan];
const [branch] = micro.plans as [Plan];
const update = [
  ...Array.from({ length: SETTINGS.rolloutSteps }, () => step),
  ...SETTINGS.branches.map(() => branch),
  optimizer,
];
const cases: [string, readonly Plan[]][] = [
  ["rollout step", [step]],
  ["micro-step", [branch]],
  ["update", update],
];
const device = new Map<string, number>();
for (const [name, plans] of cases) device.set(name, await deviceTime(plans));
// As the trainer does after its first updates.
const rate = update.reduce((sum, plan) => sum + plan.flops, 0) / (device.get("update")! / 1000);
for (const plan of new Set(update)) {
  plan.executable!.setRate(rate);
  inside(plan.executable!).grids.fill(0);
}
for (const [name, plans] of cases) await measure(name, session, plans, device.get(name)!);
session.close();

printTable(
  ["plan", "dispatches", "device ms", "submits", "ours ms", "bare ms", "ratio", "us/dispatch", `heap KiB in ${steps}`],
  table,
);
console.log("heap: what it grew by, ours / bare loop");
const worst = Math.max(...rows.filter((r) => r.name.endsWith("host ms")).map((r) => r.ratio!));
console.log(`worst ${fixed(worst, 3)}: ${worst <= GOAL ? "within" : "above"} the goal of ${GOAL}`);
printRows(args, rows);
Deno.exit(0);
