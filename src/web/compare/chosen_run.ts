// The run that Compare and Keep are about: the one of this tab, or one that lies in the browser's storage. An earlier run's
// log is read once, so that both cards work after a reload as they did before it.

import { computed, effect, signal } from "@preact/signals";
import { parseLog, type RunSource } from "../run_source.ts";
import { applyLine, emptyRunView, type RunView } from "../run_view.ts";
import { activeRun, runSource, storage } from "../store.ts";

/** What the user chose; null takes this tab's run, else the newest. */
export const pickedRun = signal<string | null>(null);

/** Names of training runs to choose from, this tab's first, then the newest. */
export const runNames = computed<string[]>(() => {
  const mine = activeRun.value?.command === "train" ? [activeRun.value.name] : [];
  const stored = (storage.value?.runs ?? [])
    .filter(({ command, name }) => command === "train" && !mine.includes(name))
    .sort((a, b) => b.started.localeCompare(a.started));
  return [...mine, ...stored.map(({ name }) => name)];
});

export interface ChosenRun {
  name: string;
  source: RunSource;
  /** Grows in place for a run that goes on. */
  view: RunView;
  /** The worker has it in hands and computes. */
  training: boolean;
  paused: boolean;
  finished: boolean;
}

const chosenName = computed(() => {
  const names = runNames.value;
  return pickedRun.value !== null && names.includes(pickedRun.value) ? pickedRun.value : (names[0] ?? null);
});

/** Views of runs that were read from the storage, by name. */
const earlier = signal<ReadonlyMap<string, RunView>>(new Map());
const sources = new Map<string, RunSource>();

function sourceOf(name: string): RunSource {
  const known = sources.get(name) ?? runSource(name);
  sources.set(name, known);
  return known;
}

effect(() => {
  const name = chosenName.value;
  if (name === null || activeRun.value?.name === name || earlier.peek().has(name)) return;
  void sourceOf(name)
    .text("log.jsonl")
    .then((text) => {
      const view = emptyRunView(name);
      for (const line of parseLog(text ?? "")) applyLine(view, line);
      earlier.value = new Map(earlier.peek()).set(name, view);
    });
});

/** The chosen run, or null where there is none; reading it subscribes to its progress. */
export const chosenRun = computed<ChosenRun | null>(() => {
  const name = chosenName.value;
  if (name === null) return null;
  const source = sourceOf(name);
  const active = activeRun.value;
  if (active?.name === name) {
    void active.version.value;
    const status = active.status.value;
    const training = ["starting", "running", "stopping"].includes(status);
    return { name, source, view: active.view, training, paused: status === "paused", finished: status === "finished" };
  }
  const finished = storage.value?.runs.find((run) => run.name === name)?.state === "finished";
  const view = earlier.value.get(name) ?? emptyRunView(name);
  return { name, source, view, training: false, paused: false, finished };
});

/** Prompts of the run's samples, each once, in order. */
export function samplePrompts(view: RunView): string[] {
  const first = [...view.samples].sort(([a], [b]) => a - b)[0]?.[1] ?? [];
  return [...new Set(first.map(({ item }) => item).filter((item) => item !== ""))];
}
