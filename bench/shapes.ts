// Matrix products of FLUX's and a LoRA's shapes at 512 rows, ours against jax-js, TensorFlow.js and onnxruntime.
//
// A Linear layer [out, in] has three products: forward x Wᵀ (NT), the gradient of its input dy W (NN) and of its weight
// dyᵀ x (TN). Every library runs in a process of its own, one batch of each in turn; medians of the rounds; every result is
// checked. A matrix that one binding of the adapter does not hold is cut in halves.
// Options: --json, --cpu (processor time in the place of the clock's, for software adapters on busy machines), --rows=512,
// --layers=3072x3072,16x3072 (out x in), --kinds=NT,NN,TN, --rounds=5.

import { type ProductTask, productFlops } from "./lib/products.ts";
import { describe, openBenchGpu, printHeader, printRows, readArguments } from "./lib/report.ts";
import { summary, versus } from "./lib/versus.ts";

/** Relative error that a result may have: single precision over sums of up to 12288 terms. */
const TOLERANCE = 1e-4;

/** FLUX's projections and feed-forward, then a LoRA's two factors at ranks 4, 16 and 64. */
const LAYERS = "3072x3072,12288x3072,3072x12288,4x3072,3072x4,16x3072,3072x16,64x3072,3072x64";

const args = readArguments();
const rows = Number(args.option("rows", "512"));
const layers = args.option("layers", LAYERS).split(",");
const kinds = args.option("kinds", "NT,NN,TN").split(",");
const rounds = Number(args.option("rounds", "5"));
const byProcessor = Deno.args.includes("--cpu");
const gpu = await openBenchGpu(args);
const { software } = gpu.facts;
const largest = Math.min(gpu.limits["maxStorageBufferBindingSize"]!, gpu.limits["maxBufferSize"]!);
printHeader(
  `f32 products of layers, ${rows} rows, GFLOP/s (median of interleaved rounds${byProcessor ? ", by processor time" : ""})`,
  describe(gpu),
);
gpu.close();

/** Sizes of a layer's product; `count` makes small ones last long enough. */
function taskOf(out: number, into: number, kind: string): ProductTask {
  const [transposeA, transposeB] = [kind[0] === "T", kind[1] === "T"];
  const [m, n, k] = kind === "NT" ? [rows, out, into] : kind === "NN" ? [rows, into, out] : [out, into, rows];
  const wanted = (software ? 4e8 : 1e11) / (2 * m! * n! * k!);
  return { m: m!, n: n!, k: k!, transposeA, transposeB, count: Math.max(1, Math.min(6, Math.round(wanted))) };
}

const tasks = layers.flatMap((layer) => {
  let [out, into] = layer.split("x").map(Number) as [number, number];
  // What one binding does not hold is taken in halves, as a network on this adapter does it.
  while (4 * out * into > largest) [out, into] = out > into ? [out / 2, into] : [out, into / 2];
  return kinds.map((kind) => {
    const task = taskOf(out, into, kind);
    return { name: `${kind} ${task.m}x${task.n}x${task.k}`, task, flops: productFlops(task) };
  });
});
const found = await versus(tasks, {
  libraries: [
    ["ours", "lib/ours_products.ts"],
    ["jax-js", "peers/jax_products.mjs"],
    ["tfjs", "peers/tfjs_products.mjs"],
    ["onnxruntime", "peers/onnx_products.mjs"],
  ],
  tolerance: TOLERANCE,
  rounds,
  batchSeconds: software ? 0.25 : 0.1,
  mostSeconds: 20,
  byProcessor,
});
console.log(`\n${summary(found, 2, 1.5)}`);
printRows(args, found);
Deno.exit(0);
