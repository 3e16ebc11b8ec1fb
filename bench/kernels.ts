// Speed of each kernel family at the main job's shapes, and where the time of the main job's plans goes.
//
// Timestamp queries around every call; a call's time is the least of several replays, because other work on the machine only
// ever adds to it; a whole replay's is the median, and on a software adapter the least CPU time of all threads. Options: --json, --replays=5, --top=25, --plan=micro-step (profile one plan alone), --only=plans|shapes.

import process from "node:process";
import { attention } from "../src/ops/attention.ts";
import { backward } from "../src/ops/backward.ts";
import { conv2d } from "../src/ops/conv2d.ts";
import { matmul } from "../src/ops/matmul.ts";
import { groupNorm, modulatedLayerNorm, rmsNorm } from "../src/ops/norm.ts";
import { add, geluTanh, mul, silu } from "../src/ops/pointwise.ts";
import { sumAll } from "../src/ops/reduce.ts";
import { rope } from "../src/ops/rope.ts";
import { concat } from "../src/ops/slab.ts";
import { upsampleNearest2x } from "../src/ops/upsample.ts";
import type { Graph, Tensor } from "../src/tensor/graph.ts";
import type { KernelCall } from "../src/tensor/lower.ts";
import { groupCalls, kernelFamily, kernelShape, leastTimes } from "../src/tensor/profile.ts";
import { type Plan, Session } from "../src/tensor/session.ts";
import type { Shape } from "../src/tensor/shape.ts";
import { targetOf } from "../src/tensor/target.ts";
import type { Variable } from "../src/tensor/variable.ts";
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

const args = readArguments();
const replays = Number(args.option("replays", "7"));
const top = Number(args.option("top", "25"));
const only = args.option("only", "");
const gpu = await openBenchGpu(args);
printHeader("kernels by timestamp queries", describe(gpu));
if (!gpu.facts.timestamps) {
  console.log("this adapter has no timestamp queries");
  Deno.exit(1);
}
const rows: Row[] = [];

interface Case {
  name: string;
  inputs: Shape[];
  body(inputs: Tensor[], graph: Graph): Tensor;
  /** Trace the backward pass to all inputs too. */
  gradients?: boolean;
}

const [batch, text, image, width, heads] = [4, 20, 16, 256, 4];
const tokens = text + image;
const rotary: Shape[] = [
  [tokens, width / heads / 2],
  [tokens, width / heads / 2],
];

/** The main job's shapes: batch 4, 36 tokens of width 256; the autoencoder's pictures; the reward's tokens. */
const cases: Case[] = [
  ...(
    [
      [4, 256, 1536],
      [64, 256, 256],
      [80, 256, 256],
      [144, 256, 256],
      [144, 256, 1024],
      [144, 1280, 256],
      [1024, 256, 1024],
    ] as const
  ).map(
    ([m, k, n]): Case => ({
      name: `linear ${m}x${n}x${k}`,
      inputs: [
        [m, k],
        [n, k],
      ],
      body: ([x, w]) => matmul(x!, w!, { transposeB: true }),
      gradients: true,
    }),
  ),
  ...(
    [
      [64, 64, 8],
      [64, 64, 16],
      [64, 64, 32],
      [64, 64, 64],
      [128, 64, 8],
      [64, 3, 64],
      [4, 64, 64],
    ] as const
  ).map(
    ([inputs, outputs, side]): Case => ({
      name: `conv 3x3 ${inputs}->${outputs} at ${side}x${side}`,
      inputs: [
        [batch, inputs, side, side],
        [outputs, inputs, 3, 3],
      ],
      body: ([x, w]) => conv2d(x!, w!, { padding: [1, 1, 1, 1] }),
      gradients: true,
    }),
  ),
  {
    name: `attention ${heads} x 64, ${tokens} tokens`,
    inputs: [
      [batch, tokens, width],
      [batch, tokens, width],
      [batch, tokens, width],
    ],
    body: ([q, k, v]) => attention(q!, k!, v!, { heads }),
    gradients: true,
  },
  {
    name: "attention 4 x 32, 65 tokens",
    inputs: [
      [batch, 65, 128],
      [batch, 65, 128],
      [batch, 65, 128],
    ],
    body: ([q, k, v]) => attention(q!, k!, v!, { heads: 4 }),
    gradients: true,
  },
  {
    name: "modulated layer norm",
    inputs: [
      [batch, tokens, width],
      [batch, 1, width],
      [batch, 1, width],
    ],
    body: ([x, scale, shift]) => modulatedLayerNorm(x!, 1e-6, scale!, shift!),
    gradients: true,
  },
  {
    name: "rms norm",
    inputs: [[batch, tokens, width], [64]],
    body: ([x, gain]) => rmsNorm(x!, 1e-6, gain!),
    gradients: true,
  },
  {
    name: "group norm and silu, 64 channels at 32x32",
    inputs: [[batch, 64, 32, 32], [64], [64]],
    body: ([x, gain, bias]) => silu(groupNorm(x!, 32, 1e-6, gain!, bias!)),
    gradients: true,
  },
  { name: "rope", inputs: [[batch, tokens, width], ...rotary], body: ([x, c, s]) => rope(x!, c!, s!, heads) },
  { name: "gelu", inputs: [[batch, tokens, 4 * width]], body: ([x]) => geluTanh(x!), gradients: true },
  {
    name: "gated residual",
    inputs: [
      [batch, tokens, width],
      [batch, 1, width],
      [batch, tokens, width],
    ],
    body: ([x, g, r]) => add(r!, mul(x!, g!)),
    gradients: true,
  },
  {
    name: "concatenation",
    inputs: [
      [batch, text, width],
      [batch, image, width],
    ],
    body: ([a, b]) => concat([a!, b!], 1),
    gradients: true,
  },
  {
    name: "upsample 64 channels to 64x64",
    inputs: [[batch, 64, 32, 32]],
    body: ([x]) => upsampleNearest2x(x!),
    gradients: true,
  },
  { name: "sum of 1 M", inputs: [[1 << 20]], body: ([x]) => sumAll(x!) },
];

async function measureShapes(): Promise<void> {
  const session = new Session(targetOf(gpu));
  const inputs: Variable[] = [];
  const plans = cases.map((one, index) => {
    const variables = one.inputs.map((shape, i) => session.data(`${index}.${i}`, shape));
    inputs.push(...variables);
    const plan = session.plan(one.name, (graph) => {
      const leaves = variables.map((v) => graph.read(v, one.gradients));
      const out = one.body(leaves, graph);
      graph.assign(session.data(`${index}.out`, out.shape), out);
      if (!one.gradients) return;
      const seed = session.data(`${index}.seed`, out.shape);
      inputs.push(seed);
      backward(graph, [[out, graph.read(seed)]], leaves).forEach((g, i) => {
        if (g) graph.assign(session.data(`${index}.grad${i}`, g.shape), g);
      });
    });
    return { one, plan };
  });
  await session.open(gpu);
  inputs.forEach((v, i) => session.write(v, noise(v.size, i + 1, 1)));
  const table: string[][] = [];
  for (const { one, plan } of plans) {
    const times = (await leastTimes(plan, replays))!;
    plan.lowered.calls.forEach((call, i) => {
      const seconds = times[i]!;
      const gflops = call.flops / seconds / 1e9;
      const label = call.label === one.name ? "" : call.label;
      table.push([
        one.name,
        label,
        fixed(seconds * 1e6, 0),
        call.flops > 0 ? fixed(gflops, 1) : "-",
        fixed(call.bytes / seconds / 1e9, 1),
      ]);
      rows.push({ name: `${one.name} / ${call.label}`, ours: gflops, best_peer: null, ratio: null });
    });
  }
  printTable(["shape", "kernel", "us", "GFLOP/s", "GB/s"], table);
  session.close();
}

/** Of all threads, since the process began. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function measurePlans(): Promise<void> {
  const job = await mainJob(targetOf(gpu));
  await job.session.open(gpu);
  await job.load();
  const wanted = args.option("plan", "");
  const names = wanted ? [wanted] : ["rollout", "micro-step", "optimizer", "draw finish"];
  for (const plan of job.session.plans.filter((p) => names.includes(p.name))) {
    const times = (await leastTimes(plan, replays))!;
    const walls: number[] = [];
    let work = Number.POSITIVE_INFINITY;
    for (let i = 0; i < replays; i++) {
      const [start, used] = [performance.now(), cpuSeconds()];
      job.session.run(plan);
      await job.session.finish();
      walls.push((performance.now() - start) / 1000);
      work = Math.min(work, cpuSeconds() - used);
    }
    const total = times.reduce((a, b) => a + b, 0);
    console.log(
      `\n${plan.name}: ${plan.lowered.calls.length} calls, ${fixed(plan.flops / 1e9)} GFLOP; calls alone ${fixed(total * 1e3, 1)} ms, ` +
        `whole replay ${fixed(median(walls) * 1e3, 1)} ms (${fixed(plan.flops / median(walls) / 1e9, 1)} GFLOP/s)` +
        (gpu.facts.software ? `, ${fixed(work * 1e3, 1)} ms of the processor` : ""),
    );
    printGroups(plan, times, total, kernelFamily);
    console.log("");
    printGroups(plan, times, total, kernelShape);
    rows.push({ name: `${plan.name} ms`, ours: median(walls) * 1e3, best_peer: null, ratio: null });
    if (gpu.facts.software) rows.push({ name: `${plan.name} CPU ms`, ours: work * 1e3, best_peer: null, ratio: null });
  }
  job.session.close();
}

function printGroups(plan: Plan, times: Float64Array, total: number, key: (call: KernelCall) => string): void {
  const sorted = groupCalls(plan.lowered.calls, times, key).slice(0, top);
  printTable(
    [key === kernelFamily ? "family" : "kernel", "share", "ms", "calls", "us each", "GFLOP/s", "GB/s"],
    sorted.map((g) => [
      g.name,
      `${fixed((100 * g.seconds) / total, 1)} %`,
      fixed(g.seconds * 1e3, 2),
      String(g.calls),
      fixed((g.seconds / g.calls) * 1e6, 0),
      g.flops > 0 ? fixed(g.flops / g.seconds / 1e9, 1) : "-",
      fixed(g.bytes / g.seconds / 1e9, 1),
    ]),
  );
}

if (only !== "plans") await measureShapes();
if (only !== "shapes") await measurePlans();
printRows(args, rows);
Deno.exit(0);
