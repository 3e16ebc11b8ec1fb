// A run of `longtail serve`. Its log comes as server-sent events, which the browser reconnects by itself; beyond a few runs
// at once it is asked for by ranges, because a browser keeps only six connections to one server.

import type { RunSource } from "../run_source.ts";
import { followFile, type GrowingFile } from "./growing_file.ts";
import { LogParser } from "./log_parser.ts";
import { type LogTaker, recordFacts, type WatchSource } from "./watch_source.ts";

export interface ServedRun {
  name: string;
  command: string;
  state: string;
  started: string;
  ended: string;
  reason: string;
  step: number;
  steps: number;
  logBytes: number;
  /** When the log was last written, milliseconds since 1970. */
  heard: number;
  report: boolean;
}

export interface ServedList {
  runs: ServedRun[];
  /** Whether commands are taken, with a token. */
  control: boolean;
  /** The server's clock, milliseconds since 1970. */
  now: number;
}

export type CommandWord = "pause" | "resume" | "save" | "sample" | "stop";

type Fetch = typeof fetch;
export type Connect = (url: string) => EventSource;

/** Event streams at once; the rest of a browser's six connections are for pictures. */
const MOST_STREAMS = 4;
let streams = 0;

/** Whether this page comes from `longtail serve`. */
export const isServed = (): boolean => document.querySelector('meta[name="longtail-serve"]') !== null;

/** The runs of the server, or null where it does not answer. */
export async function servedRuns(get: Fetch = fetch): Promise<ServedList | null> {
  try {
    const answer = await get("api/runs", { cache: "no-store" });
    const value = answer.ok ? ((await answer.json()) as ServedList) : null;
    return Array.isArray(value?.runs) ? value : null;
  } catch {
    return null;
  }
}

export class ServedRunSource implements WatchSource {
  readonly origin = "served";
  readonly name: string;
  private readonly get: Fetch;
  private readonly connect: Connect;
  private readonly parser = new LogParser();

  constructor(
    name: string,
    get: Fetch = (...words) => fetch(...words),
    connect: Connect = (url) => new EventSource(url),
  ) {
    this.name = name;
    this.get = get;
    this.connect = connect;
  }

  get facts() {
    return this.parser.facts;
  }

  private get base(): string {
    return `api/runs/${encodeURIComponent(this.name)}`;
  }

  /** Address of a file of the run. */
  url(path: string): string {
    return `${this.base}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
  }

  async blob(path: string): Promise<Blob | null> {
    try {
      const answer = await this.get(this.url(path));
      return answer.ok ? await answer.blob() : null;
    } catch {
      return null;
    }
  }

  async has(path: string): Promise<boolean> {
    return (await this.get(this.url(path), { method: "HEAD" }).catch(() => null))?.ok ?? false;
  }

  /** The server answers 204 for a text that is not there (yet): no run has all files at all times. */
  async text(path: string): Promise<string | null> {
    const answer = await this.get(`${this.url(path)}?optional`).catch(() => null);
    return answer?.status === 200 ? await answer.text() : null;
  }

  /** Writes a word into the run's CMD file. Rejects with the server's sentence. */
  async command(word: CommandWord, token: string): Promise<void> {
    const answer = await this.get(`${this.base}/command`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Longtail-Token": token },
      body: JSON.stringify({ word }),
    });
    if (!answer.ok) throw new Error((await answer.text()).trim());
  }

  watch(taker: LogTaker): () => void {
    this.parser.reset();
    return streams < MOST_STREAMS ? this.stream(taker) : followFile(this.ranges(), this.parser, taker, SLOWER);
  }

  follow: RunSource["follow"] = (take, ended) => this.watch({ lines: take, ...(ended ? { ended } : {}) });

  private stream(taker: LogTaker): () => void {
    const events = this.connect(`${this.base}/events`);
    streams++;
    let open = true;
    const close = () => {
      if (open) streams--;
      open = false;
      events.close();
    };
    events.addEventListener("lines", (event) => {
      const lines = this.parser.push(`${(event as MessageEvent<string>).data}\n`);
      if (open && lines.length > 0) taker.lines(lines);
    });
    events.addEventListener("reset", () => {
      this.parser.reset();
      if (open) taker.reset?.();
    });
    events.addEventListener("now", () => open && taker.caughtUp?.());
    // The server sends the state after all lines that were written before it.
    events.addEventListener("state", (event) => {
      if (!open || recordFacts((event as MessageEvent<string>).data)?.state === "running") return;
      close();
      taker.ended?.();
    });
    events.addEventListener("open", () => open && taker.connection?.("live"));
    events.addEventListener("error", () => {
      if (open) taker.connection?.("lost");
      // The browser tries again by itself, except where the server has refused.
      if (open && events.readyState === 2) {
        close();
        taker.ended?.();
      }
    });
    return close;
  }

  private ranges(): GrowingFile {
    return {
      goesOn: async () => {
        // Not `text`, which takes silence for a file that is missing: a run would end with its connection.
        const answer = await this.get(`${this.url("run.json")}?optional`);
        return answer.status === 200 && recordFacts(await answer.text())?.state === "running";
      },
      read: async (offset) => {
        const headers = offset > 0 ? { Range: `bytes=${offset}-` } : undefined;
        const answer = await this.get(this.url("log.jsonl"), { cache: "no-store", ...(headers ? { headers } : {}) });
        if (answer.status === 404) return null;
        const size = Number(/\/(\d+)$/.exec(answer.headers.get("Content-Range") ?? "")?.[1] ?? Number.NaN);
        if (answer.status === 416 && size === offset) return { bytes: new Uint8Array(), reset: false };
        if (answer.status === 416)
          return this.ranges()
            .read(0)
            .then((found) => found && { ...found, reset: true });
        if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
        return { bytes: new Uint8Array(await answer.arrayBuffer()), reset: offset > 0 && answer.status === 200 };
      },
    };
  }
}

const SLOWER = { look: 3000, slice: 8 };
