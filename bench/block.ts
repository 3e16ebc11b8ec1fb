// Forward and backward of a FLUX.1 transformer with one double and one single block, ours against jax-js's jit(grad(...)).
//
// Both compute the gradients of all weights and of latents, text states and pooled text from the same numbers, with weights
// resident; all gradients are compared. One process each, batches in turn, medians. Options: --json, --rounds=7, --sizes=0,1.

import { type Fingerprints, largestDifference } from "./lib/block_task.ts";
import { Child, contest } from "./lib/contest.ts";
import type { FluxShape } from "./lib/flux_blocks.ts";
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

/** Two orders of summation of single precision numbers through a few layers. */
const TOLERANCE = 2e-3;

const SHAPES: readonly { name: string; shape: FluxShape }[] = [
  {
    name: "256 wide, 36 tokens, batch 4",
    shape: { width: 256, heads: 4, text: 20, image: 16, batch: 4, doubles: 1, singles: 1 },
  },
  {
    name: "256 wide, 36 tokens, batch 16",
    shape: { width: 256, heads: 4, text: 20, image: 16, batch: 16, doubles: 1, singles: 1 },
  },
  {
    name: "1024 wide, 256 tokens, batch 1",
    shape: { width: 1024, heads: 16, text: 60, image: 196, batch: 1, doubles: 1, singles: 1 },
  },
];

const args = readArguments();
const rounds = Number(args.option("rounds", "7"));
const chosen = args.option("sizes", "0,1,2").split(",").map(Number);
const gpu = await openBenchGpu(args);
const { software } = gpu.facts;
printHeader("double and single block of FLUX.1, forward and backward, ms (goal 3x)", describe(gpu));
gpu.close();

const ours = await Child.start("ours", "lib/ours_block.ts");
const jax = await Child.start("jax-js", "peers/jax_block.mjs");
const rows: Row[] = [];
const table: string[][] = [];
for (const index of chosen) {
  const { name, shape } = SHAPES[index]!;
  const results = [(await ours.prepare(shape)) as Fingerprints, (await jax.prepare(shape)) as Fingerprints];
  if (ours.absent) throw new Error(ours.absent);
  const difference = jax.absent ? null : largestDifference(results[0]!, results[1]!);
  if (difference && !(difference.difference < TOLERANCE)) {
    throw new Error(`the gradients of ${difference.name} differ by ${difference.difference}`);
  }
  const able = jax.absent ? [ours] : [ours, jax];
  const times = await contest(able, rounds, software ? 0.3 : 0.1);
  const [a, b] = able.map((child) => median(times.get(child)!) * 1e3);
  rows.push({ name, ours: a!, best_peer: b ?? null, ratio: b ? b / a! : null });
  table.push([
    name,
    fixed(a),
    fixed(b),
    b ? `${fixed(b / a!)}x` : "-",
    difference ? difference.difference.toExponential(1) : "-",
  ]);
}
for (const child of [ours, jax]) await child.close();
printTable(["task", "ours", "jax-js", "ratio", "largest difference"], table);
if (jax.absent) console.log(`jax-js is absent: ${jax.absent}`);
printRows(args, rows);
Deno.exit(0);
