// Host time of replaying a plan of about 1000 dispatches, against a bare loop of setPipeline, setBindGroup and dispatch.
//
// Both loops use the same pipelines, bind groups and grids, in turn, and are timed until submit returns; the device is
// waited for between them, outside of the time. Two plans: a thousand tiny kernels, and the main job's micro-step with its
// grids set to zero, so that the device has nothing to do. Garbage is what the JavaScript heap grew by between samples.
// Options: --json, --rounds=60, --steps=1000.

import type { Gpu } from "../src/gpu/device.ts";
import { matmul } from "../src/ops/matmul.ts";
import { rmsNorm } from "../src/ops/norm.ts";
import type { Executable } from "../src/tensor/executable.ts";
import { type Plan, Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import { noise } from "./lib/chain.ts";
import { mainJob } from "./lib/main_job.ts";
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

const GOAL = 1.3;

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
printHeader("host time of a replayed step / a bare loop over the same objects (goal at most 1.3)", describe(gpu));

function inside(executable: Executable): Inside {
  return executable as unknown as Inside;
}

/** The least that a program can do to run these dispatches: nothing is allocated but the encoder. */
function bareLoop({ device }: Gpu, { pipelines, groups, grids }: Inside): void {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  const count = pipelines.length;
  for (let i = 0; i < count; i++) {
    pass.setPipeline(pipelines[i]!);
    pass.setBindGroup(0, groups[i]!);
    pass.dispatchWorkgroups(grids[i * 3]!, grids[i * 3 + 1]!, grids[i * 3 + 2]!);
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

/** Bytes that `count` steps leave on the heap for the collector, for each step, and the growth from first to last sample. */
async function garbage(session: Session, count: number, step: () => void): Promise<{ made: number; growth: number }> {
  const first = Deno.memoryUsage().heapUsed;
  let before = first;
  let made = 0;
  for (let i = 0; i < count; i++) {
    step();
    if (i % 20 !== 19) continue;
    await session.finish();
    const now = Deno.memoryUsage().heapUsed;
    made += Math.max(0, now - before);
    before = now;
  }
  return { made: made / count, growth: before - first };
}

const rows: Row[] = [];
const table: string[][] = [];

async function measure(name: string, session: Session, plan: Plan): Promise<void> {
  const ours = () => session.run(plan);
  const bare = () => bareLoop(gpu, inside(plan.executable!));
  const times: { ours: number[]; bare: number[] } = { ours: [], bare: [] };
  for (let round = -5; round < rounds; round++) {
    // The order changes, so that neither always has the warmer cache.
    for (const which of round % 2 === 0 ? (["ours", "bare"] as const) : (["bare", "ours"] as const)) {
      const ms = time(which === "ours" ? ours : bare);
      if (round >= 0) times[which].push(ms);
      await session.finish();
    }
  }
  const calls = plan.lowered.calls.length;
  const [a, b] = [median(times.ours), median(times.bare)];
  const left = await garbage(session, steps, ours);
  const leftBare = await garbage(session, steps, bare);
  rows.push({ name, ours: a, best_peer: b, ratio: a / b });
  table.push([
    name,
    String(calls),
    String(plan.executable!.submits),
    fixed(a, 3),
    fixed(b, 3),
    fixed(a / b, 3),
    fixed((a / calls) * 1e3, 2),
    `${fixed(left.made / 1024, 1)} / ${fixed(leftBare.made / 1024, 1)}`,
    `${fixed(left.growth / 2 ** 20, 1)} / ${fixed(leftBare.growth / 2 ** 20, 1)}`,
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
await measure("tiny kernels", tiny, tinyPlan);
tiny.close();

const job = await mainJob(targetOf(gpu));
await job.session.open(gpu);
const micro = job.session.plans.find((p) => p.name === "micro-step")!;
inside(micro.executable!).grids.fill(0);
await measure("micro-step, empty grids", job.session, micro);
job.session.close();

printTable(
  [
    "plan",
    "dispatches",
    "submits",
    "ours ms",
    "bare ms",
    "ratio",
    "us/dispatch",
    "garbage KiB/step",
    `growth MiB in ${steps}`,
  ],
  table,
);
console.log("garbage and growth: ours / bare loop");
const worst = Math.max(...rows.map((r) => r.ratio!));
console.log(`worst ${fixed(worst, 3)}: ${worst <= GOAL ? "within" : "above"} the goal of ${GOAL}`);
printRows(args, rows);
Deno.exit(0);
