// Machine-readable readers of the event stream: the run folder's log.jsonl, and standard output under --json. One JSON
// object a line, `{t, step, kind, ...}`, so that a run can be replayed or watched with any tool.

import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import type { LongtailError } from "../base/errors.ts";
import type { EventSink, RunEvent } from "../base/events.ts";
import { jsonValue, lineMaker } from "../runs/log_lines.ts";
import { fileError } from "./system_errors.ts";

/** Longest time that written lines may wait for the disk. */
const FLUSH_INTERVAL = 2;

export interface LogSink {
  readonly sink: EventSink;
  /** The first failed write, null while all went well. */
  readonly failure: LongtailError | null;
  /** Puts everything on the disk. */
  flush(): void;
  close(): void;
}

/**
 * Appends events to a JSONL file. A write that fails (a full disk) is reported once through `onFailure`, and nothing more
 * is written: a sink must not throw into the training loop.
 */
export function openLog(path: string, onFailure: (error: LongtailError) => void, now?: () => number): LogSink {
  let file: number;
  try {
    file = openSync(path, "a+");
    endTornLine(file);
  } catch (error) {
    throw fileError(error, path);
  }
  return new FileLog(file, path, onFailure, now);
}

/** A crash can leave half a line; what follows must begin on its own. */
function endTornLine(file: number): void {
  const size = fstatSync(file).size;
  if (size === 0) return;
  const last = new Uint8Array(1);
  readSync(file, last, 0, 1, size - 1);
  if (last[0] !== 0x0a) writeSync(file, "\n");
}

class FileLog implements LogSink {
  failure: LongtailError | null = null;
  private file: number | null;
  private readonly path: string;
  private readonly onFailure: (error: LongtailError) => void;
  private readonly makeLine: (event: RunEvent) => string | null;
  private readonly clock = () => performance.now() / 1000;
  private flushedAt = -Infinity;

  constructor(file: number, path: string, onFailure: (error: LongtailError) => void, now?: () => number) {
    this.file = file;
    this.path = path;
    this.onFailure = onFailure;
    this.makeLine = lineMaker(now);
  }

  readonly sink = (event: RunEvent): void => {
    const line = this.file === null || this.failure ? null : this.makeLine(event);
    if (line === null) return;
    this.attempt((file) => {
      const bytes = new TextEncoder().encode(line);
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done);
      // What explains a crash or marks a resumable state has to be on the disk at once.
      const urgent = event.kind === "error" || event.kind === "warning" || event.kind === "checkpoint";
      if (urgent || this.clock() - this.flushedAt >= FLUSH_INTERVAL) this.sync(file);
    });
  };

  flush(): void {
    if (!this.failure) this.attempt((file) => this.sync(file));
  }

  close(): void {
    this.flush();
    if (this.file !== null) closeSync(this.file);
    this.file = null;
  }

  private sync(file: number): void {
    try {
      fsyncSync(file);
    } catch (error) {
      // Pipes and devices cannot be synced; that is no failure of the log.
      if ((error as NodeJS.ErrnoException).code !== "EINVAL") throw error;
    }
    this.flushedAt = this.clock();
  }

  private attempt(work: (file: number) => void): void {
    if (this.file === null) return;
    try {
      work(this.file);
    } catch (error) {
      this.failure = fileError(error, this.path) as LongtailError;
      this.onFailure(this.failure);
    }
  }
}

/** Events as JSON lines on a stream of text, for --json. */
export function jsonSink(write: (text: string) => void, now?: () => number): EventSink {
  const makeLine = lineMaker(now);
  return (event) => {
    const line = makeLine(event);
    if (line !== null) write(line);
  };
}

/** A command's outcome as the last JSON line. */
export const resultLine = (value: unknown): string => `${JSON.stringify({ kind: "result", value }, jsonValue)}\n`;
