// The state of the Watch mode: which runs there are to choose from, which are shown, and the token for commands. Signals and
// functions; the components only read and call.

import { computed, type ReadonlySignal, signal } from "@preact/signals";
import type { RunView } from "../run_view.ts";
import { BrowserRunSource, browserRunNames } from "../sources/browser.ts";
import { type FileTree, type FolderRunSource, runsIn } from "../sources/folder.ts";
import { type Recording, recordings } from "../sources/recorded.ts";
import { isServed, type ServedList, ServedRunSource, servedRuns } from "../sources/served.ts";
import { type RunRecordFacts, recordFacts, type WatchSource } from "../sources/watch_source.ts";
import { lockedRuns } from "../store.ts";
import type { WorkClock } from "./overlay.ts";
import { PlayedRun } from "./played_run.ts";
import { type Hearing, type RunFacts, WatchedRun } from "./watched_run.ts";

/** A run as the panels need it, whether it is followed or played. */
export interface WatchableRun {
  readonly name: string;
  readonly source: WatchSource;
  readonly view: RunView;
  readonly clock: WorkClock;
  readonly version: ReadonlySignal<number>;
  readonly hearing: ReadonlySignal<Hearing>;
  readonly facts: ReadonlySignal<RunFacts>;
  close(): void;
}

/** A run on the screen, with its place among the colours. */
export interface ShownRun {
  id: string;
  /** 0 to 5: colour and dash in the charts. */
  slot: number;
  run: WatchableRun;
}

/** More curves than this cannot be told apart. */
export const MOST_SHOWN = 6;

export const idOf = (origin: string, name: string): string => `${origin}:${name}`;

export const shown = signal<readonly ShownRun[]>([]);
/** The server's runs: undefined before the first answer, null where this page is not served or the server is gone. */
export const served = signal<ServedList | null | undefined>(undefined);
export const folderRuns = signal<readonly FolderRunSource[]>([]);
export const browserRuns = signal<readonly { name: string; record: RunRecordFacts | null }[]>([]);
export const recorded = signal<readonly Recording[]>([]);
/** What went wrong with the last drop. */
export const folderProblem = signal<string | null>(null);
export const token = signal<string>("");

export const isShown = (id: string): boolean => shown.value.some((one) => one.id === id);
export const isFull = computed(() => shown.value.length >= MOST_SHOWN);

function freeSlot(taken: readonly ShownRun[]): number {
  const used = new Set(taken.map(({ slot }) => slot));
  return [...Array(MOST_SHOWN).keys()].find((slot) => !used.has(slot)) ?? 0;
}

function open(id: string, make: () => WatchableRun, beside: boolean): void {
  const there = shown.value.find((one) => one.id === id);
  if (beside && (there || isFull.value)) return;
  const kept = beside ? shown.value : shown.value.filter((one) => one === there);
  for (const one of shown.value) if (!kept.includes(one)) one.run.close();
  shown.value = there && !beside ? [there] : [...kept, { id, slot: freeSlot(kept), run: make() }];
}

/** Shows a run that is followed: alone, or beside what is shown. */
export function watchRun(source: WatchSource, beside = false): void {
  open(
    idOf(source.origin, source.name),
    () => {
      const run = new WatchedRun(source);
      run.start();
      return run;
    },
    beside,
  );
}

/** Shows a recording, playing where it is alone. */
export function playRun(recording: Recording, beside = false): void {
  open(
    idOf("recorded", recording.name),
    () => {
      const run = new PlayedRun(recording);
      if (beside) run.start(false);
      else run.start();
      return run;
    },
    beside,
  );
}

export function removeRun(id: string): void {
  shown.value.find((one) => one.id === id)?.run.close();
  shown.value = shown.value.filter((one) => one.id !== id);
}

export const watchServed = (name: string, beside = false): void => watchRun(new ServedRunSource(name), beside);
export const watchBrowser = (name: string, beside = false): void => watchRun(new BrowserRunSource(name), beside);

/** Looks for runs in what was dropped or picked, lists them and shows the first. */
export async function openFolders(trees: readonly FileTree[]): Promise<void> {
  folderProblem.value = null;
  const found = (await Promise.all(trees.map((tree) => runsIn(tree).catch(() => [])))).flat();
  if (found.length === 0) {
    const what = trees.length === 1 ? `“${trees[0]!.name}”` : "what was dropped";
    folderProblem.value = `There is no run in ${what}. A run’s folder has a file log.jsonl; runs/ holds one folder a run.`;
    return;
  }
  // A folder that is dropped again is a newer state of the same runs.
  const names = new Set(found.map(({ name }) => name));
  for (const name of names) removeRun(idOf("folder", name));
  folderRuns.value = [...folderRuns.value.filter(({ name }) => !names.has(name)), ...found];
  watchRun(found[0]!, shown.value.length > 0 && found.length === 1);
}

/** Asks all origins but the server, once. */
export async function refreshLocal(): Promise<void> {
  const [, all] = await Promise.all([refreshBrowserRuns(), recordings()]);
  recorded.value = all;
}

/** Lists the runs in the browser's storage, which this tab or another may have added to; a shown one that was resumed is followed again. */
export async function refreshBrowserRuns(): Promise<void> {
  const [names, locked] = await Promise.all([browserRunNames(), lockedRuns()]);
  const records = names.map(async (name) => {
    const record = recordFacts(await new BrowserRunSource(name).text("run.json"));
    const isCutOff = record?.state === "running" && !locked.has(name);
    return { name, record: isCutOff ? { ...record, state: "cut off" } : record };
  });
  const runs = await Promise.all(records);
  runs.sort((a, b) => (b.record?.started ?? "").localeCompare(a.record?.started ?? ""));
  // The same list is not drawn again.
  if (JSON.stringify(runs) !== JSON.stringify(browserRuns.value)) browserRuns.value = runs;
  for (const { id, run } of shown.value) {
    const listed = runs.find(({ name }) => idOf("browser", name) === id);
    if (listed?.record?.state === "running" && run.hearing.value === "ended" && run instanceof WatchedRun) run.start();
  }
}

/** Asks the server which runs there are; a shown one that was resumed is followed again. */
export async function refreshServed(): Promise<void> {
  if (!isServed()) {
    served.value = null;
    return;
  }
  const list = await servedRuns();
  served.value = list;
  for (const { id, run } of shown.value) {
    const listed = list?.runs.find(({ name }) => idOf("served", name) === id);
    if (listed?.state === "running" && run.hearing.value === "ended" && run instanceof WatchedRun) run.start();
  }
}

/** Takes the token from the address that `longtail serve --control` printed, and leaves none in it. */
export function takeToken(): void {
  const query = new URLSearchParams(location.hash.replace(/^#/, ""));
  const given = query.get("token");
  if (!given) return;
  token.value = given;
  query.delete("token");
  history.replaceState(null, "", `#${query}`);
}
