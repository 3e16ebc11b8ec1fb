// The plans of the main job (the embedded experiment with its default settings) as the program itself traces them: prompt
// encoders, sampler, rollout, micro-step, optimizer. Without a device, they can still be planned.

import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { Pipeline } from "../../src/models/pipeline.ts";
import { projectFolder } from "../../src/platform/environment.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { ClipScorer } from "../../src/rewards/scorer.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { type SrpoSettings, SrpoTrainer } from "../../src/training/srpo/trainer.ts";

export const SETTINGS: SrpoSettings = {
  batch: 4,
  accumulation: 1,
  rolloutSteps: 6,
  shift: 1.5,
  branch: {
    sigmaHigh: 0.9643,
    sigmaLow: 0.5,
    timestepLength: 1000,
    groundtruthRatio: 0.9,
    discountPos: [1, 1],
    discountInv: [0, 0],
  },
  branches: ["denoise", "inversion"],
  stacked: false,
  timestepMargin: 5,
  threshold: 0.7,
  offline: false,
  sameNoise: true,
  rolloutGuidance: 1,
  trainGuidance: 3.5,
  seed: 1,
  optimizer: { kind: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 1e-4, maxNorm: 0.1 },
  schedule: { kind: "constant_with_warmup", rate: 3e-5, warmup: 10, total: 40 },
  checkpointing: false,
};

export interface MainJob {
  session: Session;
  pipeline: Pipeline;
  trainer: SrpoTrainer;
  /** Uploads all weights; the session must be open. */
  load(): Promise<void>;
}

/** A CLIP of the embedded experiment. */
export async function embeddedScorer(session: Session, name: "reward" | "judge"): Promise<ClipScorer> {
  const files = new DiskFiles();
  const models = `${projectFolder}/models`;
  const tokenizer = await ClipTokenizer.load(files, `${models}/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz`);
  return await ClipScorer.open(files, session, { name, folder: `${models}/embedded/${name}`, tokenizer });
}

/** Declares and plans everything; the session is not open yet. */
export async function mainJob(target: Target, change: Partial<SrpoSettings> = {}): Promise<MainJob> {
  const files = new DiskFiles();
  const models = `${projectFolder}/models`;
  const session = new Session(target);
  const pipeline = await Pipeline.open(files, session, {
    folder: `${models}/embedded`,
    vae: "auto",
    tokenizers: `${models}/tokenizers`,
    imageSize: 0,
  });
  const reward = await embeddedScorer(session, "reward");
  const judge = await embeddedScorer(session, "judge");
  for (const scorer of [reward, judge]) scorer.planText(session, 16);
  new PromptEncoder(session, pipeline, 16);
  new Drawing(session, pipeline, [reward, judge], { batch: 16, steps: 6, shift: 1.5, guidance: 3.5 });
  const trainer = new SrpoTrainer(
    session,
    pipeline,
    [{ pool: pipeline.transformerPool }],
    [{ scorer: reward, kind: "hps", weight: 1 }],
    {
      ...SETTINGS,
      ...change,
    },
  );
  return {
    session,
    pipeline,
    trainer,
    async load() {
      await pipeline.loadWeights(session);
      for (const scorer of [reward, judge]) await scorer.loadWeights(session);
    },
  };
}
