// The inputs of SRPO's micro-step: variables for the texts of every reward, and what each sample of a micro-batch puts into
// them, one sample for every branch and prompt (arXiv 2509.06942, Direct-Align).

import { joined } from "../../base/arrays.ts";
import type { ConditioningVariables, TextEmbedding } from "../../models/velocity_network.ts";
import type { ClipScorer, RewardKind } from "../../rewards/scorer.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { Branch } from "./branches.ts";
import { rewardFactors } from "./reports.ts";
import { branchScalars } from "./steps.ts";

export interface SrpoReward {
  scorer: ClipScorer;
  kind: RewardKind;
  weight: number;
}

/** What one prompt of an update needs, computed on the host beforehand. */
export interface PreparedPrompt extends TextEmbedding {
  /** For every reward: unit features of the positive text, and of the negative text or null. */
  texts: { positive: Float32Array; negative: Float32Array | null }[];
  /** Real picture [3 · S · S] in [0, 1], in offline mode. */
  picture?: Float32Array;
}

/** Inputs of the micro-step that are one number a sample. */
export const SCALARS = ["from", "keep", "move", "to", "recover"] as const;

/** Texts of one reward: features [samples, width], and what their scores are multiplied with [samples]. */
export interface RewardTexts {
  positive: Variable;
  negative: Variable;
  positiveFactor: Variable;
  negativeFactor: Variable;
}

/** Declares the texts of every reward; the session must not be open yet. */
export function declareTexts(session: Session, rewards: readonly SrpoReward[], samples: number): RewardTexts[] {
  return rewards.map(({ scorer }, i) => ({
    positive: session.data(`srpo.text${i}.positive`, [samples, scorer.width]),
    negative: session.data(`srpo.text${i}.negative`, [samples, scorer.width]),
    positiveFactor: session.data(`srpo.text${i}.positiveFactor`, [samples]),
    negativeFactor: session.data(`srpo.text${i}.negativeFactor`, [samples]),
  }));
}

/** Where a micro-batch is written to. */
export interface MicroInputs {
  variable(name: string): Variable;
  conditioning: ConditioningVariables;
  rewards: readonly SrpoReward[];
  texts: readonly RewardTexts[];
  /** Guidance given to the network while training, where it takes one. */
  guidance: number;
}

/** Writes everything in which branches differ, for the samples of one micro-step. */
export function writeBranches(
  session: Session,
  to: MicroInputs,
  batch: readonly PreparedPrompt[],
  branches: readonly Branch[],
): void {
  const samples = branches.flatMap((branch) => batch.map((prompt) => ({ branch, prompt })));
  to.conditioning.writeTexts(
    session,
    samples.map((s) => s.prompt),
  );
  to.conditioning.writeTimes(
    session,
    samples.map((s) => s.branch.time),
  );
  to.conditioning.writeGuidance(session, to.guidance);
  const scalars = samples.map((s) => branchScalars(s.branch.from, s.branch.to));
  for (const name of SCALARS)
    session.write(
      to.variable(name),
      Float32Array.from(scalars, (s) => s[name]),
    );
  to.rewards.forEach(({ scorer, kind, weight }, i) => {
    const text = to.texts[i]!;
    const factor = scorer.factor(kind) * weight;
    const factors = samples.map((s) => rewardFactors(s.branch, s.prompt.texts[i]!.negative !== null));
    session.write(text.positive, joined(samples.map((s) => s.prompt.texts[i]!.positive)));
    session.write(
      text.negative,
      joined(samples.map((s) => s.prompt.texts[i]!.negative ?? s.prompt.texts[i]!.positive)),
    );
    session.write(
      text.positiveFactor,
      Float32Array.from(factors, (f) => f.positive * factor),
    );
    session.write(
      text.negativeFactor,
      Float32Array.from(factors, (f) => f.negative * factor),
    );
  });
}
