// Reads a log that may be written meanwhile: all whole lines so far, then what is added. A place in it is named by its
// byte offset and a mark of the bytes before it, so that a reader who comes back later, even to another server, goes on
// where it stopped, and starts anew where the file was replaced, cut or written afresh.

import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";

/** Bytes before a place that its mark is made of. */
const MARKED = 256;
/** Bytes that are read at once; also about the size of one batch. */
const CHUNK = 128 * 1024;
/** A longer line is no event of a run; it is left out instead of being kept in memory. */
const LONGEST_LINE = 1024 * 1024;

export interface LogBatch {
  /** Whole lines with their line ends. */
  text: string;
  /** The place after them, for `LogReader`'s start. */
  place: string;
  /** What was sent before is void: the file was replaced or cut. */
  reset: boolean;
}

export class LogReader {
  private readonly path: string;
  private offset = 0;
  private mark = "";
  private inode: number | bigint | null = null;
  private started = false;
  private readonly start: { offset: number; mark: string } | null;

  /** `start` is the place of an earlier batch; anything else counts as the beginning. */
  constructor(path: string, start?: string) {
    this.path = path;
    const match = /^(\d{1,15})-([0-9a-f]{16})$/.exec(start ?? "");
    this.start = match ? { offset: Number(match[1]), mark: match[2]! } : null;
  }

  /** The next whole lines, or null where there are none yet (or no file). At most about a chunk a call. */
  async next(): Promise<LogBatch | null> {
    let handle: fs.FileHandle;
    try {
      handle = await fs.open(this.path, "r");
    } catch {
      return null;
    }
    try {
      const { size, ino } = await handle.stat();
      const reset = await this.settle(handle, size, ino);
      const found = await this.lines(handle, size);
      if (!found && !reset) return null;
      if (found) {
        this.offset = found.end;
        this.mark = await markBefore(handle, found.end);
      }
      return { text: found?.text ?? "", place: `${this.offset}-${this.mark || (await markBefore(handle, 0))}`, reset };
    } finally {
      await handle.close();
    }
  }

  /** Makes sure that the offset means the same bytes as before; returns whether it did not and reading starts anew. */
  private async settle(handle: fs.FileHandle, size: number, inode: number): Promise<boolean> {
    if (!this.started) {
      this.started = true;
      this.inode = inode;
      if (!this.start) return false;
      const same = this.start.offset <= size && (await markBefore(handle, this.start.offset)) === this.start.mark;
      if (same) [this.offset, this.mark] = [this.start.offset, this.start.mark];
      return !same;
    }
    const replaced = inode !== this.inode;
    this.inode = inode;
    if (this.offset === 0 || (!replaced && size === this.offset)) return false;
    if ((await markBefore(handle, this.offset)) === this.mark) return false;
    [this.offset, this.mark] = [0, ""];
    return true;
  }

  /** The whole lines from the offset on, about a chunk of them, and where they end. */
  private async lines(handle: fs.FileHandle, size: number): Promise<{ text: string; end: number } | null> {
    for (let length = CHUNK; this.offset < size; length *= 2) {
      const bytes = await readAt(handle, this.offset, Math.min(length, size - this.offset));
      const end = bytes.lastIndexOf(0x0a) + 1;
      if (end > 0) return { text: new TextDecoder().decode(bytes.subarray(0, end)), end: this.offset + end };
      if (bytes.length >= LONGEST_LINE) return { text: "", end: this.offset + bytes.length };
      if (bytes.length < length) return null;
    }
    return null;
  }
}

/** Up to `length` bytes from `offset`; fewer where the file ends. */
async function readAt(handle: fs.FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

async function markBefore(handle: fs.FileHandle, offset: number): Promise<string> {
  const from = Math.max(0, offset - MARKED);
  const bytes = await readAt(handle, from, offset - from);
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}
