// Everything that a training run works with while it trains: the transformer with its adapter, optimizer, flow-matching
// trainer and sampler, declared in one session. Text encoders and the autoencoder's encoder are not here: their work is done
// before (encode.ts), and their memory is free by then.

import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { type Geometry, Pipeline, type StreamOptions } from "../../models/pipeline.ts";
import { Optimizer } from "../../optim/optimizer.ts";
import type { Target } from "../../tensor/lower.ts";
import { Session } from "../../tensor/session.ts";
import type { Pool } from "../../tensor/variable.ts";
import { Drawing } from "../../training/drawing.ts";
import { FlowTrainer } from "../../training/flow/trainer.ts";
import { makeAdapter, type RunAdapter } from "../adapter_settings.ts";
import type { Config } from "../config/schema.ts";
import { checkPrecision } from "../device.ts";
import { classifierFreeScale, modelFiles } from "../model_files.ts";
import { optimizerSettings, rateSchedule } from "../optimizer_settings.ts";

/** Most pictures that samples are drawn of at once. */
const SAMPLE_BATCH = 8;

export interface TrainWorld {
  session: Session;
  pipeline: Pipeline;
  adapter: RunAdapter | null;
  /** What is trained: the adapter's pools, or the transformer's. */
  trained: readonly Pool[];
  optimizer: Optimizer;
  trainer: FlowTrainer;
  drawing: Drawing;
  /** Parameters of the transformer, and of what is trained. */
  parameters: number;
  trainedParameters: number;
}

/**
 * Declares all models and traces all plans; nothing touches a device.
 * @param geometries sizes of pictures that are trained on
 * @param samples pictures of one sampling
 * @param stream how the transformer's blocks are streamed; null keeps it on the device
 */
export async function buildTrainWorld(
  files: FileStore,
  config: Config,
  target: Target,
  geometries: readonly Geometry[],
  samples: number,
  stream: StreamOptions | null = null,
): Promise<TrainWorld> {
  checkPrecision(config, target);
  const session = new Session(target);
  const { precision } = config.device;
  const full = config.adapter.kind === "full";
  const pipeline = await Pipeline.open(files, session, {
    ...modelFiles(config),
    parts: { text: false },
    precision,
    // Trained weights stay f32: their updates are far below the resolution of f16.
    transformerPrecision: full ? "f32" : precision,
    ...(full || config.model.storage === "auto" ? {} : { transformerStorage: config.model.storage }),
    stream,
  });
  const adapter = full ? null : await makeAdapter(files, session, pipeline.transformer.parameters, config);
  const groups = adapter ? adapter.groups : [{ pool: pipeline.transformerPool }];
  const trained = groups.map(({ pool }) => pool);
  const optimizer = new Optimizer(session, groups, optimizerSettings(config));
  const trainer = new FlowTrainer(session, pipeline, optimizer, geometries, {
    batch: config.train.batch,
    accumulation: config.train.accumulation,
    sigma: {
      sampler: config.flow.sampling,
      mean: config.flow.logit_mean,
      deviation: config.flow.logit_std,
      modeScale: config.flow.mode_scale,
      sigmoidScale: config.flow.sigmoid_scale,
      shift: config.flow.shift,
    },
    weighting: config.flow.weighting,
    loss: config.flow.loss,
    huberDelta: config.flow.huber_delta,
    huberSchedule: config.flow.huber_schedule,
    guidance: config.flow.guidance,
    seed: config.train.seed,
    schedule: rateSchedule(config, config.train.steps),
    checkpointing: config.train.checkpointing,
    beforeReplay: (replay) => adapter?.adapter.writeDropout(session, config.train.seed, replay),
  });
  const drawing = new Drawing(session, pipeline, [], {
    batch: pipeline.drawingBatch(Math.min(SAMPLE_BATCH, samples), pipeline.geometry, target.maxBindingBytes),
    steps: config.sample.steps,
    shift: config.sample.shift,
    guidance: config.sample.guidance,
    classifierFree: classifierFreeScale(config, pipeline.layout),
  });
  const count = (pools: readonly Pool[]) =>
    pools.reduce((n, pool) => pool.variables.reduce((m, v) => m + v.size, n), 0);
  return {
    session,
    pipeline,
    adapter,
    trained,
    optimizer,
    trainer,
    drawing,
    parameters: pipeline.transformer.parameters.count,
    trainedParameters: count(trained),
  };
}

/** Allocates, compiles, loads weights and sets everything to its starting values. */
export async function openTrainWorld(
  world: TrainWorld,
  gpu: Gpu,
  config: Config,
  onPlan: (done: number, total: number) => void,
): Promise<void> {
  await world.session.open(gpu, onPlan);
  await world.pipeline.loadWeights(world.session);
  world.adapter?.begin(config.train.seed);
  world.optimizer.initialise(world.session);
  world.optimizer.begin(world.session);
}
