// Scores of pictures as rows, and what they add up to: mean, count and bootstrap interval of every group. A row says which
// model gave it under which version and preprocessing, so that a file of rows can be read on its own.

import { bootstrapMean, type Estimate, mean, standardDeviation, uniformsOf } from "./statistics.ts";

export type ScoreKind = "hps" | "pickscore" | "clip" | "aesthetic";

/** What gave a score; rows of another scorer are not kept when an evaluation goes on. */
export interface ScorerFacts {
  kind: ScoreKind;
  /** With version: `HPS v2.1`. */
  label: string;
  /** Weights, as a hash. */
  model: string;
  /** `crop` or `pad`. */
  fit: string;
  /** Factor on the cosine; 1 where there is none. */
  scale: number;
  precision: string;
}

export interface ScoreRow {
  /** Path below the folder that was evaluated. */
  picture: string;
  group: string;
  /** Null for a score that reads no text. */
  prompt: string | null;
  score: number;
  scorer: string;
  model: string;
  fit: string;
  precision: string;
  /** Of the picture's file. */
  sha256: string;
}

export interface GroupScore extends Estimate {
  group: string;
  /** Between pictures. */
  deviation: number;
}

export interface ScoreSummary {
  scorer: ScorerFacts;
  /** All pictures, then every group where there are several. */
  groups: GroupScore[];
  dropped: { picture: string; code: string; why: string }[];
  resamples: string;
}

export const ALL = "all";

/** A key under which two rows are the same measurement. */
export const rowKey = (row: Omit<ScoreRow, "score" | "group">): string =>
  JSON.stringify([row.picture, row.prompt, row.scorer, row.model, row.fit, row.precision, row.sha256]);

/** @param seed of the bootstrap */
export function summariseScores(
  scorer: ScorerFacts,
  rows: readonly ScoreRow[],
  dropped: ScoreSummary["dropped"],
  seed: number,
): ScoreSummary {
  const of = (group: string, members: readonly ScoreRow[]): GroupScore => {
    const scores = members.map(({ score }) => score);
    const estimate = bootstrapMean(scores, uniformsOf(seed, `scores ${group}`));
    return { group, ...estimate, mean: scores.length > 0 ? mean(scores) : 0, deviation: standardDeviation(scores) };
  };
  const names = [...new Set(rows.map(({ group }) => group))].sort();
  return {
    scorer,
    groups: [
      of(ALL, rows),
      ...(names.length > 1
        ? names.map((name) =>
            of(
              name,
              rows.filter(({ group }) => group === name),
            ),
          )
        : []),
    ],
    dropped,
    resamples: "bootstrap over pictures, percentile interval of 95 %",
  };
}
