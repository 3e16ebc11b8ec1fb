// Device memory that the plan of the main job names against what the operating system counts, for full fine-tuning and a LoRA.
//
// Needs Linux and Mesa's CPU adapter: its device memory is one anonymous file whose pages the kernel counts, which neither
// the program nor WebGPU can colour. Every plan runs once, and all weights are read, before it is looked at. Each case is a
// process of its own, because the adapter keeps pages that were given back. Options: --json, and for one case in this
// process --case=full|lora|streamed|batch8.

import { openRunDevice } from "../src/cli/run_device.ts";
import { softwareDeviceBytes } from "../src/platform/device_memory.ts";
import { residentBytes } from "../src/platform/environment.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { buildWorld, openWorld, type World } from "../src/runs/align/world.ts";
import { loadConfig } from "../src/runs/config/load.ts";
import { leastStream } from "../src/runs/offload.ts";
import { projectSources } from "../src/runs/project.ts";
import { targetOf } from "../src/tensor/target.ts";
import type { PreparedPrompt } from "../src/training/srpo/micro_inputs.ts";
import { runApart } from "./lib/apart.ts";
import { describe, fixed, printHeader, printRows, printTable, type Row, readArguments } from "./lib/report.ts";

/** Largest relative distance of plan and measurement, largest device memory, largest resident memory of the process. */
const GOALS = { distance: 0.1, device: 2 ** 30, resident: 3 * 2 ** 30 };
const CASES: Readonly<Record<string, { title: string; overrides: Record<string, string> }>> = {
  full: { title: "full fine-tuning, batch 4", overrides: {} },
  lora: { title: "LoRA of rank 16, batch 4", overrides: { "adapter.kind": "lora" } },
  streamed: {
    title: "LoRA, blocks streamed",
    overrides: { "adapter.kind": "lora", "device.offload": "blocks" },
  },
  batch8: { title: "full, batch 8, branches stacked", overrides: { "align.batch": "8", "align.stacked": "yes" } },
};

interface Measured {
  adapter: string;
  planned: number;
  device: number | null;
  residentBefore: number;
  resident: number;
}

/** Texts are encoded before a world is opened; what they say makes no difference to memory. */
function anyPrompt({ pipeline, rewards }: World): PreparedPrompt {
  const { jointWidth, pooledWidth } = pipeline.config;
  const unit = (width: number, at: number) => new Float32Array(width).fill(1, at, at + 1);
  return {
    states: new Float32Array(pipeline.textLength * jointWidth),
    pooled: new Float32Array(pooledWidth),
    texts: rewards.map(({ scorer }) => ({ positive: unit(scorer.width, 0), negative: unit(scorer.width, 1) })),
  };
}

async function measure(name: string): Promise<Measured> {
  const files = new DiskFiles();
  const changes = { ...CASES[name]!.overrides, "device.tuner": "off" };
  const overrides = Object.entries(changes).map(([key, value]) => ({ key, value }));
  const { config } = await loadConfig({ source: "embedded", overrides }, projectSources(files));
  const gpu = await openRunDevice(config, () => {});
  const world = await buildWorld(files, config, targetOf(gpu), { train: true, stream: leastStream(config) });
  const { session, trainer, drawing } = world;
  const residentBefore = residentBytes();
  await openWorld(world, gpu, config, () => {});
  const prompts = Array.from({ length: trainer!.promptsPerUpdate }, () => anyPrompt(world));
  await trainer!.update(1, prompts);
  await drawing.draw([{ states: prompts[0]!.states, pooled: prompts[0]!.pooled, noise: drawing.noise(1, 0) }]);
  for (const pool of [...world.trained, ...Object.values(trainer!.optimizer.state)]) {
    for (const variable of pool.variables) await session.read(variable);
  }
  const { total: planned } = session.memory();
  return { adapter: describe(gpu), planned, device: softwareDeviceBytes(), residentBefore, resident: residentBytes() };
}

const args = readArguments();
const one = args.option("case", "");
if (one !== "") {
  console.log(JSON.stringify(await measure(one)));
  Deno.exit(0);
}
const rows: Row[] = [];
const table: string[][] = [];
let adapter = "";
let misses = 0;
for (const [name, { title }] of Object.entries(CASES)) {
  const found = await runApart<Measured>(import.meta.filename!, `--case=${name}`);
  adapter = found.adapter;
  const mebi = (bytes: number | null) => fixed(bytes === null ? null : bytes / 2 ** 20, 1);
  const ratio = found.device === null ? null : found.device / found.planned;
  const isGood =
    ratio !== null &&
    Math.abs(ratio - 1) <= GOALS.distance &&
    found.device! < GOALS.device &&
    found.resident < GOALS.resident;
  if (!isGood) misses++;
  table.push([
    title,
    mebi(found.planned),
    mebi(found.device),
    fixed(ratio, 3),
    mebi(found.residentBefore),
    mebi(found.resident),
    isGood ? "yes" : "no",
  ]);
  rows.push({ name: title, ours: found.device ?? Number.NaN, best_peer: found.planned, ratio });
}
printHeader(
  "device memory against the plan, MiB (goal: ratio within 10 %, device below 1024, resident below 3072)",
  adapter,
);
printTable(["case", "planned", "counted", "ratio", "resident before", "after", "in the goals"], table);
if (misses > 0) console.log("\nA dash: the system does not show this adapter's memory, so nothing can be compared.");
printRows(args, rows);
Deno.exit(misses > 0 ? 1 : 0);
