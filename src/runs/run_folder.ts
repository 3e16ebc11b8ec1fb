// The folder of one run: its name, what lies where in it, and the rules that keep a finished run from being overwritten.
// run.json holds the state (running, stopped, finished, failed), so that a second start knows what it meets.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { basename, dirname, join } from "../base/paths.ts";

export type RunState = "running" | "stopped" | "failed" | "finished";

export interface RunRequest {
  /** The command, for the automatic name. */
  command: string;
  /** Folder of runs, `runs`. */
  folder: string;
  /** `auto`, or a name. */
  name: string;
  /** `auto`, `no`, or the path of a run folder or of one of its checkpoints. */
  resume: string;
  now?: Date;
  /** The whole path of one that begins at the working folder; a page has none. */
  absolute?: (path: string) => string;
}

export interface RunRecord {
  state: RunState;
  command: string;
  started: string;
  ended?: string;
  /** Updates done when it ended. */
  step?: number;
  /** Why it stopped or failed. */
  reason?: string;
}

/** Where everything lies, `step` in updates done. */
export interface RunPaths {
  folder: string;
  config: string;
  resolvedConfig: string;
  environment: string;
  record: string;
  log: string;
  reportData: string;
  /** Times of kernels, where the run was profiled. */
  profile: string;
  report: string;
  modelCard: string;
  checkpoints: string;
  /** Held by the process that works on the run. */
  lock: string;
  samples(step: number): string;
  /** `samples/step-000040/03-seed42.png`: the picture of item `index`. */
  picture(step: number, index: number, seed: number): string;
  checkpoint(step: number): string;
  /** `<name>.transformer.safetensors`. */
  transformer: string;
  /** `<name>.lora.safetensors`. */
  lora: string;
}

const stepName = (step: number) => `step-${String(step).padStart(6, "0")}`;

/** Paths of a run folder. Pure. */
export function runPaths(folder: string): RunPaths {
  const name = basename(folder);
  const at = (...parts: string[]) => join(folder, ...parts);
  return {
    folder,
    config: at("config.toml"),
    resolvedConfig: at("config.resolved.toml"),
    environment: at("env.json"),
    record: at("run.json"),
    log: at("log.jsonl"),
    reportData: at("report.json"),
    profile: at("profile.json"),
    report: at("report.html"),
    modelCard: at("README.md"),
    checkpoints: at("ckpt"),
    lock: at(".lock"),
    samples: (step) => at("samples", stepName(step)),
    picture: (step, index, seed) => at("samples", stepName(step), `${String(index).padStart(2, "0")}-seed${seed}.png`),
    checkpoint: (step) => at("ckpt", stepName(step)),
    transformer: at(`${name}.transformer.safetensors`),
    lora: at(`${name}.lora.safetensors`),
  };
}

/** `align-20261122-142530`, local time. */
export function automaticName(command: string, now: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${command}-${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

export class RunFolder {
  readonly name: string;
  readonly paths: RunPaths;
  /** True where an earlier start of this run is continued. */
  readonly resumed: boolean;
  /** The checkpoint folder that the user named; null where the newest whole one is to be taken. */
  readonly checkpoint: string | null;
  record: RunRecord;
  private readonly files: FileStore;
  /** Paths and texts of a continued run's record and configuration as they were found. */
  private found: readonly (readonly [string, string])[] = [];

  constructor(files: FileStore, folder: string, resumed: boolean, checkpoint: string | null, record: RunRecord) {
    this.files = files;
    this.name = basename(folder);
    this.paths = runPaths(folder);
    this.resumed = resumed;
    this.checkpoint = checkpoint;
    this.record = record;
  }

  /** Writes config.toml (the user's own text, or a note that there was none) and config.resolved.toml. */
  async writeConfig(source: string | null, resolvedToml: string): Promise<void> {
    await this.files.writeAtomic(
      this.paths.config,
      source ?? "# No configuration file was given; see config.resolved.toml.\n",
    );
    await this.files.writeAtomic(this.paths.resolvedConfig, resolvedToml);
  }

  /** Writes env.json: versions, adapter, system. */
  async writeEnvironment(environment: unknown): Promise<void> {
    await this.files.writeAtomic(this.paths.environment, `${JSON.stringify(environment, null, 2)}\n`);
  }

  /** Records how the run ended. */
  async finish(state: Exclude<RunState, "running">, details: { step?: number; reason?: string } = {}): Promise<void> {
    this.record = { ...this.record, ...details, state, ended: new Date().toISOString() };
    await this.writeRecord();
  }

  /** Remembers what `giveBack` puts back; before anything is written into a folder that is continued. */
  async remember(): Promise<void> {
    const { record, config, resolvedConfig } = this.paths;
    const found: [string, string][] = [];
    for (const path of [record, config, resolvedConfig])
      if (await this.files.exists(path)) found.push([path, await this.files.readText(path)]);
    this.found = found;
  }

  /** Leaves record and configuration as they were: the run turned out to be another one than was to be continued. */
  async giveBack(): Promise<void> {
    for (const [path, text] of this.found) await this.files.writeAtomic(path, text);
  }

  async writeRecord(): Promise<void> {
    await this.files.writeAtomic(this.paths.record, `${JSON.stringify(this.record, null, 2)}\n`);
  }
}

/**
 * Makes a new run folder or reopens an unfinished one.
 * Throws E-CFG-020 (bad name), 021 (a finished run has the name), 022 (the folder exists and resume is "no", or is not a
 * run's), 023 (the run to resume does not exist), E-ENV-020 or E-FILE-004 where it cannot be written, E-ENV-022 where it
 * cannot be made.
 */
export async function openRunFolder(files: FileStore, request: RunRequest): Promise<RunFolder> {
  if (request.resume !== "auto" && request.resume !== "no") return await reopenNamed(files, request.resume, request);
  const now = request.now ?? new Date();
  if (request.name === "auto")
    return await create(
      files,
      await freeName(files, join(request.folder, automaticName(request.command, now))),
      request,
      now,
    );
  checkName(request.name);
  const folder = join(request.folder, request.name);
  if (!(await files.list(folder)).length) return await create(files, folder, request, now);
  const record = await readRecord(files, folder);
  if (!record) {
    throw new LongtailError("E-CFG-022", {
      where: folder,
      what: "the folder exists and is not a run's",
      why: "it has no run.json",
      fix: "choose another run.name",
    });
  }
  if (record.state === "finished") {
    throw new LongtailError("E-CFG-021", {
      where: folder,
      what: "a finished run has this name",
      why: "finished runs are not overwritten",
      fix: `choose another run.name, or continue it with --run.resume=${folder} and everything else as before`,
    });
  }
  if (request.resume === "no") {
    throw new LongtailError("E-CFG-022", {
      where: folder,
      what: "an unfinished run has this name",
      why: 'run.resume = "no" starts afresh and never overwrites',
      fix: 'choose another run.name, remove the folder, or set run.resume = "auto"',
    });
  }
  return await reopen(files, folder, null, record);
}

function checkName(name: string): void {
  const problem =
    name.length > 100
      ? "it is longer than 100 characters"
      : /[^\p{L}\p{N}._ -]/u.test(name)
        ? "letters, digits, dot, dash, underscore and space are allowed"
        : /^[. -]|[. ]$/.test(name)
          ? "it begins or ends with a dot, dash or space"
          : null;
  if (problem) {
    throw new LongtailError("E-CFG-020", {
      where: "run.name",
      what: `${JSON.stringify(name)} cannot be a folder's name`,
      why: problem,
      fix: 'choose a plain name, or "auto"',
    });
  }
}

/** Two starts within a second get different folders. */
async function freeName(files: FileStore, wanted: string): Promise<string> {
  for (let i = 1; ; i++) {
    const folder = i === 1 ? wanted : `${wanted}-${i}`;
    if (!(await files.exists(folder))) return folder;
  }
}

async function create(files: FileStore, folder: string, request: RunRequest, now: Date): Promise<RunFolder> {
  await makeRunFolder(files, folder);
  const run = new RunFolder(files, folder, false, null, {
    state: "running",
    command: request.command,
    started: now.toISOString(),
  });
  await run.writeRecord();
  return run;
}

/** A folder that cannot be made is the environment's fault: a missing drive, a file on the way, permissions. */
async function makeRunFolder(files: FileStore, folder: string): Promise<void> {
  try {
    await files.makeFolder(folder);
  } catch (error) {
    if (!(error instanceof LongtailError) || !error.code.startsWith("E-FILE-")) throw error;
    throw new LongtailError("E-ENV-022", {
      what: "the run's folder cannot be made",
      where: folder,
      why: error.parts.why ?? "a part of its path is a file, or a drive that is not there",
      fix: "set run.folder to a folder in which you may write",
      cause: error,
    });
  }
}

async function reopen(
  files: FileStore,
  folder: string,
  checkpoint: string | null,
  record: RunRecord,
): Promise<RunFolder> {
  const { ended: _ended, reason: _reason, ...kept } = record;
  const run = new RunFolder(files, folder, true, checkpoint, { ...kept, state: "running" });
  await run.remember();
  await run.writeRecord();
  return run;
}

async function reopenNamed(files: FileStore, path: string, request: RunRequest): Promise<RunFolder> {
  const inRuns = join(request.folder, path);
  const given = (await files.exists(path)) ? path : (await files.exists(inRuns)) ? inRuns : null;
  if (given === null) {
    throw new LongtailError("E-CFG-023", {
      where: "run.resume",
      what: `there is no run or checkpoint at ${path}`,
      fix: "give the path of a run folder or of one of its ckpt/step-… folders",
    });
  }
  const folder = given.replace(/[/\\]+$/, "");
  const own = await readRecord(files, folder);
  if (own) return await reopen(files, folder, null, own);
  const whole = request.absolute?.(folder) ?? folder;
  const parent = dirname(dirname(whole));
  const record = basename(dirname(whole)) === "ckpt" ? await readRecord(files, parent) : null;
  if (record) return await reopen(files, parent, whole, record);
  throw new LongtailError("E-CFG-023", {
    where: "run.resume",
    what: `${path} is neither a run folder nor a checkpoint of one`,
    why: "there is no run.json",
    fix: "give the path of a run folder or of one of its ckpt/step-… folders",
  });
}

/** The record of a run folder, or null where the folder is not a run's. One that cannot be read counts as a failed run's. */
export async function readRecord(files: FileStore, folder: string): Promise<RunRecord | null> {
  const path = join(folder, "run.json");
  if (!(await files.exists(path))) return null;
  try {
    return JSON.parse(await files.readText(path)) as RunRecord;
  } catch {
    return { state: "failed", command: "", started: "", reason: "run.json cannot be read" };
  }
}
