// Words from outside to a run that goes on: whoever writes `save`, `sample`, `pause`, `resume` or `stop` into the file CMD of
// the run folder is heard at the next update. It works over ssh, from a script and from a page, without a server
// (diffusion-pipe has the same for `save`).

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { join } from "../../base/paths.ts";

const WORDS = ["save", "sample", "pause", "resume", "stop"] as const;
export type ControlWord = (typeof WORDS)[number];

/** How often a paused run looks whether it may go on. */
const PAUSE_SECONDS = 0.5;

/** Where a run hears words from: the file CMD, or a page's buttons. */
export interface RunControl {
  /** The words since the last look, in order. */
  take(): Promise<ControlWord[]>;
  /**
   * Waits until words come or the signal aborts. Returns what is to be done now: the words that were not `resume`, and behind
   * them `pause` where nobody has said `resume` or `stop` yet.
   */
  pause(signal: AbortSignal): Promise<ControlWord[]>;
}

export class FileControl implements RunControl {
  private readonly files: FileStore;
  private readonly path: string;
  private readonly emit: EventSink;

  constructor(files: FileStore, folder: string, emit: EventSink) {
    this.files = files;
    this.path = join(folder, "CMD");
    this.emit = emit;
  }

  /** The words since the last look, in order; the file is gone afterwards. Unknown words are told and left out. */
  async take(): Promise<ControlWord[]> {
    if (!(await this.files.exists(this.path))) return [];
    // Renamed before it is read: a word that is written meanwhile begins a new file and is not lost.
    const taken = `${this.path}.taken`;
    await this.files.rename(this.path, taken);
    const words = (await this.files.readText(taken)).slice(0, 1000).toLowerCase().split(/\s+/).filter(Boolean);
    await this.files.remove(taken);
    const known = words.filter((word): word is ControlWord => (WORDS as readonly string[]).includes(word));
    for (const word of words) {
      if ((WORDS as readonly string[]).includes(word)) continue;
      this.emit({
        kind: "warning",
        code: "E-RUN-030",
        text: `CMD: ${JSON.stringify(word.slice(0, 40))} is not known; write ${WORDS.join(", ")}`,
      });
    }
    return known;
  }

  async pause(signal: AbortSignal): Promise<ControlWord[]> {
    this.emit({ kind: "message", text: `paused; write resume into ${this.path} to go on` });
    while (!signal.aborted) {
      const words = await this.take();
      const others = words.filter((word) => word !== "resume" && word !== "pause");
      if (words.includes("resume") || words.includes("stop")) return others;
      if (others.length > 0) return [...others, "pause"];
      await new Promise((resolve) => setTimeout(resolve, PAUSE_SECONDS * 1000));
    }
    return [];
  }
}

/** What a run that was told to stop ends with: saved, to be continued. */
export function stoppedByWord(folder: string): LongtailError {
  return new LongtailError("E-RUN-001", {
    what: "stopped by CMD",
    where: folder,
    why: "the word stop was written into it",
    fix: `continue it with --run.resume=${folder} and everything else as before`,
  });
}
