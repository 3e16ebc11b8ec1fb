// The page's state, as signals: the connection to the engine, the run of this tab, what is stored, and the form. Components
// read signals and call the functions here; nothing else talks to the worker.

import { computed, signal } from "@preact/signals";
import { joinPreviews, LiveRun } from "./live_run.ts";
import type {
  DeviceFacts,
  Engine,
  EngineEvent,
  PreviewPicture,
  Sequenced,
  StartRequest,
  StorageFacts,
  StoredRun,
  WireError,
} from "./protocol.ts";
import { parseLog, type RunSource } from "./run_source.ts";
import {
  type HashResult,
  type MachinePreset,
  PRESETS,
  settingsFromHash,
  settingsOfToml,
  type TrainSettings,
} from "./settings.ts";
import { recall, remember } from "./small_state.ts";
import { BrowserRunSource } from "./sources/browser.ts";
import type { Verdict } from "./verdict.ts";

/** What this machine can do; null until the first 300 ms are over. */
export const verdict = signal<Verdict | null>(null);

/** What the worker's device is; null until it is open. */
export const device = signal<DeviceFacts | null>(null);
export const engineError = signal<WireError | null>(null);

/** Which numbers fit this machine. */
export const machine = computed<MachinePreset>(() => {
  const software = device.value?.software ?? verdict.value?.software ?? false;
  return PRESETS[software ? "software" : "hardware"];
});

export interface Download {
  received: number;
  total: number;
  cached: boolean;
}

/** Weights on their way, by file. */
export const downloads = signal<ReadonlyMap<string, Download>>(new Map());

/** The run that this tab started or resumed last, under way or over; null before the first one. */
export const activeRun = signal<LiveRun | null>(null);

/** What lies in the browser's storage; null until it was asked for. */
export const storage = signal<StorageFacts | null>(null);

/** A device that went away, while the run recovers. */
export const deviceLoss = signal<(EngineEvent & { kind: "device-lost" }) | null>(null);

/** Pictures of a drawing apart from runs, as they take shape; whoever asks for a drawing empties it. */
export const forming = signal<readonly PreviewPicture[]>([]);

/** The last thing that the engine warned of outside a run. */
export const warning = signal<(EngineEvent & { kind: "warning" }) | null>(null);

const fromAddress: HashResult = settingsFromHash(trainPart(globalThis.location?.hash ?? ""));

/** The form of the Train mode. Change it with `changeSettings`. */
export const settings = signal<TrainSettings>(fromAddress.settings);
/** What was wrong with the link that the page was opened with. */
export const linkProblems = signal<string[]>(fromAddress.problems);

export function changeSettings(change: Partial<TrainSettings>): void {
  settings.value = { ...settings.value, ...change };
}

/** Takes up an address that was pasted into the page. Own pictures, which no address carries, stay. */
export function readAddress(hash: string): void {
  const part = trainPart(hash);
  // `#mode=train` alone, as behind the page's name, says nothing of the settings.
  if (part === "") return;
  const { settings: read, problems } = settingsFromHash(part);
  linkProblems.value = problems;
  if (problems.length === 0) settings.value = { ...read, set: read.set ?? settings.value.set };
}

/** The settings in an address; other modes have addresses of their own (`#mode=watch&…`). */
function trainPart(hash: string): string {
  if (!hash.includes("=")) return "";
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  if ((query.get("mode") ?? "train") !== "train") return "";
  query.delete("mode");
  return query.toString();
}

export interface EngineParts {
  engine: Engine;
  /** Where run folders are read; the browser's storage where it is left out. */
  source?: (name: string) => RunSource;
}

let makeEngine: (() => Promise<EngineParts>) | null = null;
let connecting: Promise<Engine> | null = null;
let sourceOf = (name: string): RunSource => new BrowserRunSource(name);
const listeners = new Set<(event: EngineEvent) => void>();

/** Says how the engine is made; it is made at the first use. */
export function provideEngine(make: () => Promise<EngineParts>): void {
  makeEngine = make;
  connecting = null;
}

/** The engine, connected; the first call starts the worker. Rejects with a `WireError`. */
export function engine(): Promise<Engine> {
  connecting ??= connect().catch((error) => {
    connecting = null;
    engineError.value = wireError(error);
    throw engineError.value;
  });
  return connecting;
}

async function connect(): Promise<Engine> {
  if (!makeEngine) throw new Error("no engine was provided");
  const parts = await makeEngine();
  if (parts.source) sourceOf = parts.source;
  const { port1, port2 } = new MessageChannel();
  let last = 0;
  port1.onmessage = ({ data }: MessageEvent<Sequenced<EngineEvent>>) => {
    if (last > 0 && data.seq !== last + 1) console.warn(`engine events ${last + 1} to ${data.seq - 1} are missing`);
    last = data.seq;
    takeEvent(data);
  };
  await parts.engine.connect(port2);
  engineError.value = null;
  followMotion(parts.engine);
  return parts.engine;
}

/** Pictures are shown while they take shape where somebody looks, and does not want things to stand still. */
function followMotion(worker: Engine): void {
  if (typeof matchMedia !== "function") return;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const tell = () => void worker.previews(!still.matches && document.visibilityState === "visible").catch(() => {});
  still.addEventListener("change", tell);
  document.addEventListener("visibilitychange", tell);
  tell();
}

/** Opens the device in the worker; its facts stand in `device` afterwards. */
export async function openDevice(): Promise<DeviceFacts> {
  const opened = await engine();
  device.value ??= await opened.open();
  return device.value;
}

/** Calls `listener` for every event of the engine, of all runs. Returns the way to stop. */
export function onEngineEvent(listener: (event: EngineEvent) => void): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

function takeEvent(event: EngineEvent): void {
  if (event.kind === "download") {
    const { name, received, total, cached } = event;
    downloads.value = new Map(downloads.value).set(name, { received, total, cached });
  } else if (event.kind === "device-lost") deviceLoss.value = event;
  else if (event.kind === "warning") warning.value = event;
  else if (event.kind === "preview" && event.run === null) forming.value = joinPreviews(forming.value, event.pictures);
  else {
    const run = activeRun.value;
    if (run?.name === event.run) run.take(event);
    if (event.kind === "status" && !["starting", "running", "paused", "stopping"].includes(event.status))
      void refreshStorage();
  }
  for (const listener of listeners) listener(event);
}

/** Reads a run's folder. */
export const runSource = (name: string): RunSource => sourceOf(name);

/**
 * Starts a run, or goes on with one, and makes it the tab's own. What an earlier visit logged is shown first. Resolves when
 * it is under way; rejects with a `WireError`.
 */
export async function startRun(request: StartRequest): Promise<LiveRun> {
  const before = activeRun.value;
  const run = new LiveRun(request.name, request.command);
  // Where a run is under way the engine will refuse another; the events of this moment belong to the view that is there.
  if (!before?.active) activeRun.value = run;
  try {
    await openDevice();
    if (request.resume) run.add(parseLog((await runSource(run.name).text("log.jsonl")) ?? ""));
    await (await engine()).start(request);
    activeRun.value = run;
  } catch (error) {
    const wire = wireError(error);
    // A request that was refused leaves no run behind; what was on the screen stays there.
    if (activeRun.value === run && run.view.began === null) activeRun.value = before;
    else {
      run.error.value = wire;
      run.status.value = "failed";
    }
    throw wire;
  }
  void remember("lastRun", request.name);
  return run;
}

/** Goes on with a run of this browser from its last checkpoint. Rejects with a `WireError`. */
export async function resumeRun({ name, command }: Pick<StoredRun, "name" | "command">): Promise<LiveRun> {
  const kind = command === "align" ? "align" : "train";
  const toml = (await runSource(name).text("config.toml")) ?? `preset = "${kind === "align" ? "embedded" : "lora"}"\n`;
  const run = await startRun({ command: kind, toml, name, resume: true });
  // The form describes the run that is under way, also where an earlier visit filled it in.
  if (kind === "train") settings.value = settingsOfToml(toml, name, machine.value) ?? settings.value;
  return run;
}

/** Takes a run out of the storage, and off the screen where it is this tab's. Rejects with a `WireError`. */
export async function removeStoredRun(name: string): Promise<void> {
  await (await engine()).removeRun(name);
  if (activeRun.value?.name === name && !activeRun.value.active) activeRun.value = null;
}

/** Asks the worker what is stored; `storage` holds the answer. */
export async function refreshStorage(): Promise<StorageFacts | null> {
  try {
    storage.value = await (await engine()).storage();
  } catch {
    // Without storage there is nothing to list.
  }
  return storage.value;
}

/** The name of the Web Lock that whoever writes a run holds, in any tab. */
export const runLock = (name: string): string => `longtail/runs/${name}`;

/** Names of the runs that some tab is writing now. */
export async function lockedRuns(): Promise<Set<string>> {
  const held = (await navigator.locks?.query?.())?.held ?? [];
  const prefix = runLock("");
  return new Set(held.flatMap(({ name }) => (name?.startsWith(prefix) ? [name.slice(prefix.length)] : [])));
}

/** The run of a kind to offer for resuming: unfinished, the last one if it is among them, else the newest. */
export async function resumable(command = "train"): Promise<{ run: StoredRun; elsewhere: boolean } | null> {
  const facts = await refreshStorage();
  const [locked, last] = [await lockedRuns(), await recall("lastRun")];
  const open = (facts?.runs ?? []).filter((run) => run.command === command && run.state !== "finished");
  open.sort((a, b) => Number(b.name === last) - Number(a.name === last) || b.started.localeCompare(a.started));
  const run = open[0];
  return run ? { run, elsewhere: locked.has(run.name) } : null;
}

/** Anything that was thrown, as the parts that people are shown. */
export function wireError(error: unknown): WireError {
  if (error && typeof error === "object") {
    const { code, what, parts, message } = error as Partial<WireError> & { parts?: WireError; message?: string };
    if (typeof code === "string" && parts) return { ...parts, code };
    if (typeof code === "string" && typeof what === "string") return error as WireError;
    if (typeof message === "string") return { code: "E-RUN-099", what: message || String(error) };
  }
  return { code: "E-RUN-099", what: String(error) };
}
