// The work of bench/flux_dev.ts: one update of the SRPO trainer on a streamed FLUX transformer with generated weights, with what
// each part took. The benchmark prints it at real size, a test runs it small.

import type { Storage } from "../../src/base/quantize.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { FluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables } from "../../src/models/flux/embeddings.ts";
import { GeneratedBlocks } from "../../src/models/flux/streamed/generated.ts";
import { type Slots, StreamedFlux } from "../../src/models/flux/streamed/streamed.ts";
import { TOKEN_PIXELS } from "../../src/models/pipeline.ts";
import { Autoencoder } from "../../src/models/vae/autoencoder.ts";
import { Adapter, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { affine } from "../../src/ops/pointwise.ts";
import { type MemoryTable, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { UpdateReport } from "../../src/training/srpo/reports.ts";
import { type SrpoModel, SrpoTrainer } from "../../src/training/srpo/trainer.ts";
import { noise } from "./chain.ts";
import { generatedSource } from "./generated_source.ts";
import { embeddedScorer, SETTINGS } from "./main_job.ts";

export interface FluxTask {
  /** FLUX.1's heads of 128 channels: a multiple of that. */
  width: number;
  doubleBlocks: number;
  singleBlocks: number;
  storage: Storage;
  slots: Slots;
  rank: number;
  /** Tokens of the text, and rows and columns of the picture's. */
  text: number;
  rows: number;
  columns: number;
  /** Widths of the autoencoder's levels; FLUX's by default. */
  autoencoderWidths?: readonly number[];
}

export interface FluxPart {
  name: string;
  seconds: number;
  /** Stored words uploaded. */
  bytes: number;
  /** Seconds in which the host read the source and copied, and in which it waited for a slot or room for a copy. */
  filling: number;
  waiting: number;
  flops: number;
}

export interface FluxJob {
  parts: FluxPart[];
  /** Seconds before the first part. */
  tracing: number;
  opening: number;
  loading: number;
  plans: number;
  sharedPlans: number;
  parameters: number;
  adapterParameters: number;
  memory: MemoryTable;
  /** Seconds of the whole update, the optimizer among them. */
  seconds: number;
  report: UpdateReport;
}

const HEAD = 128;
/** Where in its schedule the branch begins. */
const TIMESTEP = 300;

export function fluxShape({ width, doubleBlocks, singleBlocks }: FluxTask): FluxConfig {
  return {
    inChannels: 64,
    outChannels: 64,
    doubleBlocks,
    singleBlocks,
    headSize: HEAD,
    heads: width / HEAD,
    width,
    jointWidth: 4096,
    pooledWidth: 768,
    guidance: true,
    ropeAxes: [16, 56, 56],
    ropeTheta: 10000,
    mlpRatio: 4,
  };
}

/** Makes one update on an open device. */
export async function runFluxJob(gpu: Gpu, task: FluxTask): Promise<FluxJob> {
  const { storage, slots, rank, text, rows, columns, autoencoderWidths: widths } = task;
  const config = fluxShape(task);
  const started = performance.now();
  const session = new Session(targetOf(gpu));
  const transformer = new StreamedFlux(session, config, { storage, slots });
  const { parameters, ring } = transformer;
  const lora = { targets: "diffusers", rank, alpha: rank } as const;
  const adapter = new Adapter(session, parameters, chooseAdapters(parameters, lora));
  const vaeParameters = new Parameters(session.pool("autoencoder", "weights"));
  const vae = new Autoencoder(
    vaeParameters,
    { kind: "kl", scale: 0.3611, shift: 0.1159, config: widths ? { block_out_channels: widths } : {} },
    { decoder: true },
  );
  const reward = await embeddedScorer(session, "reward");
  const model: SrpoModel = {
    transformer,
    config,
    channels: config.inChannels,
    textLength: text,
    imageTokens: rows * columns,
    imageSize: TOKEN_PIXELS * rows,
    rotary(graph) {
      const { cosine, sine } = ropeTables(positionIds(text, rows, columns), config.ropeAxes, config.ropeTheta);
      const shape = [text + rows * columns, config.headSize / 2];
      return {
        cosine: session.constant(graph, "cosine", cosine, shape),
        sine: session.constant(graph, "sine", sine, shape),
      };
    },
    // Pictures of made-up weights are brought into the range of real ones, where clamping leaves a gradient.
    decode: (graph, packed) => affine(vae.decode(graph, packed, rows, columns), 0.25, 0.5),
    encode: () => {
      throw new Error("this job draws its pictures");
    },
  };
  const trainer = new SrpoTrainer(session, model, adapter.groups(), [{ scorer: reward, kind: "hps", weight: 1 }], {
    ...SETTINGS,
    batch: 1,
    rolloutSteps: 1,
    branches: ["denoise"],
    threshold: 2,
  });
  const traced = performance.now();
  await session.open(gpu);
  const opened = performance.now();
  await transformer.load(new GeneratedBlocks(parameters.tensors, { seed: 1 }));
  await loadParameters(session, vaeParameters, generatedSource(vaeParameters.tensors, 2));
  await reward.loadWeights(session);
  adapter.initialise(session, 1);
  trainer.optimizer.initialise(session);
  trainer.optimizer.begin(session);
  await session.finish();
  const loaded = performance.now();

  const parts: FluxPart[] = [];
  const { times } = ring;
  const { rollout, micro } = trainer.plans;
  for (const [name, stage] of [
    ["rollout step", rollout!],
    ["branch: inject, velocity, decode, score, back to the LoRA", micro],
  ] as const) {
    const run = stage.run.bind(stage);
    stage.run = async () => {
      const before = { ...times };
      const from = performance.now();
      await run();
      await session.finish();
      parts.push({
        name,
        seconds: (performance.now() - from) / 1e3,
        bytes: times.bytes - before.bytes,
        filling: (times.filling - before.filling) / 1e3,
        waiting: (times.waiting - before.waiting) / 1e3,
        flops: stage.flops,
      });
    };
  }
  const unit = (seed: number) => {
    const values = noise(reward.width, seed, 1);
    const norm = Math.hypot(...values);
    return values.map((x) => x / norm);
  };
  const prompt = {
    states: noise(text * config.jointWidth, 3, 0.3),
    pooled: noise(config.pooledWidth, 4, 1.7),
    texts: [{ positive: unit(5), negative: unit(6) }],
  };
  const begun = performance.now();
  const report = await trainer.update(1, [prompt], { m0: TIMESTEP, noise: trainer.noise(1, 0) });
  const ended = performance.now();
  const seconds = (a: number, b: number) => (b - a) / 1e3;
  return {
    parts,
    tracing: seconds(started, traced),
    opening: seconds(traced, opened),
    loading: seconds(opened, loaded),
    seconds: seconds(begun, ended),
    plans: session.plans.length,
    sharedPlans: session.plans.filter((plan) => plan.like).length,
    parameters: parameters.count,
    adapterParameters: adapter.pool.variables.reduce((n, v) => n + v.size, 0),
    memory: session.memory(),
    report,
  };
}
