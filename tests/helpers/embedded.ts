// The embedded experiment's models and its fixture, always from the project's own copy.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { Pipeline, type PipelineParts } from "../../src/models/pipeline.ts";
import { isStreamed, type VelocityNetwork } from "../../src/models/velocity_network.ts";
import { ClipScorer } from "../../src/rewards/scorer.ts";
import type { Session } from "../../src/tensor/session.ts";
import { openSource } from "./dumps.ts";
import { MODELS, NodeFiles, OWN_FIXTURES } from "./files.ts";

export interface EmbeddedUpdate {
  prompts: string[];
  pos: string[];
  m0: number;
  lr: number;
  micro_steps: {
    branch: "denoise" | "inversion";
    start: number;
    end: number;
    discount: number;
    loss: number;
    reward: number[];
    grad_norm: number;
  }[];
  grad_norm: number;
  weight_change: number;
}

export interface EmbeddedRecipe {
  batch: number;
  lr: number;
  rollout_steps: number;
  shift: number;
  sigma: [number, number];
  N: number;
  ratio: number;
  d_pos: [number, number];
  d_inv: [number, number];
  lora: number;
  alpha: number | null;
  clip: number;
  wd: number;
  threshold: number;
  warmup: number;
  betas: [number, number];
}

export interface EmbeddedFixture {
  texts: string[];
  clip_ids: number[][];
  t5_ids: number[][];
  judge_texts: string[];
  sigmas_12: number[];
  srpo: EmbeddedUpdate[];
  recipe: EmbeddedRecipe;
  lora_srpo: EmbeddedUpdate[];
  lora_recipe: EmbeddedRecipe;
}

const files = new NodeFiles();
const TOKENIZERS = join(MODELS, "tokenizers");
export const EMBEDDED = join(MODELS, "embedded");

export const embeddedFixture = JSON.parse(
  readFileSync(join(OWN_FIXTURES, "embedded/fixture.json"), "utf8"),
) as EmbeddedFixture;

export function embeddedTensors() {
  return openSource(join(OWN_FIXTURES, "embedded/fixture.safetensors"));
}

/** The transformer of a pipeline that was opened without streaming. */
export function wholeTransformer({ transformer }: Pipeline): VelocityNetwork {
  if (isStreamed(transformer)) throw new Error("this pipeline streams its transformer");
  return transformer;
}

export function openPipeline(session: Session, parts: Partial<PipelineParts> = {}): Promise<Pipeline> {
  return Pipeline.open(files, session, {
    folder: EMBEDDED,
    vae: "auto",
    tokenizers: TOKENIZERS,
    imageSize: 0,
    parts,
  });
}

/** @param name "reward" or "judge", as its folder is called */
export async function openScorer(session: Session, name: string): Promise<ClipScorer> {
  const tokenizer = await ClipTokenizer.load(files, join(TOKENIZERS, "clip/bpe_simple_vocab_16e6.txt.gz"));
  return ClipScorer.open(files, session, { name, folder: join(EMBEDDED, name), tokenizer });
}
