// Downloads one file of a hub so that it is there whole and right or not at all: bytes go to a partial file that a later
// start continues, are hashed on their way, and get their final name only after they were compared and flushed.

import { createHash, type Hash, randomUUID } from "node:crypto";
import * as fs from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import process from "node:process";
import { LongtailError } from "../base/errors.ts";
import type { HubFile } from "../models/hub_id.ts";
import type { DiskCalls } from "./files.ts";
import { type HubContext, isPassing, refusedBy, storeFails, unreachable, wrongHash } from "./hub_errors.ts";
import { Attempts, Patience, type RequestSettings, request, retryAfter } from "./hub_requests.ts";

export interface Download {
  url: string;
  file: HubFile & { hash: NonNullable<HubFile["hash"]> };
  /** The final name. */
  target: string;
  context: HubContext;
  settings: RequestSettings & { disk: DiskCalls };
  /** Change of the number of bytes that are here; negative where something is thrown away. */
  onBytes: (change: number) => void;
  /** Ends the download; what has arrived is kept. */
  signal: AbortSignal;
  /** Another process has the file in hand. */
  onWait: () => void;
}

const PIECE = 4 * 1024 * 1024;
/** A lock that its holder has not touched for so long was left behind. */
const ABANDONED_MS = 60_000;
const TOUCH_MS = 10_000;
const POLL_MS = 250;

/** What an unfinished download is called. */
export const partialName = (target: string): string => `${target}.longtail-part`;

/**
 * Brings the file to `target` and returns the number of bytes that came over the network.
 * @throws LongtailError E-ENV-020 full disk, E-ENV-100 … 104 and E-FILE-130 … 132 from the hub, E-FILE-133 another hash twice
 */
export async function download(job: Download): Promise<number> {
  await fs.mkdir(dirname(job.target), { recursive: true });
  const release = await lock(`${job.target}.longtail-lock`, job.onWait);
  let fetched = 0;
  try {
    if (await isFile(job.target)) {
      job.onBytes(job.file.size);
      return 0;
    }
    const partial = partialName(job.target);
    for (let round = 1; ; round++) {
      const result = await fill(job, partial);
      fetched += result.fetched;
      if (result.hex === job.file.hash.hex) break;
      await job.settings.disk.rm(partial, { force: true });
      job.onBytes(-job.file.size);
      // What was kept from an earlier start may be to blame, and so may one bad transfer: once more from the beginning.
      if (round === 2) throw wrongHash(`${job.context.id.repository}, ${job.file.path}`, job.file.hash.hex, result.hex);
    }
    await job.settings.disk.rename(partial, job.target);
    await syncFolder(dirname(job.target));
    return fetched;
  } catch (error) {
    throw diskError(error, job.target);
  } finally {
    await release();
  }
}

/** Completes the partial file and says what its hash is. */
async function fill(job: Download, partial: string): Promise<{ hex: string; fetched: number }> {
  const { file, settings } = job;
  const handle = await settings.disk.open(partial, "a+");
  let fetched = 0;
  try {
    let have = (await handle.stat()).size;
    let hash = startHash(file);
    const restart = async () => {
      await handle.truncate(0);
      job.onBytes(-have);
      have = 0;
      hash = startHash(file);
    };
    job.onBytes(have);
    if (have > file.size) await restart();
    for (let at = 0; at < have; ) {
      const { bytesRead, buffer } = await handle.read(new Uint8Array(Math.min(PIECE, have - at)), 0, null, at);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    const receive = async (response: Response, patience: Patience) => {
      for await (const chunk of response.body ?? []) {
        patience.alive();
        // More than there can be: not that file.
        if (have + chunk.length > file.size) return await restart();
        await writeAll(handle, chunk);
        hash.update(chunk);
        have += chunk.length;
        fetched += chunk.length;
        job.onBytes(chunk.length);
      }
    };
    const attempts = new Attempts(settings);
    while (have < file.size) {
      const before = have;
      let after: number | null = null;
      let error: LongtailError | null = null;
      const patience = new Patience(settings.stallSeconds);
      try {
        const range: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
        const signal = AbortSignal.any([patience.signal, job.signal]);
        const response = await request(job.url, range, settings, job.context.endpoint, signal);
        if (response.ok) {
          const start = response.status === 206 ? rangeStart(response) : 0;
          if (start !== have) await restart();
          if (start !== have) await response.body?.cancel();
          else await receive(response, patience);
        } else {
          await response.body?.cancel();
          // A store behind the hub may refuse an address that has expired; the next attempt gets a fresh one.
          const elsewhere = new URL(response.url).origin !== new URL(job.context.endpoint).origin;
          error = elsewhere ? storeFails(response, job.context) : refusedBy(response, job.context);
          after = retryAfter(response);
          if (response.status === 416) await restart();
          else if (!elsewhere && !isPassing(response.status)) throw error;
        }
      } catch (caught) {
        if (caught instanceof LongtailError || isDiskTrouble(caught)) throw caught;
        if (job.signal.aborted) throw job.signal.reason;
        error = unreachable(caught, job.context);
      } finally {
        patience.end();
      }
      if (have >= file.size) break;
      if (have > before) attempts.succeeded();
      await attempts.failed(
        error ?? unreachable(new Error(`the answer ended after ${have} of ${file.size} bytes`), job.context),
        after,
      );
    }
    await handle.sync();
    return { hex: hash.digest("hex"), fetched };
  } finally {
    await handle.close();
  }
}

/** Git hashes a header with a file's content. */
function startHash({ size, hash }: Download["file"]): Hash {
  return hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

function rangeStart(response: Response): number {
  return Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? -1);
}

async function writeAll(handle: fs.FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length; ) at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten;
}

export async function isFile(path: string): Promise<boolean> {
  return (await fs.stat(path).catch(() => null))?.isFile() ?? false;
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, "r").catch(() => null);
  await handle?.sync().catch(() => {});
  await handle?.close();
}

const systemCode = (error: unknown) => (error as { code?: unknown } | null)?.code;
const FULL = new Set<unknown>(["ENOSPC", "EDQUOT", "EFBIG"]);
const isDiskTrouble = (error: unknown) =>
  FULL.has(systemCode(error)) || ["EIO", "EROFS", "EACCES"].includes(String(systemCode(error)));

function diskError(error: unknown, where: string): unknown {
  if (!FULL.has(systemCode(error))) return error;
  return new LongtailError("E-ENV-020", {
    what: "the disk is full",
    where,
    why: (error as Error).message,
    fix: "free some space, or choose another cache folder (HF_HOME); the download goes on from where it stopped",
    cause: error,
  });
}

interface Holder {
  process: number;
  host: string;
  token: string;
}

/** Waits until this process alone may write; returns what ends that. */
async function lock(path: string, onWait: () => void): Promise<() => Promise<void>> {
  const own: Holder = { process: process.pid, host: hostname(), token: randomUUID() };
  // Before the file is there: a waiter of this process may read it before the write is reported as done.
  held.add(own.token);
  for (let waited = false; ; waited = true) {
    try {
      await fs.writeFile(path, JSON.stringify(own), { flag: "wx" });
      break;
    } catch (error) {
      if (systemCode(error) !== "EEXIST") {
        held.delete(own.token);
        throw diskError(error, path);
      }
    }
    const text = await fs.readFile(path, "utf8").catch(() => null);
    const facts = await fs.stat(path).catch(() => null);
    if (text !== null && facts !== null && isAbandoned(text, facts.mtimeMs)) {
      await takeAway(path, text);
      continue;
    }
    if (!waited) onWait();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const timer = setInterval(() => {
    const now = new Date();
    fs.utimes(path, now, now).catch(() => {});
  }, TOUCH_MS);
  return async () => {
    clearInterval(timer);
    held.delete(own.token);
    await fs.rm(path, { force: true });
  };
}

/** Locks of this process: process numbers come again in containers, tokens do not. */
const held = new Set<string>();

function isAbandoned(text: string, touched: number): boolean {
  if (Date.now() - touched > ABANDONED_MS) return true;
  let holder: Holder;
  try {
    holder = JSON.parse(text) as Holder;
  } catch {
    // Being written at this moment, or damaged: age decides.
    return false;
  }
  if (holder.host !== hostname()) return false;
  if (holder.process === process.pid) return !held.has(holder.token);
  try {
    process.kill(holder.process, 0);
    return false;
  } catch (error) {
    return systemCode(error) === "ESRCH";
  }
}

/** Removes a lock that was left behind, and no newer one that has come into its place meanwhile. */
async function takeAway(path: string, text: string): Promise<void> {
  const aside = `${path}.${randomUUID().slice(0, 8)}`;
  try {
    await fs.rename(path, aside);
  } catch {
    // Somebody else was faster.
    return;
  }
  if ((await fs.readFile(aside, "utf8")) === text) await fs.rm(aside, { force: true });
  else await fs.rename(aside, path);
}
