// f32 matrix products of 256 to 2048, ours against jax-js, TensorFlow.js and onnxruntime on the same adapter.
//
// Task: a chain of products Y = X Wᴿ with everything resident on the device; time includes submitting and waiting. Every
// library runs in a process of its own, one batch of each in turn; medians of the rounds. Every result is checked.
// Options: --json, --sizes=256,512, --rounds=5.

import { type ChainTask, chainFlops } from "./lib/chain.ts";
import { Child, contest } from "./lib/contest.ts";
import {
  describe,
  fixed,
  geometricMean,
  median,
  openBenchGpu,
  printHeader,
  printRows,
  printTable,
  type Row,
  readArguments,
} from "./lib/report.ts";

/** Relative error that a result may have: single precision over a few chained products of length 2048. */
const TOLERANCE = 1e-4;

const args = readArguments();
const sizes = args.option("sizes", "256,512,1024,2048").split(",").map(Number);
const rounds = Number(args.option("rounds", "5"));
const gpu = await openBenchGpu(args);
const { software } = gpu.facts;
printHeader("f32 matrix products, GFLOP/s (median of interleaved rounds)", describe(gpu));
gpu.close();

/** Enough products that waiting and reading back are a small part; a software adapter takes long for one. */
function productsOf(size: number): number {
  const wanted = (software ? 2e9 : 5e11) / (2 * size ** 3);
  return Math.max(1, Math.min(64, 2 ** Math.round(Math.log2(wanted))));
}

const children = [
  await Child.start("ours", "lib/ours_chain.ts"),
  await Child.start("jax-js", "peers/jax_chain.mjs"),
  await Child.start("tfjs", "peers/tfjs_chain.mjs"),
  await Child.start("onnxruntime", "peers/onnx_chain.mjs"),
];
const rows: Row[] = [];
const table: string[][] = [];
const notes = new Set<string>();
for (const size of sizes) {
  const task: ChainTask = { size, products: productsOf(size) };
  const able: Child[] = [];
  for (const child of children) {
    const error = await child.prepare(task);
    if (child.absent) {
      notes.add(`${child.name} is absent: ${child.absent}`);
      if (child.name === "ours") throw new Error(child.absent);
    } else if (typeof error !== "number" || !(error < TOLERANCE)) {
      notes.add(`${child.name} is left out at ${size}: relative error ${error}`);
      if (child.name === "ours") throw new Error(`our product of ${size} has a relative error of ${error}`);
    } else {
      able.push(child);
    }
  }
  const times = await contest(able, rounds, software ? 0.4 : 0.1);
  const speeds = new Map([...times].map(([child, t]) => [child.name, chainFlops(task) / median(t) / 1e9]));
  const ours = speeds.get("ours")!;
  const peers = children
    .slice(1)
    .map((c) => speeds.get(c.name))
    .filter((s): s is number => s !== undefined && s > 0);
  const best = peers.length > 0 ? Math.max(...peers) : null;
  rows.push({ name: `matmul ${size}`, ours, best_peer: best, ratio: best ? ours / best : null });
  table.push([
    `${size} (${task.products} products)`,
    ...children.map((c) => fixed(speeds.get(c.name), 1)),
    best ? `${fixed(ours / best)}x` : "-",
  ]);
}
for (const child of children) await child.close();
printTable(["size", ...children.map((c) => c.name), "ratio to the best"], table);
const ratios = rows.map((r) => r.ratio).filter((r): r is number => r !== null);
if (ratios.length > 0) {
  console.log(
    `\ngeometric mean ${fixed(geometricMean(ratios))}x (goal 2x), least ${fixed(Math.min(...ratios))}x (goal 1.5x)`,
  );
}
for (const child of children) if (!child.absent) console.log(`${child.name}: adapter ${child.adapter}`);
for (const note of notes) console.log(note);
printRows(args, rows);
Deno.exit(0);
