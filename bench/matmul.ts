// f32 matrix products of 256 to 2048, ours against jax-js, TensorFlow.js and onnxruntime on the same adapter.
//
// Task: a chain of products Y = X Wᴿ with everything resident on the device; time includes submitting and waiting. Every
// library runs in a process of its own, one batch of each in turn; medians of the rounds. Every result is checked.
// Options: --json, --sizes=256,512, --rounds=5.

import { type ChainTask, chainFlops } from "./lib/chain.ts";
import { describe, openBenchGpu, printHeader, printRows, readArguments } from "./lib/report.ts";
import { summary, versus } from "./lib/versus.ts";

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

const tasks = sizes.map((size) => {
  const task: ChainTask = { size, products: productsOf(size) };
  return { name: `matmul ${size}`, task, flops: chainFlops(task) };
});
const rows = await versus(tasks, {
  libraries: [
    ["ours", "lib/ours_chain.ts"],
    ["jax-js", "peers/jax_chain.mjs"],
    ["tfjs", "peers/tfjs_chain.mjs"],
    ["onnxruntime", "peers/onnx_chain.mjs"],
  ],
  tolerance: TOLERANCE,
  rounds,
  batchSeconds: software ? 0.4 : 0.1,
});
console.log(`\n${summary(rows, 2, 1.5)}`);
printRows(args, rows);
Deno.exit(0);
