// The run's events on their way out of the worker: into log.jsonl in the browser's storage, and to the page in batches, so that
// neither storage nor the page sees a message for every event.

import type { RunEvent } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { lineMaker } from "../../runs/log_lines.ts";
import type { LogLine } from "../protocol.ts";

/** Milliseconds between two batches to the page, and between two writes to the log. */
const POST_MS = 100;
const WRITE_MS = 1000;

export class LogWriter {
  private readonly files: FileStore;
  private readonly path: string;
  private readonly post: (lines: LogLine[]) => void;
  private readonly onFailure: (error: unknown) => void;
  private readonly makeLine = lineMaker();
  private toPage: LogLine[] = [];
  private toDisk = "";
  private posting: ReturnType<typeof setTimeout> | null = null;
  private writing: ReturnType<typeof setTimeout> | null = null;
  private written: Promise<void> = Promise.resolve();
  private failed = false;

  /** @param onFailure called once, where the log cannot be written: a run without its log is not to go on */
  constructor(files: FileStore, path: string, post: (lines: LogLine[]) => void, onFailure: (error: unknown) => void) {
    this.files = files;
    this.path = path;
    this.post = post;
    this.onFailure = onFailure;
  }

  readonly sink = (event: RunEvent): void => {
    const line = this.makeLine(event);
    if (line === null) return;
    this.toDisk += line;
    this.toPage.push(JSON.parse(line) as LogLine);
    this.posting ??= setTimeout(() => this.flushPage(), POST_MS);
    this.writing ??= setTimeout(() => void this.flush(), WRITE_MS);
  };

  private flushPage(): void {
    if (this.posting) clearTimeout(this.posting);
    this.posting = null;
    if (this.toPage.length > 0) this.post(this.toPage);
    this.toPage = [];
  }

  /** Everything so far is written and posted when it resolves. */
  async flush(): Promise<void> {
    this.flushPage();
    if (this.writing) clearTimeout(this.writing);
    this.writing = null;
    const text = this.toDisk;
    this.toDisk = "";
    if (text === "" || this.failed) return await this.written;
    this.written = this.written.then(async () => {
      try {
        await this.files.append(this.path, text);
      } catch (error) {
        if (this.failed) return;
        this.failed = true;
        this.onFailure(error);
      }
    });
    await this.written;
  }
}
