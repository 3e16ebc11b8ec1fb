// 3x3 convolutions of an autoencoder and both of their gradients, ours against TensorFlow.js.
//
// f32, stride 1, padding 1; each library has its own order of dimensions. Both run in processes of their own, one batch of
// each in turn; medians of the rounds; parts of every result are checked in double precision.
// Options: --json, --shapes=64x128,256x64 (channels x side), --kinds=forward,input,weight, --rounds=5.

import { type ConvKind, type ConvTask, convFlops } from "./lib/convolutions.ts";
import { describe, openBenchGpu, printHeader, printRows, readArguments } from "./lib/report.ts";
import { summary, versus } from "./lib/versus.ts";

/** Relative error that a result may have: single precision over sums of up to 16384 terms. */
const TOLERANCE = 1e-4;
const KINDS: Readonly<Record<string, ConvKind>> = {
  forward: "forward",
  input: "input gradient",
  weight: "weight gradient",
};

const args = readArguments();
const shapes = args.option("shapes", "64x64,64x128,128x64,256x64,512x32").split(",");
const kinds = args.option("kinds", "forward,input,weight").split(",");
const rounds = Number(args.option("rounds", "5"));
const gpu = await openBenchGpu(args);
const { software } = gpu.facts;
printHeader("f32 convolutions 3x3, GFLOP/s (median of interleaved rounds)", describe(gpu));
gpu.close();

const tasks = shapes.flatMap((shape) => {
  const [channels, side] = shape.split("x").map(Number) as [number, number];
  return kinds.map((kind) => {
    const task: ConvTask = { kind: KINDS[kind]!, batch: 1, inputs: channels, outputs: channels, side };
    return { name: `${task.kind}, ${channels} channels at ${side}x${side}`, task, flops: convFlops(task) };
  });
});
const rows = await versus(tasks, {
  libraries: [
    ["ours", "lib/ours_convolutions.ts"],
    ["tfjs", "peers/tfjs_convolutions.mjs"],
  ],
  tolerance: TOLERANCE,
  rounds,
  batchSeconds: software ? 0.3 : 0.1,
  mostSeconds: 20,
});
console.log(`\n${summary(rows, 2, null)}`);
printRows(args, rows);
Deno.exit(0);
