// What an adapter file says about its training: the strings that kohya's trainers write as ss_* and model managers show.

import { sha256File } from "../../base/hash.ts";
import type { LoraFacts } from "../../formats/lora.ts";
import { bucketFacts, datasetFacts, tagFrequency } from "./describe.ts";
import type { TrainOutputInputs } from "./outputs.ts";

const PRECISION = { f32: "no", f16: "fp16" } as const;

export async function adapterFacts(inputs: TrainOutputInputs): Promise<LoraFacts> {
  const { run, resolved, world, state, data, environment } = inputs;
  const { config } = resolved;
  const { optim, schedule, train, flow } = config;
  const { layout, config: model } = world.pipeline;
  const perEpoch = Math.max(1, data.draws / world.trainer.samplesPerUpdate);
  const side = config.data.resolution || world.pipeline.imageSize;
  return {
    name: run.name,
    architecture: architectureOf(layout.family, model),
    date: new Date().toISOString().slice(0, 19),
    resolution: [side, side],
    ...(config.data.trigger ? { triggerPhrase: config.data.trigger } : {}),
    baseName: layout.folder
      .replace(/[/\\]+$/, "")
      .split(/[/\\]/)
      .at(-1)!,
    ...(await hashOfBase(inputs)),
    learningRate: optim.lr,
    optimizer: optim.kind,
    scheduler: schedule.kind,
    warmupSteps: schedule.warmup,
    steps: state.step,
    plannedSteps: train.steps,
    epoch: Math.floor(state.step / perEpoch),
    epochs: Math.ceil(train.steps / perEpoch),
    seed: train.seed,
    batch: train.batch,
    accumulation: train.accumulation,
    mixedPrecision: PRECISION[config.device.precision],
    guidance: flow.guidance,
    timestepSampling: flow.sampling,
    gradientCheckpointing: train.checkpointing,
    maxGradNorm: optim.grad_clip,
    pictures: data.counts.train,
    regularisationPictures: data.counts.prior,
    tagFrequency: tagFrequency(data),
    datasets: datasetFacts(data),
    buckets: bucketFacts(data),
    comment: "trained with Longtail",
    programVersion: environment.longtail,
  };
}

/** FLUX.1's published transformers have known sizes; any other is one of the same kind. */
function architectureOf(
  family: "flux1" | "flux2",
  { doubleBlocks, singleBlocks, guidance }: { doubleBlocks: number; singleBlocks: number; guidance: boolean },
): LoraFacts["architecture"] {
  if (family === "flux2") return "flux-2";
  if (doubleBlocks !== 19 || singleBlocks !== 38) return "flux-1";
  return guidance ? "flux-1-dev" : "flux-1-schnell";
}

/** Larger files are not read for a line of metadata; a sharded base has no single hash. */
const LARGEST_HASHED = 1 << 30;

async function hashOfBase({ files, world }: TrainOutputInputs): Promise<{ baseHash?: string }> {
  const path = world.pipeline.layout.transformer.weights;
  if (!(await files.exists(path))) return {};
  const file = await files.open(path);
  try {
    return file.size <= LARGEST_HASHED ? { baseHash: await sha256File(file) } : {};
  } finally {
    await file.close();
  }
}
