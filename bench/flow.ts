// One update of LoRA training on the embedded model: step, host time (goal: below 10 %), submits, GFLOP/s.
//
// Host time is the time of the step in which the JavaScript thread does not wait for the device. The update is one plan:
// clear gradients, noise, forward, backward, clip, AdamW, report. Latents and text are random numbers.
// Options: --json, --gpu=dawn|deno, --batch=8, --rank=16, --accumulation=1, --steps=12, --checkpointing=on, and
// --offload=blocks, which streams the transformer's blocks through --slots=1+1 places (the update is several plans then).

import { Pipeline } from "../src/models/pipeline.ts";
import { Adapter, chooseAdapters } from "../src/nn/adapters.ts";
import { Optimizer } from "../src/optim/optimizer.ts";
import { projectFolder } from "../src/platform/environment.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { Session } from "../src/tensor/session.ts";
import { targetOf } from "../src/tensor/target.ts";
import { type FlowSample, FlowTrainer } from "../src/training/flow/trainer.ts";
import { noise } from "./lib/chain.ts";
import {
  describe,
  fixed,
  median,
  openBenchGpu,
  printHeader,
  printRows,
  printTable,
  readArguments,
} from "./lib/report.ts";

/** Largest share of a step that the host may take. */
const GOAL = 0.1;
/** Updates before the first that is timed: the trainer learns the device's speed in them. */
const WARM = 5;

const args = readArguments();
const slotsOf = () => {
  const [double, single] = args.option("slots", "1+1").split("+").map(Number) as [number, number];
  return { double, single };
};
const whole = (name: string, fallback: string) => Number(args.option(name, fallback));
const [batch, rank, accumulation] = [whole("batch", "8"), whole("rank", "16"), whole("accumulation", "1")];
const steps = whole("steps", "12");
const opened = await openBenchGpu(args);
let waited = 0;
const gpu: typeof opened = {
  ...opened,
  async wait(promise) {
    const started = performance.now();
    try {
      return await opened.wait(promise);
    } finally {
      waited += performance.now() - started;
    }
  },
};
printHeader("one update of LoRA training on the embedded model (goal: host time at most 10 %)", describe(gpu));

const session = new Session(targetOf(gpu));
const models = `${projectFolder}/models`;
const pipeline = await Pipeline.open(new DiskFiles(), session, {
  folder: `${models}/embedded`,
  vae: "auto",
  tokenizers: `${models}/tokenizers`,
  imageSize: 0,
  stream: args.option("offload", "none") === "blocks" ? { slots: slotsOf(), hostCacheBytes: 2 ** 30 } : null,
});
const { parameters } = pipeline.transformer;
const adapter = new Adapter(
  session,
  parameters,
  chooseAdapters(parameters, { targets: "diffusers", rank, alpha: rank }),
);
const optimizer = new Optimizer(session, [{ pool: adapter.pool }], {
  kind: "adamw",
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 1e-4,
  maxNorm: 1,
});
const trainer = new FlowTrainer(session, pipeline, optimizer, [pipeline.geometry], {
  batch,
  accumulation,
  sigma: { sampler: "logit_normal" },
  weighting: "none",
  loss: "mse",
  guidance: 1,
  seed: 1,
  schedule: { kind: "constant", rate: 1e-4, warmup: 0, total: 0 },
  checkpointing: args.option("checkpointing", "off") === "on",
  validationSigmas: [],
});
await session.open(gpu);
await pipeline.loadWeights(session);
adapter.initialise(session, 1);
optimizer.initialise(session);
optimizer.begin(session);

const { config } = pipeline;
const samples: FlowSample[] = Array.from({ length: batch * accumulation }, (_, i) => ({
  latents: noise(pipeline.imageTokens * pipeline.channels, 3 * i + 1, 1),
  states: noise(pipeline.textLength * config.jointWidth, 3 * i + 2, 1),
  pooled: noise(config.pooledWidth, 3 * i + 3, 1),
  weight: 1,
}));
const { streamed } = pipeline;
const times: number[] = [];
let bytes = 0;
const hosts: number[] = [];
for (let t = 1; t <= WARM + steps; t++) {
  waited = 0;
  const started = performance.now();
  const before = streamed?.ring.times.bytes ?? 0;
  const report = await trainer.step(t, samples, pipeline.geometry);
  const time = performance.now() - started;
  if (!report.finite) throw new Error(`update ${t} was not finite`);
  if (t <= WARM) continue;
  times.push(time);
  hosts.push(time - waited);
  bytes = (streamed?.ring.times.bytes ?? 0) - before;
}
const plans = [...trainer.plans.values()].flatMap(({ update, begin, micro }) =>
  update ? update.plans : [begin!, ...Array.from({ length: accumulation }, () => micro!.plans).flat()],
);
const flops = plans.reduce((sum, plan) => sum + plan.flops, 0);
const submits = plans.reduce((sum, plan) => sum + plan.executable!.submits, 0);
const calls = plans.reduce((sum, plan) => sum + plan.lowered.calls.length, 0);
const [step, host] = [median(times), median(hosts)];
printTable(
  ["batch x accumulation", "step ms", "host ms", "host %", "calls", "submits", "GFLOP", "GFLOP/s"],
  [
    [
      `${batch} x ${accumulation}`,
      fixed(step, 1),
      fixed(host, 1),
      fixed((100 * host) / step, 1),
      String(calls),
      String(submits),
      fixed(flops / 1e9, 1),
      fixed(flops / step / 1e6, 1),
    ],
  ],
);
if (streamed) console.log(`\n${fixed(bytes / 1e6, 1)} MB of weights brought for a step`);
console.log(`\nsteps from ${fixed(Math.min(...times), 1)} to ${fixed(Math.max(...times), 1)} ms`);
printRows(args, [{ name: "flow host share", ours: host / step, best_peer: GOAL, ratio: GOAL / (host / step) }]);
session.close();
await pipeline.close();
Deno.exit(0);
