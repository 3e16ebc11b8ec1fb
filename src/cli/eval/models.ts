// The scorer that an evaluation asks for: which weights, under which name and version, and how pictures are made square.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import { ClipTokenizer } from "../../data/tokenizers/clip.ts";
import type { ScoreKind, ScorerFacts } from "../../evaluation/scores.ts";
import { AestheticHead } from "../../rewards/aesthetic.ts";
import type { PictureFit } from "../../rewards/clip_reward.ts";
import { type HpsVersion, hpsVersion, scoreLabel } from "../../rewards/labels.ts";
import { ClipScorer } from "../../rewards/scorer.ts";
import type { Config } from "../../runs/config/schema.ts";
import { embeddedPath } from "../../runs/project.ts";
import type { Session } from "../../tensor/session.ts";
import { fileIdentity } from "../../training/file_identity.ts";

export interface ModelChoice {
  kind: ScoreKind;
  /** A folder or file, or "embedded" for the judge that comes along (the reward where HPS is asked for). */
  model: string | null;
  head: string | null;
  fit: PictureFit | null;
  version: HpsVersion | null;
}

export interface OpenScorer {
  scorer: ClipScorer;
  head: AestheticHead | null;
  fit: PictureFit;
  facts: ScorerFacts;
}

/** Where each model is published. */
const PUBLISHED: Readonly<Record<ScoreKind, string>> = {
  hps: "--model=xswu/HPSv2:HPS_v2.1_compressed.pt fetches it, or name your copy of that file",
  pickscore: "--model=yuvalkirstain/PickScore_v1 fetches it, or name the folder of your copy",
  clip: "--model=embedded takes the small judge that comes along",
  aesthetic:
    "--model=openai/clip-vit-large-patch14 fetches it or names your copy, with " +
    "--head=LAION's sac+logos+ava1-l14-linearMSE.pth",
};

/**
 * Declares the scorer in the session; only headers are read.
 * @throws LongtailError E-ARG-082 no model or head is named, and what opening them throws
 */
export async function openEvalScorer(
  files: FileStore,
  session: Session,
  config: Config,
  choice: ModelChoice,
): Promise<OpenScorer> {
  const { kind } = choice;
  const missing = choice.model === null ? "--model" : kind === "aesthetic" && choice.head === null ? "--head" : null;
  if (missing)
    throw new LongtailError("E-ARG-082", {
      what: "the weights of the scorer are missing",
      where: `${missing} of eval ${kind}`,
      fix: PUBLISHED[kind],
    });
  const path = embeddedPath(choice.model!, kind === "hps" ? "embedded/reward" : "embedded/judge");
  const tokenizers = embeddedPath(config.model.tokenizers, "tokenizers");
  const tokenizer = await ClipTokenizer.load(files, join(tokenizers, "clip/bpe_simple_vocab_16e6.txt.gz"));
  const { precision } = config.device;
  const scorer = await ClipScorer.open(files, session, { name: kind, folder: path, tokenizer, precision });
  const head = kind === "aesthetic" ? await AestheticHead.open(files, choice.head!, scorer.width) : null;
  const identities = [await fileIdentity(files, scorer.checkpoint.path)];
  if (head) identities.push(await fileIdentity(files, head.path));
  // Heads and activations are not in the weights.
  const { vision, text, mean, std } = scorer.checkpoint.config;
  identities.push(JSON.stringify([vision.heads, vision.activation, text.heads, text.activation, mean, std]));
  const fit = choice.fit ?? (kind === "hps" ? "pad" : "crop");
  const version = choice.version ?? hpsVersion(path);
  return {
    scorer,
    head,
    fit,
    facts: {
      kind,
      label: scoreLabel(kind, head ? head.path : path, version),
      model: (await sha256(identities.join(" "))).slice(0, 16),
      fit,
      scale: kind === "aesthetic" ? 1 : scorer.scale(kind),
      precision,
    },
  };
}
