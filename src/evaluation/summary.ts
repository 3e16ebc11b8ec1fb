// From one row an item, before and after, to the tables of the evaluation: mean, change and 95 % bootstrap interval by
// group, region and category, and the gap between head and tail. The shape (rows per item, then groups with intervals,
// never one number alone) is the one of the CuRe benchmark's reports.

import {
  type Change,
  MINIMUM_ITEMS,
  mean,
  type NextUniform,
  pairedChange,
  quantile,
  RESAMPLES,
  resampledMeans,
  resampleIndices,
  uniformsOf,
} from "./statistics.ts";

/** aligned: tail items that the run trained on; other tail: tail items it never saw; head: common items. */
export type Group = "aligned" | "other tail" | "head";
export const GROUPS: readonly Group[] = ["aligned", "other tail", "head"];

/** Measures of one item, each a mean over its pictures. What was not measured is absent. */
export interface ItemScores {
  /** Cosine of picture and plain caption under the held-out judge: the primary measure. */
  judge: number;
  /** Share of pictures for which the judge ranks the item's caption first among all items. */
  top1?: number;
  top5?: number;
  /** Cosine of picture and caption under the reward that was optimised. */
  reward?: number;
  /** 1 - mean cosine of judge features between the item's pictures. */
  diversity?: number;
  /** Mean over pixels of (largest - smallest channel). */
  saturation?: number;
  contrast?: number;
  sharpness?: number;
}

export type Measure = keyof ItemScores;

/** What a measure is called, and which direction is good; 0 where neither direction is good in itself. */
export const MEASURES: Readonly<Record<Measure, { label: string; explanation: string; good: 1 | -1 | 0 }>> = {
  judge: { label: "Judge", explanation: "cosine of picture and caption under a model that was not optimised", good: 1 },
  top1: {
    label: "Top-1",
    explanation: "share of pictures whose own caption the judge ranks first of all items",
    good: 1,
  },
  top5: { label: "Top-5", explanation: "share of pictures whose own caption is among the judge's first five", good: 1 },
  reward: { label: "Reward", explanation: "cosine of picture and caption under the model that was optimised", good: 0 },
  diversity: { label: "Diversity", explanation: "1 − mean judge cosine between pictures of one item", good: 1 },
  saturation: { label: "Saturation", explanation: "mean over pixels of largest − smallest channel", good: 0 },
  contrast: { label: "Contrast", explanation: "standard deviation of the luminance", good: 0 },
  sharpness: { label: "Sharpness", explanation: "standard deviation of the Laplacian of the luminance", good: 0 },
};

/** One evaluated item. */
export interface ItemRow {
  item: string;
  category: string;
  /** Empty where the item belongs to no region. */
  region: string;
  group: Group;
  /** Pictures behind each mean. */
  pictures?: number;
  before: ItemScores;
  after: ItemScores;
}

export type Changes = { judge: Change } & Partial<Record<Measure, Change>>;

export interface GroupSummary {
  group: Group;
  items: number;
  changes: Changes;
}

/** One region or category; the judge and top-1 only, because most have few items. */
export interface SliceSummary {
  name: string;
  /** tail: aligned and other tail items together; head. */
  part: "tail" | "head";
  items: number;
  judge: Change;
  top1?: Change;
}

/** Mean of head minus mean of aligned tail (all tail where nothing is aligned), before and after. */
export interface GapSummary {
  before: number;
  after: number;
  change: number;
  low: number | null;
  high: number | null;
}

export interface EvaluationSummary {
  groups: GroupSummary[];
  regions: SliceSummary[];
  categories: SliceSummary[];
  gap?: GapSummary;
  resamples: number;
  minimumItems: number;
}

/**
 * Computes the summary. Groups, regions and categories without an item do not appear; regions and categories come with
 * the
 * most items first. Every slice has a random stream of its own, so that one more item in a region moves no other
 * interval.
 */
export function summariseEvaluation(rows: readonly ItemRow[], seed = 0): EvaluationSummary {
  const groups: GroupSummary[] = [];
  for (const group of GROUPS) {
    const members = rows.filter((row) => row.group === group);
    if (members.length === 0) continue;
    const changes = changesOf(members, Object.keys(MEASURES) as Measure[], uniformsOf(seed, `group ${group}`));
    groups.push({ group, items: members.length, changes });
  }
  const regions = slices(
    rows.filter((row) => row.group !== "head"),
    (row) => row.region,
    "tail",
    seed,
  );
  const categories = [
    ...slices(
      rows.filter((row) => row.group !== "head"),
      (row) => row.category,
      "tail",
      seed,
    ),
    ...slices(
      rows.filter((row) => row.group === "head"),
      (row) => row.category,
      "head",
      seed,
    ),
  ];
  const gap = gapOf(rows, uniformsOf(seed, "gap"));
  return { groups, regions, categories, ...(gap ? { gap } : {}), resamples: RESAMPLES, minimumItems: MINIMUM_ITEMS };
}

/** The change of an item's judge score. */
export function itemChange(row: ItemRow): number {
  return row.after.judge - row.before.judge;
}

/** Median change of the judge over rows; NaN for none. */
export function typicalChange(rows: readonly ItemRow[]): number {
  return quantile(rows.map(itemChange), 0.5);
}

/** Changes of every measure that all rows have; all measures share their resamples. */
function changesOf(rows: readonly ItemRow[], measures: readonly Measure[], nextUniform: NextUniform): Changes {
  const indices = rows.length >= MINIMUM_ITEMS ? resampleIndices(rows.length, nextUniform) : new Uint32Array(0);
  const changes: Partial<Record<Measure, Change>> = {};
  for (const measure of measures) {
    const before = rows.map((row) => row.before[measure]);
    const after = rows.map((row) => row.after[measure]);
    if (!allFinite(before) || !allFinite(after)) continue;
    changes[measure] = pairedChange(before, after, indices);
  }
  // A judge score that is not finite still makes a row, so that the reader sees the gap rather than no table.
  const none: Change = {
    n: rows.length,
    before: Number.NaN,
    after: Number.NaN,
    change: Number.NaN,
    low: null,
    high: null,
  };
  return { judge: none, ...changes };
}

function slices(
  rows: readonly ItemRow[],
  nameOf: (row: ItemRow) => string,
  part: "tail" | "head",
  seed: number,
): SliceSummary[] {
  const byName = new Map<string, ItemRow[]>();
  for (const row of rows) {
    const name = nameOf(row);
    if (name === "") continue;
    const members = byName.get(name) ?? [];
    members.push(row);
    byName.set(name, members);
  }
  const summaries = [...byName].map(([name, members]): SliceSummary => {
    const changes = changesOf(members, ["judge", "top1"], uniformsOf(seed, `${part} ${name}`));
    const top1 = changes.top1 ? { top1: changes.top1 } : {};
    return { name, part, items: members.length, judge: changes.judge, ...top1 };
  });
  return summaries.sort((a, b) => b.items - a.items || (a.name < b.name ? -1 : 1));
}

function gapOf(rows: readonly ItemRow[], nextUniform: NextUniform): GapSummary | null {
  const head = rows.filter((row) => row.group === "head");
  const aligned = rows.filter((row) => row.group === "aligned");
  const tail = aligned.length > 0 ? aligned : rows.filter((row) => row.group === "other tail");
  if (head.length === 0 || tail.length === 0) return null;
  const before = mean(head.map((row) => row.before.judge)) - mean(tail.map((row) => row.before.judge));
  const after = mean(head.map((row) => row.after.judge)) - mean(tail.map((row) => row.after.judge));
  const gap: GapSummary = { before, after, change: after - before, low: null, high: null };
  const headChanges = head.map(itemChange);
  const tailChanges = tail.map(itemChange);
  if (bootstrapless(headChanges) || bootstrapless(tailChanges)) return gap;
  const headMeans = resampledMeans(headChanges, resampleIndices(head.length, nextUniform));
  const tailMeans = resampledMeans(tailChanges, resampleIndices(tail.length, nextUniform));
  const differences = headMeans.map((value, i) => value - tailMeans[i]!);
  return { ...gap, low: quantile(differences, 0.025), high: quantile(differences, 0.975) };
}

function bootstrapless(values: readonly number[]): boolean {
  return values.length < MINIMUM_ITEMS || !allFinite(values);
}

function allFinite(values: readonly (number | undefined)[]): values is readonly number[] {
  return values.every((value) => value !== undefined && Number.isFinite(value));
}
