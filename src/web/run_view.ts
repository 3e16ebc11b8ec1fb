// What the panels show of a run, built event by event: the same for a run of this tab, a run of a server that is watched, and
// a recorded one. Pure; the charts read the arrays as they grow.

import { bytes } from "../evaluation/format.ts";
import type { LogLine } from "./protocol.ts";

/** One curve: `values[i]` was measured at update `steps[i]`, which only rises. */
export interface Series {
  steps: number[];
  values: number[];
}

export interface PhaseView {
  name: string;
  done: number;
  total: number;
  unit: string;
  /** Seconds since 1970 at which it began and was last heard of. */
  began: number;
  last: number;
}

export interface SampleView {
  path: string;
  item: string;
  seed: number;
  /** The held-out judge's score of the picture, where an alignment measured it. */
  judge?: number;
}

export interface NoteView {
  t: number;
  step: number;
  kind: "message" | "warning" | "error" | "checkpoint";
  code?: string;
  text: string;
}

export interface RunView {
  name: string;
  /** Updates done, and planned as far as it is known. */
  step: number;
  steps: number;
  phase: PhaseView | null;
  /** Phases in the order in which they began. */
  phases: PhaseView[];
  series: Map<string, Series>;
  /** Samples by update, in order of arrival. */
  samples: Map<number, SampleView[]>;
  notes: NoteView[];
  /** Seconds since 1970 of the first and the last line. */
  began: number | null;
  last: number | null;
}

export function emptyRunView(name: string): RunView {
  return {
    name,
    step: 0,
    steps: 0,
    phase: null,
    phases: [],
    series: new Map(),
    samples: new Map(),
    notes: [],
    began: null,
    last: null,
  };
}

/** Phases whose progress is counted in updates of the trained weights. */
const UPDATE_PHASES = new Set(["train", "align", "pretrain"]);

/** Adds one line. A run that was resumed repeats updates: what is at or after a repeated update is replaced. */
export function applyLine(view: RunView, line: LogLine): void {
  view.began ??= line.t;
  view.last = line.t;
  if (line.kind === "phase") applyPhase(view, line);
  else if (line.kind === "metric") {
    view.step = line.step;
    for (const [name, value] of Object.entries(line.values)) addPoint(view, name, line.step, Number(value));
  } else if (line.kind === "sample") {
    const { step, path, item = "", seed = 0, judge } = line;
    const known = view.samples.get(step) ?? [];
    view.samples.set(step, [
      ...known.filter((s) => s.path !== path),
      { path, item, seed, ...(judge === undefined ? {} : { judge }) },
    ]);
  } else if (line.kind === "checkpoint") {
    const text = `update ${line.step} saved${line.bytes > 0 ? ` · ${bytes(line.bytes)}` : ""}`;
    view.notes.push({ t: line.t, step: line.step, kind: "checkpoint", text });
  } else {
    const { kind, t, step, text } = line;
    view.notes.push({ t, step, kind, text, ...("code" in line ? { code: line.code } : {}) });
  }
}

function applyPhase(view: RunView, line: LogLine & { kind: "phase" }): void {
  const { name, done, total, unit, t } = line;
  if (UPDATE_PHASES.has(name)) {
    view.step = done;
    view.steps = total;
  }
  const last = view.phases.at(-1);
  const known = last?.name === name ? last : undefined;
  const phase = { name, done, total, unit, began: known?.began ?? t, last: t };
  if (known) view.phases[view.phases.length - 1] = phase;
  else view.phases.push(phase);
  view.phase = phase;
}

function addPoint(view: RunView, name: string, step: number, value: number): void {
  let series = view.series.get(name);
  if (!series) {
    series = { steps: [], values: [] };
    view.series.set(name, series);
  }
  while (series.steps.length > 0 && series.steps.at(-1)! >= step) {
    series.steps.pop();
    series.values.pop();
  }
  series.steps.push(step);
  series.values.push(value);
}
