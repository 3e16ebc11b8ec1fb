// Everything that an alignment or a sampling run works with, put together from the configuration: pipeline, rewards, judge,
// prompt encoder, drawing, trainer, all declared in one session. Nothing touches a device before `open`, so `plan` can
// print the memory of the very same object that `align` runs.

import { join } from "node:path";
import type { FileStore } from "../../base/files.ts";
import { ClipTokenizer } from "../../data/tokenizers/clip.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Pipeline, type StreamOptions } from "../../models/pipeline.ts";
import { ClipScorer } from "../../rewards/scorer.ts";
import type { Target } from "../../tensor/lower.ts";
import { Session } from "../../tensor/session.ts";
import type { Pool } from "../../tensor/variable.ts";
import { Drawing } from "../../training/drawing.ts";
import { PromptEncoder } from "../../training/prompt_encoder.ts";
import { type SrpoReward, SrpoTrainer } from "../../training/srpo/trainer.ts";
import { makeAdapter, type RunAdapter } from "../adapter_settings.ts";
import type { Config } from "../config/schema.ts";
import { modelFiles } from "../model_files.ts";
import { embeddedPath } from "../project.ts";
import { checkPrecision } from "./device.ts";
import { srpoSettings } from "./settings.ts";

/** Texts that go through an encoder at a time. */
const TEXT_BATCH = 16;

export interface World {
  session: Session;
  pipeline: Pipeline;
  rewards: SrpoReward[];
  judge: ClipScorer | null;
  prompts: PromptEncoder;
  drawing: Drawing;
  /** Absent in a world that only samples. */
  trainer: SrpoTrainer | null;
  /** What is trained: the transformer's pool, or the adapter's. */
  trained: readonly Pool[];
  adapter: RunAdapter | null;
  /** Parameters of the transformer. */
  parameters: number;
}

/** Declares all models and traces all plans of a run. */
export async function buildWorld(
  files: FileStore,
  config: Config,
  target: Target,
  options: { train: boolean; stream?: StreamOptions | null },
): Promise<World> {
  checkPrecision(config, target);
  const session = new Session(target);
  const precision = config.device.precision;
  const adapted = options.train && config.adapter.kind !== "full";
  const tokenizers = embeddedPath(config.model.tokenizers, "tokenizers");
  const pipeline = await Pipeline.open(files, session, {
    ...modelFiles(config),
    parts: { encoder: options.train && config.align.offline },
    precision,
    // Trained weights stay f32: their updates are far below the resolution of f16.
    transformerPrecision: options.train && !adapted ? "f32" : precision,
    ...(adapted && config.model.storage !== "auto" ? { transformerStorage: config.model.storage } : {}),
    stream: options.stream,
  });
  const tokenizer = await ClipTokenizer.load(files, join(tokenizers, "clip/bpe_simple_vocab_16e6.txt.gz"));
  const rewards: SrpoReward[] = [];
  for (const [i, reward] of config.align.rewards.entries()) {
    const folder = embeddedPath(reward.path, "embedded/reward");
    const name = config.align.rewards.length > 1 ? `reward ${i}` : "reward";
    const scorer = await ClipScorer.open(files, session, { name, folder, tokenizer, precision });
    scorer.planText(session, TEXT_BATCH);
    rewards.push({ scorer, kind: reward.kind, weight: reward.weight });
  }
  let judge: ClipScorer | null = null;
  if (config.eval.judge !== "none") {
    judge = await ClipScorer.open(files, session, {
      name: "judge",
      folder: embeddedPath(config.eval.judge, "embedded/judge"),
      tokenizer,
      precision,
    });
    judge.planText(session, TEXT_BATCH);
  }
  const adapter = adapted ? await makeAdapter(files, session, pipeline.transformer.parameters, config) : null;
  const groups = adapter ? adapter.groups : [{ pool: pipeline.transformerPool }];
  const prompts = new PromptEncoder(session, pipeline, TEXT_BATCH);
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
    prompts,
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
