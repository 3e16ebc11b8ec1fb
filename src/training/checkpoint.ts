// Checkpoints from which a run goes on bit for bit. A checkpoint is a folder `step-000200` with one safetensors file a
// group of tensors, state.json, and manifest.json, which names the size and SHA-256 of every file. It is written under
// another name, manifest last, and renamed when it is whole: whatever happens meanwhile, a torn one is never picked up.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { type BorrowedElements, writeSafetensors } from "../formats/safetensors_write.ts";
import { exactJson, type JsonValue } from "./exact_json.ts";
import { HashingFiles, hashOf } from "./hashing_files.ts";

/** Rises when a checkpoint of an older version could no longer be read. */
const FORMAT = "longtail-checkpoint";
const VERSION = 1;
const MANIFEST = "manifest.json";
const STATE = "state.json";
const BEST = "best.json";
const PARTIAL = ".partial";

/** Element types of a checkpoint: numbers, and words of packed codes. */
export type CheckpointType = "F32" | "U32";
export type CheckpointValues = Float32Array | Uint32Array;

/** How a variable of the device appears in a checkpoint. */
export const checkpointEntry = (variable: {
  name: string;
  shape: readonly number[];
  dtype: string;
}): { name: string; shape: readonly number[]; dtype: CheckpointType } => ({
  name: variable.name,
  shape: variable.shape,
  dtype: variable.dtype === "u32" ? "U32" : "F32",
});

type SavedValues = CheckpointValues | BorrowedElements;

export interface CheckpointTensor {
  name: string;
  shape: readonly number[];
  /** F32 where it is not given. */
  dtype?: CheckpointType;
  /** Fetches the values when their turn comes, so that the set need not lie in memory at once. */
  load: () => SavedValues | Promise<SavedValues>;
}

/**
 * What must be the same when a checkpoint is continued, as flat keys: options of the run ("align.sigma_max"), and what
 * the model is ("transformer.sha256").
 */
export interface Identity {
  config: Readonly<Record<string, JsonValue>>;
  model: Readonly<Record<string, JsonValue>>;
}

export interface CheckpointContent {
  /** Updates done. */
  step: number;
  /** Tensors by group: weights or adapter, first and second moment, an average. Group names become file names. */
  groups: Readonly<Record<string, readonly CheckpointTensor[]>>;
  /** Everything else that decides how the run goes on; numbers must be finite. */
  state: JsonValue;
  identity: Identity;
}

interface Manifest {
  format: typeof FORMAT;
  version: number;
  step: number;
  /** Groups, each in the file `<group>.safetensors`. */
  groups: string[];
  files: Record<string, { bytes: number; sha256: string }>;
  identity: Identity;
}

/** A checkpoint whose files were all found whole. */
export interface VerifiedCheckpoint {
  path: string;
  step: number;
  manifest: Manifest;
}

export interface SkippedCheckpoint {
  path: string;
  reason: string;
}

const join = (folder: string, name: string) => `${folder}/${name}`;
const stepName = (step: number) => `step-${String(step).padStart(6, "0")}`;
const groupFile = (group: string) => `${group}.safetensors`;

/**
 * Saves a checkpoint as `<folder>/step-<step>` and returns its path. One that exists there is replaced.
 * @param folder the run's folder of checkpoints
 * @throws what the file store throws (E-ENV-020 where the disk is full); nothing half-written stays behind then
 */
export async function saveCheckpoint(files: FileStore, folder: string, content: CheckpointContent): Promise<string> {
  const { step, groups, identity } = content;
  if (!Number.isInteger(step) || step < 0) throw new RangeError(`step ${step} is not a whole number`);
  const state = exactJson(content.state);
  await removePartial(files, folder);
  const path = join(folder, stepName(step));
  const partial = path + PARTIAL;
  try {
    const hashing = new HashingFiles(files);
    for (const [group, tensors] of Object.entries(groups)) {
      if (!/^[a-z][a-z0-9_-]*$/.test(group))
        throw new RangeError(`group ${JSON.stringify(group)} cannot be a file's name`);
      const entries = tensors.map(({ name, shape, dtype, load }) => ({
        name,
        shape,
        dtype: dtype ?? "F32",
        data: load,
      }));
      await writeSafetensors(hashing, join(partial, groupFile(group)), entries);
    }
    await hashing.writeAtomic(join(partial, STATE), state);
    const manifest: Manifest = {
      format: FORMAT,
      version: VERSION,
      step,
      groups: Object.keys(groups),
      files: Object.fromEntries([...hashing.written].map(([file, facts]) => [file.slice(partial.length + 1), facts])),
      identity,
    };
    await files.writeAtomic(join(partial, MANIFEST), `${exactJson(manifest as unknown as JsonValue, 2)}\n`);
    if (await files.exists(path)) {
      // Moved aside under a name that nobody picks up: a folder cannot be renamed onto another.
      const old = join(folder, `${stepName(step)}-replaced${PARTIAL}`);
      await files.rename(path, old);
      await files.rename(partial, path);
      await files.remove(old);
    } else await files.rename(partial, path);
  } catch (error) {
    // What failed is worth more to the user than a failure to clean up after it.
    await files.remove(partial).catch(() => {});
    throw error;
  }
  return path;
}

/** Removes what saves left behind that were killed. */
async function removePartial(files: FileStore, folder: string): Promise<void> {
  for (const name of await files.list(folder)) if (name.endsWith(PARTIAL)) await files.remove(join(folder, name));
}

/** Steps of the checkpoints in a folder, newest first; nothing is verified. */
async function stepsOf(files: FileStore, folder: string): Promise<number[]> {
  const found = (await files.list(folder)).map((name) => /^step-(\d{6,})$/.exec(name)?.[1]);
  return found
    .filter((digits) => digits !== undefined)
    .map(Number)
    .sort((a, b) => b - a);
}

/**
 * The newest checkpoint that is whole, sizes and hashes compared, or null. `skipped` names every newer one that is not,
 * with the reason, and saves that did not finish.
 */
export async function newestCheckpoint(
  files: FileStore,
  folder: string,
): Promise<{ newest: VerifiedCheckpoint | null; skipped: SkippedCheckpoint[] }> {
  const skipped: SkippedCheckpoint[] = [];
  for (const name of await files.list(folder)) {
    if (name.endsWith(PARTIAL)) skipped.push({ path: join(folder, name), reason: "its save did not finish" });
  }
  for (const step of await stepsOf(files, folder)) {
    const path = join(folder, stepName(step));
    const found = await verify(files, path);
    if (typeof found !== "string") return { newest: found, skipped };
    skipped.push({ path, reason: found });
  }
  return { newest: null, skipped };
}

/** The checkpoint, or what is wrong with it. */
async function verify(files: FileStore, path: string): Promise<VerifiedCheckpoint | string> {
  const place = join(path, MANIFEST);
  if (!(await files.exists(place))) return "it has no manifest.json";
  let manifest: Manifest;
  try {
    manifest = JSON.parse(await files.readText(place)) as Manifest;
  } catch {
    return "its manifest.json cannot be read";
  }
  if (manifest?.format !== FORMAT) return "its manifest.json is not a checkpoint's";
  if (manifest.version !== VERSION)
    return `it has format version ${manifest.version}, and this program reads ${VERSION}`;
  const { step, groups, files: listed, identity } = manifest;
  const isWhole =
    Number.isInteger(step) &&
    Array.isArray(groups) &&
    isRecord(listed) &&
    isRecord(identity?.config) &&
    isRecord(identity?.model);
  if (!isWhole) return "its manifest.json is incomplete";
  for (const name of [STATE, ...groups.map(groupFile)]) {
    const facts = Object.hasOwn(listed, name) ? listed[name]! : null;
    if (!facts) return `its manifest.json does not list ${name}`;
    const file = join(path, name);
    if (!(await files.exists(file))) return `${name} is missing`;
    const handle = await files.open(file);
    try {
      if (handle.size !== facts.bytes) return `${name} has ${handle.size} bytes instead of ${facts.bytes}`;
      if ((await hashOf(handle)) !== facts.sha256) return `${name} has changed: its SHA-256 is not the manifest's`;
    } finally {
      await handle.close();
    }
  }
  return { path, step, manifest };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** An open checkpoint. */
export class Checkpoint {
  readonly path: string;
  readonly step: number;
  readonly state: JsonValue;
  readonly groups: ReadonlyMap<string, Safetensors>;

  constructor(path: string, step: number, state: JsonValue, groups: ReadonlyMap<string, Safetensors>) {
    this.path = path;
    this.step = step;
    this.state = state;
    this.groups = groups;
  }

  /**
   * Hands every tensor of a group to `take`, one at a time, after checking that the group holds exactly these tensors.
   * @throws LongtailError E-RUN-012 where group, names, shapes or element types differ
   */
  async restore(
    group: string,
    expected: readonly { name: string; shape: readonly number[]; dtype?: CheckpointType }[],
    take: (name: string, values: CheckpointValues) => void | Promise<void>,
  ): Promise<void> {
    const refuse = (why: string): never => {
      throw new LongtailError("E-RUN-012", {
        what: `the checkpoint's tensors do not fit this run: ${group}`,
        where: this.path,
        why,
        fix: "continue with the configuration and model that the run began with, or start a new run",
      });
    };
    const file = this.groups.get(group) ?? refuse(`it has ${[...this.groups.keys()].join(", ")} alone`);
    for (const { name, shape, dtype } of expected) {
      const own = file.tensors.get(name) ?? refuse(`${name} is missing`);
      if (own.shape.join() !== shape.join())
        refuse(`${name} has shape [${own.shape.join(", ")}], expected [${shape.join(", ")}]`);
      if (own.dtype !== (dtype ?? "F32")) refuse(`${name} has element type ${own.dtype}, expected ${dtype ?? "F32"}`);
    }
    const names = new Set(expected.map(({ name }) => name));
    const other = file.names().find((name) => !names.has(name));
    if (other !== undefined) refuse(`${other} is no tensor of this run`);
    for (const { name, dtype } of expected) {
      await take(name, dtype === "U32" ? wordsOf(await file.readBytes(name)) : await file.readF32(name));
    }
  }

  async close(): Promise<void> {
    for (const file of this.groups.values()) await file.close();
  }
}

/**
 * Opens a checkpoint: one that `newestCheckpoint` verified, or a path, which is verified first.
 * @param expected what the run that goes on is made of
 * @throws LongtailError E-RUN-010 another configuration, E-RUN-011 another model, E-RUN-013 not whole
 */
export async function loadCheckpoint(
  files: FileStore,
  from: VerifiedCheckpoint | string,
  expected: Identity,
): Promise<Checkpoint> {
  const found = typeof from === "string" ? await verify(files, from.replace(/[/\\]+$/, "")) : from;
  if (typeof found === "string") {
    throw new LongtailError("E-RUN-013", {
      what: "the checkpoint is not whole",
      where: from as string,
      why: found,
      fix: "name another checkpoint, or the run's folder to continue from the newest whole one",
    });
  }
  const { path, step, manifest } = found;
  refuseOther("E-RUN-010", "configuration", path, manifest.identity.config, expected.config);
  refuseOther("E-RUN-011", "model", path, manifest.identity.model, expected.model);
  const state = JSON.parse(await files.readText(join(path, STATE))) as JsonValue;
  const groups = new Map<string, Safetensors>();
  try {
    for (const group of manifest.groups) groups.set(group, await Safetensors.open(files, join(path, groupFile(group))));
  } catch (error) {
    for (const file of groups.values()) await file.close();
    throw error;
  }
  return new Checkpoint(path, step, state, groups);
}

/** Bytes of the file as words; they may begin anywhere in a larger buffer. */
const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer);

type Flat = Readonly<Record<string, JsonValue>>;

function refuseOther(code: string, subject: string, path: string, saved: Flat, now: Flat): void {
  const text = (values: Flat, key: string) => (Object.hasOwn(values, key) ? exactJson(values[key]!) : "not set");
  const keys = [...new Set([...Object.keys(saved), ...Object.keys(now)])].sort();
  const different = keys.filter((key) => text(saved, key) !== text(now, key));
  if (different.length === 0) return;
  const shown = different.slice(0, 3).map((key) => `${key} was ${text(saved, key)} and is ${text(now, key)}`);
  throw new LongtailError(code, {
    what: `the checkpoint was made with another ${subject}: ${different.slice(0, 3).join(", ")}${different.length > 3 ? ", ..." : ""}`,
    where: path,
    why: shown.join("; "),
    fix:
      subject === "model"
        ? "continue with the files that the run began with, or choose another run.name"
        : "set the values back to continue this run, or choose another run.name to start a new one",
  });
}

/** A nested configuration as flat keys, "align.sigma_max"; `leaveOut` drops what may change when a run goes on. */
export function flatKeys(
  config: Readonly<Record<string, unknown>>,
  leaveOut: (key: string) => boolean = () => false,
): Record<string, JsonValue> {
  const flat: Record<string, JsonValue> = {};
  const walk = (values: Readonly<Record<string, unknown>>, prefix: string) => {
    for (const [name, value] of Object.entries(values)) {
      const key = prefix + name;
      if (leaveOut(key) || value === undefined) continue;
      if (isRecord(value)) walk(value, `${key}.`);
      else flat[key] = value as JsonValue;
    }
  };
  walk(config, "");
  return flat;
}

/** Marks the checkpoint of a step as the best so far: rotation keeps it. */
export async function markBest(files: FileStore, folder: string, step: number, reason: string): Promise<void> {
  await files.writeAtomic(join(folder, BEST), `${JSON.stringify({ step, reason }, null, 2)}\n`);
}

/** The path and step of the checkpoint that is marked best, or null. */
export async function bestCheckpoint(
  files: FileStore,
  folder: string,
): Promise<{ path: string; step: number; reason: string } | null> {
  const place = join(folder, BEST);
  if (!(await files.exists(place))) return null;
  try {
    const { step, reason } = JSON.parse(await files.readText(place)) as { step: number; reason: string };
    return Number.isInteger(step) ? { path: join(folder, stepName(step)), step, reason: String(reason) } : null;
  } catch {
    return null;
  }
}

/**
 * Removes all checkpoints but the newest `keep` and the one marked best, and returns the paths removed. Each is renamed
 * before it is emptied, so that a kill in the middle leaves no torn folder under a checkpoint's name.
 */
export async function rotateCheckpoints(files: FileStore, folder: string, keep: number): Promise<string[]> {
  const best = (await bestCheckpoint(files, folder))?.step;
  const removed: string[] = [];
  let kept = 0;
  for (const step of await stepsOf(files, folder)) {
    const path = join(folder, stepName(step));
    // A folder without a manifest is no checkpoint: it takes nobody's place and is left for the user to look at.
    if (!(await files.exists(join(path, MANIFEST)))) continue;
    if (step === best) continue;
    if (kept++ < keep) continue;
    await files.rename(path, path + PARTIAL);
    await files.remove(path + PARTIAL);
    removed.push(path);
  }
  return removed;
}
