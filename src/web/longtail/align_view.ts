// What the alignment's panel shows, taken from a run's view: curves of reward and judge, guard rails with their bands, strips
// of pictures by item. Pure. The stream names one thing in one way: `eval_reward` and `guard_<signal>` are measured on the
// same items at every measurement, `eval_judge_<group>` and `eval_reward_<group>` on all items before and after.

import {
  advanceGuard,
  type Band,
  GUARD_SIGNALS,
  type GuardPoint,
  type GuardSignal,
  type GuardState,
  initialGuardState,
  signalsOutside,
} from "../../evaluation/guards.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import type { Group } from "../../evaluation/summary.ts";
import type { RunView, SampleView, Series } from "../run_view.ts";

export const EVAL_REWARD = "eval_reward";
export const guardName = (signal: GuardSignal) => `guard_${signal}`;

export const SIGNAL_WORDS: Readonly<Record<GuardSignal, { label: string; means: string }>> = {
  judge: { label: "Judge", means: "cosine of picture and caption under the held-out judge" },
  diversity: { label: "Diversity", means: "how much pictures of one item differ for the judge" },
  saturation: { label: "Saturation", means: "mean over pixels of largest − smallest channel" },
  contrast: { label: "Contrast", means: "standard deviation of the luminance" },
  sharpness: { label: "Sharpness", means: "standard deviation of the luminance’s Laplacian" },
  grid8: { label: "Grid 8 px", means: "share of detail that repeats every 8 pixels" },
  grid16: { label: "Grid 16 px", means: "share of detail that repeats every 16 pixels" },
};

/** Measurements of the guard rails, in order. */
export function guardPoints(view: RunView): GuardPoint[] {
  const reward = view.series.get(EVAL_REWARD);
  if (!reward) return [];
  const at = GUARD_SIGNALS.map((name) => [name, byStep(view.series.get(guardName(name)))] as const);
  return reward.steps.map((step, i) => ({
    step,
    reward: reward.values[i]!,
    signals: Object.fromEntries(at.flatMap(([name, values]) => (values.has(step) ? [[name, values.get(step)!]] : []))),
  }));
}

const byStep = (series: Series | undefined) =>
  new Map((series?.steps ?? []).map((step, i) => [step, series!.values[i]!] as const));

/** The guard rails as the run's own monitor left them, or as the usual bands make them out of the stream. */
export function guardStateOf(view: RunView, report: ReportData | null): GuardState {
  if (report?.guards) return report.guards;
  return guardPoints(view).reduce((state, point) => advanceGuard(state, point), initialGuardState());
}

export interface GuardTile {
  signal: GuardSignal;
  steps: number[];
  values: number[];
  band: Band;
  outside: boolean;
}

/** One tile for each signal that was measured. */
export function guardTiles(view: RunView, guards: GuardState): GuardTile[] {
  return GUARD_SIGNALS.flatMap((signal): GuardTile[] => {
    const series = view.series.get(guardName(signal));
    if (!series || series.values.length === 0) return [];
    const last = series.values.at(-1)!;
    return [
      {
        signal,
        steps: series.steps,
        values: series.values,
        band: guards.bands[signal] ?? {},
        outside: signalsOutside({ [signal]: last }, guards.bands).length > 0,
      },
    ];
  });
}

export interface Strip {
  item: string;
  category: string;
  region: string;
  group: Group | null;
  /** Pictures of update 0 and of the newest update that has any, pair by pair from the same noise. */
  before: SampleView[];
  latest: SampleView[];
  step: number;
  /** Judge's mean before and at `step`; null where it was not measured. */
  judgeBefore: number | null;
  judgeLatest: number | null;
}

const fileName = (path: string) => path.split("/").at(-1)!;

const meanJudge = (samples: readonly SampleView[]): number | null => {
  const values = samples.flatMap((s) => (s.judge === undefined ? [] : [s.judge]));
  return values.length === 0 ? null : values.reduce((sum, v) => sum + v, 0) / values.length;
};

/** Strips in the order in which items were judged; the report, where there is one, has the last word on numbers. */
export function stripsOf(view: RunView, report: ReportData | null): Strip[] {
  const rows = new Map(report?.evaluation?.rows.map((row) => [row.item, row]));
  const first = view.samples.get(0) ?? [];
  const steps = [...view.samples.keys()].sort((a, b) => a - b);
  return [...new Set(first.map((s) => s.item))].map((item): Strip => {
    const before = first.filter((s) => s.item === item);
    const step = steps.findLast((n) => n > 0 && view.samples.get(n)!.some((s) => s.item === item)) ?? 0;
    const found = step > 0 ? view.samples.get(step)!.filter((s) => s.item === item) : [];
    const latest = before.flatMap((b) => found.find((s) => fileName(s.path) === fileName(b.path)) ?? []);
    const row = rows.get(item);
    return {
      item,
      category: row?.category ?? "",
      region: row?.region ?? "",
      group: row?.group ?? null,
      before,
      latest,
      step,
      judgeBefore: row?.before.judge ?? meanJudge(before),
      judgeLatest: row?.after.judge ?? meanJudge(latest),
    };
  });
}

export type StripOrder = "run" | "gain" | "loss" | "name";

export const stripChange = (strip: Strip): number | null =>
  strip.judgeBefore === null || strip.judgeLatest === null ? null : strip.judgeLatest - strip.judgeBefore;

/** Strips in an order; those without a change come last. */
export function sortedStrips(strips: readonly Strip[], order: StripOrder): Strip[] {
  if (order === "run") return [...strips];
  if (order === "name") return [...strips].sort((a, b) => a.item.localeCompare(b.item));
  const sign = order === "gain" ? -1 : 1;
  const key = (strip: Strip) => {
    const change = stripChange(strip);
    return change === null ? Number.POSITIVE_INFINITY : sign * change;
  };
  return [...strips].sort((a, b) => key(a) - key(b) || 0);
}

/** Updates at which the guard rails raised their alarm. */
export const alarmSteps = (view: RunView): number[] =>
  view.notes.filter((note) => note.code === "E-NUM-010").map((note) => note.step);

/** Mean seconds of the last updates; null before the first. */
export function secondsPerUpdate(view: RunView): number | null {
  const last = view.series.get("seconds")?.values.slice(-5) ?? [];
  return last.length === 0 ? null : last.reduce((sum, v) => sum + v, 0) / last.length;
}

/** A report's text as data; null for one that is not a report of an alignment. */
export function parseReport(text: string | null): ReportData | null {
  if (!text) return null;
  try {
    const value = JSON.parse(text) as ReportData;
    return value?.evaluation?.summary || value?.guards ? value : null;
  } catch {
    return null;
  }
}
