// Follows a file that may grow, in slices short enough that the page stays responsive. The same for the browser's storage,
// a folder that was picked, and a server that is asked by ranges; what differs is how bytes from an offset on are got.

import type { LogParser } from "./log_parser.ts";
import { breathe, type LogTaker } from "./watch_source.ts";

export interface GrowingFile {
  /**
   * Bytes from `offset` on, at most about a megabyte; null where there is no file. Where the bytes before `offset` are not
   * the ones that were read before, `reset` is true and the bytes are those from the beginning.
   */
  read(offset: number): Promise<{ bytes: Uint8Array; reset: boolean } | null>;
  /** Whether more may come. Throws, as `read` does, where the origin does not answer. */
  goesOn(): Promise<boolean>;
}

export interface FollowTimes {
  /** Milliseconds between two looks. */
  look: number;
  /** Milliseconds of work before the page gets a turn. */
  slice: number;
}

export const FOLLOW_TIMES: FollowTimes = { look: 500, slice: 8 };

/** Bytes that are decoded and parsed at once: a few hundred lines. */
const PIECE = 64 * 1024;

/** Gives all lines so far and then new ones; returns the way to stop. */
export function followFile(
  file: GrowingFile,
  parser: LogParser,
  taker: LogTaker,
  times: FollowTimes = FOLLOW_TIMES,
): () => void {
  let stopped = false;
  void follow(file, parser, taker, times, () => stopped).catch(() => taker.connection?.("lost"));
  return () => {
    stopped = true;
  };
}

async function follow(
  file: GrowingFile,
  parser: LogParser,
  taker: LogTaker,
  times: FollowTimes,
  stopped: () => boolean,
): Promise<void> {
  let offset = 0;
  let caughtUp = false;
  let decoder = new TextDecoder();
  let sliceBegan = performance.now();
  let lost = false;
  while (!stopped()) {
    let goesOn = true;
    let found: Awaited<ReturnType<GrowingFile["read"]>> = null;
    try {
      // Asked before the bytes: what was written before the end is then surely seen.
      goesOn = await file.goesOn();
      found = await file.read(offset);
      if (lost) taker.connection?.("live");
      lost = false;
    } catch {
      if (!lost) taker.connection?.("lost");
      lost = true;
    }
    if (stopped()) return;
    if (found?.reset) {
      offset = 0;
      decoder = new TextDecoder();
      parser.reset();
      taker.reset?.();
    }
    const bytes = found?.bytes ?? new Uint8Array();
    for (let at = 0; at < bytes.length && !stopped(); at += PIECE) {
      const lines = parser.push(decoder.decode(bytes.subarray(at, at + PIECE), { stream: true }));
      if (lines.length > 0) taker.lines(lines);
      if (performance.now() - sliceBegan >= times.slice) {
        await breathe();
        sliceBegan = performance.now();
      }
    }
    offset += bytes.length;
    if (bytes.length > 0 || stopped()) continue;
    if (!goesOn && !lost) {
      const last = parser.finish();
      if (last.length > 0) taker.lines(last);
      if (!caughtUp) taker.caughtUp?.();
      taker.ended?.();
      return;
    }
    if (!caughtUp) taker.caughtUp?.();
    caughtUp = true;
    await new Promise((resolve) => setTimeout(resolve, times.look));
    sliceBegan = performance.now();
  }
}

/** Most bytes of one read: a file of a gigabyte must not lie in memory whole. */
const MOST_BYTES = 1024 * 1024;
/** Bytes before an offset that are compared to notice another file. */
const COMPARED = 128;

/** A GrowingFile over anything that gives the file anew each time. */
export function growingBlob(latest: () => Promise<Blob | null>, goesOn: () => Promise<boolean>): GrowingFile {
  let before: Uint8Array = new Uint8Array();
  const bytesOf = async (blob: Blob) => new Uint8Array(await blob.arrayBuffer());
  return {
    goesOn,
    async read(offset) {
      const blob = await latest();
      if (!blob) return null;
      // Nothing new: the usual case while one waits, and not worth a comparison.
      if (blob.size === offset) return { bytes: new Uint8Array(), reset: false };
      const same = blob.size > offset && equal(await bytesOf(blob.slice(offset - before.length, offset)), before);
      const from = same ? offset : 0;
      const bytes = await bytesOf(blob.slice(from, from + MOST_BYTES));
      if (!same) before = new Uint8Array();
      if (bytes.length >= COMPARED) before = bytes.slice(-COMPARED);
      else if (bytes.length > 0) before = joined(before, bytes).slice(-COMPARED);
      return { bytes, reset: !same };
    },
  };
}

const equal = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, i) => byte === b[i]);

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
