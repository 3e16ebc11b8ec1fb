// The CLIP models of an alignment, judge and rewards, under the names that they have in every session of a run: first their
// text towers alone, then their picture towers beside the model that is trained.

import type { FileStore } from "../../base/files.ts";
import { join } from "../../base/paths.ts";
import { ClipTokenizer } from "../../data/tokenizers/clip.ts";
import type { Gpu } from "../../gpu/device.ts";
import { ClipScorer, type RewardKind } from "../../rewards/scorer.ts";
import type { Target } from "../../tensor/lower.ts";
import { Session } from "../../tensor/session.ts";
import type { Config } from "../config/schema.ts";
import { embeddedPath } from "../project.ts";

/** Texts that go through a text tower at a time. */
const TEXT_BATCH = 16;

export const JUDGE = "judge";
/** The name of reward number `i` of `count`. */
export const rewardName = (i: number, count: number) => (count > 1 ? `reward ${i}` : "reward");

interface ScorerPlace {
  name: string;
  folder: string;
}

/** Judge, where there is one, and rewards in order. */
function placesOf({ align, eval: { judge } }: Config): { judge: ScorerPlace | null; rewards: ScorerPlace[] } {
  return {
    judge: judge === "none" ? null : { name: JUDGE, folder: embeddedPath(judge, "embedded/judge") },
    rewards: align.rewards.map(({ path }, i) => ({
      name: rewardName(i, align.rewards.length),
      folder: embeddedPath(path, "embedded/reward"),
    })),
  };
}

export interface PictureScorers {
  judge: ClipScorer | null;
  rewards: { scorer: ClipScorer; kind: RewardKind; weight: number }[];
}

/** Declares the picture towers in a session. */
export async function openPictureScorers(files: FileStore, session: Session, config: Config): Promise<PictureScorers> {
  const { judge, rewards } = placesOf(config);
  const open = (place: ScorerPlace) =>
    ClipScorer.open(files, session, { ...place, towers: "picture", precision: config.device.precision });
  const opened: PictureScorers["rewards"] = [];
  for (const [i, place] of rewards.entries()) {
    const { kind, weight } = config.align.rewards[i]!;
    opened.push({ scorer: await open(place), kind, weight });
  }
  return { rewards: opened, judge: judge ? await open(judge) : null };
}

/** Declares the text towers in a session of their own and traces their plans; nothing touches a device. */
export async function traceTextTowers(
  files: FileStore,
  config: Config,
  target: Target,
): Promise<{ session: Session; scorers: ClipScorer[] }> {
  const session = new Session(target);
  const tokenizers = embeddedPath(config.model.tokenizers, "tokenizers");
  const tokenizer = await ClipTokenizer.load(files, join(tokenizers, "clip/bpe_simple_vocab_16e6.txt.gz"));
  const { judge, rewards } = placesOf(config);
  const scorers: ClipScorer[] = [];
  for (const place of [...(judge ? [judge] : []), ...rewards]) {
    const scorer = await ClipScorer.open(files, session, {
      ...place,
      tokenizer,
      towers: "text",
      precision: config.device.precision,
    });
    scorer.planText(session, TEXT_BATCH);
    scorers.push(scorer);
  }
  return { session, scorers };
}

/** Unit features by scorer and text. */
export type TextFeatures = ReadonlyMap<string, ReadonlyMap<string, Float32Array>>;

/** Computes features in an open session; `tick` hears how many texts are done. */
export async function textFeatures(
  { session, scorers }: { session: Session; scorers: readonly ClipScorer[] },
  gpu: Gpu,
  wants: ReadonlyMap<string, ReadonlySet<string>>,
  tick: (done: number) => void,
): Promise<TextFeatures> {
  await session.open(gpu);
  const all = new Map<string, Map<string, Float32Array>>();
  let done = 0;
  for (const scorer of scorers) {
    await scorer.loadWeights(session);
    const texts = [...(wants.get(scorer.name) ?? [])];
    const features = await scorer.textFeatures(session, texts, (count) => tick(done + count));
    all.set(scorer.name, new Map(texts.map((text, i) => [text, features[i]!])));
    done += texts.length;
  }
  return all;
}
