// A real run that was recorded and comes along with the page, as static files: a thinned log, samples, configuration. It is
// there for machines without WebGPU, and for whoever wants to see what a run looks like before starting one.

import type { RunSource } from "../run_source.ts";
import { LogParser } from "./log_parser.ts";
import type { LogTaker, WatchSource } from "./watch_source.ts";

export interface Recording {
  /** Folder of the recording, and its run's name. */
  name: string;
  /** One sentence on what was trained. */
  title: string;
  command: string;
  /** Device that it ran on, as its driver names it. */
  device: string;
  software: boolean;
  /** When it began, ISO 8601. */
  started: string;
  /** Seconds that it took. */
  seconds: number;
  updates: number;
}

/** The recordings that come along, or none where the files are missing. */
export async function recordings(get: typeof fetch = fetch): Promise<Recording[]> {
  try {
    const answer = await get("recorded/index.json");
    const value: unknown = answer.ok ? await answer.json() : null;
    return Array.isArray(value) ? (value as Recording[]) : [];
  } catch {
    return [];
  }
}

export class RecordedRunSource implements WatchSource {
  readonly origin = "recorded";
  readonly name: string;
  private readonly get: typeof fetch;
  private readonly parser = new LogParser();

  constructor(name: string, get: typeof fetch = (...words) => fetch(...words)) {
    this.name = name;
    this.get = get;
  }

  get facts() {
    return this.parser.facts;
  }

  async blob(path: string): Promise<Blob | null> {
    try {
      const answer = await this.get(`recorded/${this.name}/${path}`);
      return answer.ok ? await answer.blob() : null;
    } catch {
      return null;
    }
  }

  /** A recording's report is data alone: its page would be mostly pictures. */
  async has(path: string): Promise<boolean> {
    return path !== "report.html" && (await this.blob(path)) !== null;
  }

  async text(path: string): Promise<string | null> {
    return (await (await this.blob(path))?.text().catch(() => null)) ?? null;
  }

  /** All lines at once; a player gives them out by its own clock. */
  watch(taker: LogTaker): () => void {
    let stopped = false;
    this.parser.reset();
    void this.text("log.jsonl").then((text) => {
      if (stopped) return;
      const lines = [...this.parser.push(text ?? ""), ...this.parser.finish()];
      if (lines.length > 0) taker.lines(lines);
      taker.caughtUp?.();
      taker.ended?.();
    });
    return () => {
      stopped = true;
    };
  }

  follow: RunSource["follow"] = (take, ended) => this.watch({ lines: take, ...(ended ? { ended } : {}) });
}
