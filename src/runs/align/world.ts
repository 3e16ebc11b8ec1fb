// Everything that an alignment trains with, put together from the configuration: pipeline, picture towers of rewards and
// judge, drawing, trainer, all declared in one session. Texts are encoded before (texts.ts). Nothing touches a device before
// `open`, so `plan` can print the memory of the very same object that `align` runs.

import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Pipeline, type StreamOptions } from "../../models/pipeline.ts";
import type { ClipScorer } from "../../rewards/scorer.ts";
import type { Target } from "../../tensor/lower.ts";
import { Session } from "../../tensor/session.ts";
import type { Pool } from "../../tensor/variable.ts";
import { Drawing } from "../../training/drawing.ts";
import { type SrpoReward, SrpoTrainer } from "../../training/srpo/trainer.ts";
import { makeAdapter, type RunAdapter } from "../adapter_settings.ts";
import type { Config } from "../config/schema.ts";
import { checkPrecision } from "../device.ts";
import { modelFiles } from "../model_files.ts";
import { openPictureScorers } from "./scorers.ts";
import { srpoSettings } from "./settings.ts";

export interface World {
  session: Session;
  pipeline: Pipeline;
  rewards: SrpoReward[];
  judge: ClipScorer | null;
  drawing: Drawing;
  /** Absent in a world that only samples. */
  trainer: SrpoTrainer | null;
  /** What is trained: the transformer's pool, or the adapter's. */
  trained: readonly Pool[];
  adapter: RunAdapter | null;
  /** Parameters of the transformer. */
  parameters: number;
}

interface WorldOptions {
  train: boolean;
  stream?: StreamOptions | null;
}

async function openPipeline(
  files: FileStore,
  session: Session,
  config: Config,
  { train, stream }: WorldOptions,
): Promise<Pipeline> {
  const { precision } = config.device;
  const adapted = train && config.adapter.kind !== "full";
  return await Pipeline.open(files, session, {
    ...modelFiles(config),
    parts: { text: false, encoder: train && config.align.offline },
    precision,
    // Trained weights stay f32: their updates are far below the resolution of f16.
    transformerPrecision: train && !adapted ? "f32" : precision,
    ...(adapted && config.model.storage !== "auto" ? { transformerStorage: config.model.storage } : {}),
    stream,
  });
}

/** Reads the headers of all that will train, so that a model which cannot is told before texts are encoded for it. */
export async function checkModels(files: FileStore, config: Config, target: Target): Promise<void> {
  checkPrecision(config, target);
  const session = new Session(target);
  const pipeline = await openPipeline(files, session, config, { train: true });
  try {
    const { judge, rewards } = await openPictureScorers(files, session, config);
    for (const scorer of [...(judge ? [judge] : []), ...rewards.map((r) => r.scorer)]) await scorer.close();
  } finally {
    await pipeline.close();
  }
}

/** Declares all models and traces all plans of a run. */
export async function buildWorld(
  files: FileStore,
  config: Config,
  target: Target,
  options: WorldOptions,
): Promise<World> {
  checkPrecision(config, target);
  const session = new Session(target);
  const adapted = options.train && config.adapter.kind !== "full";
  const pipeline = await openPipeline(files, session, config, options);
  const { judge, rewards } = await openPictureScorers(files, session, config);
  const adapter = adapted ? await makeAdapter(files, session, pipeline.transformer.parameters, config) : null;
  const groups = adapter ? adapter.groups : [{ pool: pipeline.transformerPool }];
  const trainer = options.train
    ? new SrpoTrainer(session, pipeline, groups, rewards, {
        ...srpoSettings(config, target.software),
        ...(adapter
          ? { beforeReplay: (replay) => adapter.adapter.writeDropout(session, config.train.seed, replay) }
          : {}),
      })
    : null;
  const drawing = new Drawing(session, pipeline, [...(judge ? [judge] : []), ...rewards.map((r) => r.scorer)], {
    batch: config.eval.batch,
    steps: config.eval.steps,
    shift: config.eval.shift,
    guidance: config.eval.guidance,
  });
  return {
    session,
    pipeline,
    rewards,
    judge,
    drawing,
    trainer,
    trained: groups.map(({ pool }) => pool),
    adapter,
    parameters: pipeline.transformer.parameters.count,
  };
}

/** Allocates, compiles and loads. `onPhase` hears names, counts and units as they happen. */
export async function openWorld(
  world: World,
  gpu: Gpu,
  config: Config,
  onPhase: (name: string, done: number, total: number, unit: string) => void,
): Promise<void> {
  await world.session.open(gpu, (done, total) => onPhase("compile", done, total, "plans"));
  const scorers = [...(world.judge ? [world.judge] : []), ...world.rewards.map((r) => r.scorer)];
  const parts = world.pipeline.fileCount + scorers.length;
  await world.pipeline.loadWeights(world.session, (done) => onPhase("load", done, parts, "files"));
  for (const [i, scorer] of scorers.entries()) {
    await scorer.loadWeights(world.session);
    onPhase("load", world.pipeline.fileCount + i + 1, parts, "files");
  }
  world.adapter?.begin(config.train.seed);
  world.trainer?.optimizer.initialise(world.session);
  world.trainer?.optimizer.begin(world.session);
}
