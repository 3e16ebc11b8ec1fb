// A run that is watched: its source is followed, its lines become the view that the panels show, and what its folder says
// beside the log (state, configuration, report, device) is read. A signal tells the panels at most a few times a second.

import { signal } from "@preact/signals";
import type { LogLine } from "../protocol.ts";
import { applyLine, emptyRunView, type RunView } from "../run_view.ts";
import { type RunRecordFacts, recordFacts, type WatchSource } from "../sources/watch_source.ts";
import { WorkClock } from "./overlay.ts";

/** What happens with the log of a watched run. */
export type Hearing =
  /** What there is so far is being read. */
  | "reading"
  /** All was read, and more may come. */
  | "live"
  /** The server does not answer; tried again. */
  | "lost"
  /** No more will come. */
  | "ended";

export interface RunFacts {
  record: RunRecordFacts | null;
  /** config.resolved.toml, or config.toml where there is no other. */
  config: string | null;
  /** Device by its driver's name. */
  device: string | null;
  hasReport: boolean;
}

/** Milliseconds between two drawings: enough to look live, and cheap with 100,000 points. */
const DRAW_EVERY = 150;
/** While a long log is read, drawing would take the time that reading needs. */
const DRAW_WHILE_READING = 600;

export class WatchedRun {
  readonly source: WatchSource;
  readonly hearing = signal<Hearing>("reading");
  /** Rises when the view has changed. */
  readonly version = signal(0);
  readonly facts = signal<RunFacts>({ record: null, config: null, device: null, hasReport: false });
  /** Grows in place; replaced where the log was written anew. */
  view: RunView;
  clock = new WorkClock();
  private stop: (() => void) | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(source: WatchSource) {
    this.source = source;
    this.view = emptyRunView(source.name);
  }

  get name(): string {
    return this.source.name;
  }

  /** Follows the log from its beginning; again where it had ended. */
  start(): void {
    this.close();
    this.clear();
    this.hearing.value = "reading";
    this.stop = this.source.watch({
      lines: (lines) => this.take(lines),
      reset: () => this.clear(),
      caughtUp: () => {
        if (this.hearing.value === "reading") this.hearing.value = "live";
        this.touch(true);
      },
      connection: (state) => {
        if (this.hearing.value !== "ended" && (state === "lost" || this.hearing.value === "lost"))
          this.hearing.value = state;
      },
      ended: () => {
        this.hearing.value = "ended";
        this.touch(true);
        void this.readFacts();
      },
    });
    void this.readFacts();
  }

  close(): void {
    this.stop?.();
    this.stop = null;
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  async readFacts(): Promise<void> {
    this.facts.value = await readFacts(this.source);
  }

  private take(lines: readonly LogLine[]): void {
    for (const line of lines) {
      applyLine(this.view, line);
      this.clock.add(line.t, line.step, line.kind === "metric");
    }
    this.touch();
  }

  private clear(): void {
    this.view = emptyRunView(this.source.name);
    this.clock = new WorkClock();
    this.touch();
  }

  /** Draws soon; at the next chance where `now`, whatever was planned. */
  private touch(now = false): void {
    if (now && this.timer !== null) {
      clearTimeout(this.timer);
      this.timer = null;
    }
    const wait = now ? 0 : this.hearing.value === "reading" ? DRAW_WHILE_READING : DRAW_EVERY;
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.version.value++;
    }, wait);
  }
}

/** What stands in a run's folder beside its log. */
export async function readFacts(source: WatchSource): Promise<RunFacts> {
  const [record, resolved, environment] = await Promise.all([
    source.text("run.json"),
    source.text("config.resolved.toml"),
    source.text("env.json"),
  ]);
  return {
    record: recordFacts(record),
    config: resolved ?? (await source.text("config.toml")),
    device: deviceOf(environment),
    // The server's list says it already, and asking for a file that is not there is an error in a browser's console.
    hasReport: source.origin !== "served" && (await source.has("report.html")),
  };
}

/** The adapter's name in env.json. */
export function deviceOf(environment: string | null): string | null {
  try {
    const value = JSON.parse(environment ?? "null") as { adapter?: { description?: unknown; name?: unknown } } | null;
    const name = value?.adapter?.description || value?.adapter?.name;
    return typeof name === "string" ? name : null;
  } catch {
    return null;
  }
}
