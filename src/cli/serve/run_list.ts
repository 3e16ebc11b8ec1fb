// What the server says of the runs in a folder: name, command, state, how far, and when they were last heard of. Read
// anew for each request from run.json and the end of log.jsonl; a run that is broken in some way is listed all the same.

import * as fs from "node:fs/promises";
import { fileInside, folderInside } from "./inside.ts";

export interface ListedRun {
  name: string;
  command: string;
  /** As run.json says it; "unknown" where there is none or it is torn. */
  state: string;
  /** ISO 8601, or empty. */
  started: string;
  ended: string;
  /** Why it stopped or failed, or empty. */
  reason: string;
  /** Updates done, and planned where the log says it. */
  step: number;
  steps: number;
  logBytes: number;
  /** When the log was last written, milliseconds since 1970; 0 without a log. */
  heard: number;
  report: boolean;
}

/** Bytes at a log's end that are looked through for the update. */
const TAIL = 8192;

/** The runs of a folder, the newest first; empty where the folder does not exist. */
export async function listRuns(root: string): Promise<ListedRun[]> {
  const names = await fs.readdir(root).catch(() => [] as string[]);
  const runs: ListedRun[] = [];
  // One after another: a folder of hundreds of runs must not open hundreds of files at once.
  for (const name of names) {
    const run = await listedRun(root, name);
    if (run) runs.push(run);
  }
  return runs.sort((a, b) => orderOf(b).localeCompare(orderOf(a)) || a.name.localeCompare(b.name));
}

const orderOf = ({ started, heard }: ListedRun) => started || (heard ? new Date(heard).toISOString() : "");

async function listedRun(root: string, name: string): Promise<ListedRun | null> {
  const folder = await folderInside(root, name);
  if (!folder) return null;
  const [record, log, report] = await Promise.all([
    fileInside(folder, ["run.json"]),
    fileInside(folder, ["log.jsonl"]),
    fileInside(folder, ["report.html"]),
  ]);
  if (!record && !log) return null;
  const said = record ? await readObject(record.path) : {};
  const progress = log ? await progressOf(log.path, log.size) : { step: 0, steps: 0 };
  const text = (key: string, otherwise = "") => (typeof said[key] === "string" ? (said[key] as string) : otherwise);
  return {
    name,
    command: text("command"),
    state: text("state", "unknown"),
    started: text("started"),
    ended: text("ended"),
    reason: text("reason"),
    step: typeof said.step === "number" ? said.step : progress.step,
    steps: progress.steps,
    logBytes: log?.size ?? 0,
    heard: log?.modified ?? 0,
    report: report !== null,
  };
}

/** What run.json says of a run's state; null where it says nothing. */
export async function stateOf(folder: string): Promise<string | null> {
  const record = await fileInside(folder, ["run.json"]);
  const state = record ? (await readObject(record.path))["state"] : null;
  return typeof state === "string" ? state : null;
}

async function readObject(path: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(await fs.readFile(path, "utf8"));
    return value !== null && typeof value === "object" && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : {};
  } catch {
    return {};
  }
}

/** The update of the last line, and the number planned from the newest phase that counts updates. */
async function progressOf(path: string, size: number): Promise<{ step: number; steps: number }> {
  const result = { step: 0, steps: 0 };
  const handle = await fs.open(path, "r").catch(() => null);
  if (!handle) return result;
  try {
    const length = Math.min(TAIL, size);
    const { buffer, bytesRead } = await handle.read(new Uint8Array(length), 0, length, size - length);
    for (const line of new TextDecoder().decode(buffer.subarray(0, bytesRead)).split("\n")) {
      const value = parsed(line);
      if (typeof value?.step === "number") result.step = value.step;
      if (value?.kind === "phase" && value.unit === "updates" && typeof value.total === "number")
        result.steps = value.total;
    }
    return result;
  } catch {
    return result;
  } finally {
    await handle.close();
  }
}

function parsed(line: string): Record<string, unknown> | null {
  try {
    return JSON.parse(line) as Record<string, unknown> | null;
  } catch {
    // The first line of the tail is cut, and the last may be half written.
    return null;
  }
}
