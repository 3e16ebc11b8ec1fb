// A RunSource that can also say what is wrong with a log, that it was written anew, and whether its origin still answers.

import type { LogLine } from "../protocol.ts";
import type { RunSource } from "../run_source.ts";
import type { LogFacts } from "./log_parser.ts";

/** What comes of a log that is followed. */
export interface LogTaker {
  lines(lines: LogLine[]): void;
  /** What came before is void. */
  reset?(): void;
  /** All that there is now has been taken; called once, before the waiting for more begins. */
  caughtUp?(): void;
  /** No more will come. */
  ended?(): void;
  /** The origin went silent ("lost") or answers again ("live"). */
  connection?(state: "live" | "lost"): void;
}

export interface WatchSource extends RunSource {
  readonly facts: LogFacts;
  /** Whether the folder has a file, without fetching it. */
  has(path: string): Promise<boolean>;
  /** As `follow`, with all that can happen; returns the way to stop. */
  watch(taker: LogTaker): () => void;
}

/** run.json as far as it can be read. */
export interface RunRecordFacts {
  state: string;
  command: string;
  started: string;
  reason: string;
}

/** What run.json's text says; null where it is missing or torn. */
export function recordFacts(text: string | null): RunRecordFacts | null {
  try {
    const value = JSON.parse(text ?? "null") as Record<string, unknown> | null;
    if (value === null || typeof value !== "object") return null;
    const word = (key: string) => (typeof value[key] === "string" ? (value[key] as string) : "");
    return { state: word("state"), command: word("command"), started: word("started"), reason: word("reason") };
  } catch {
    return null;
  }
}

/** Lets the page draw and answer before the next slice of work. */
export function breathe(): Promise<void> {
  const scheduler = (globalThis as { scheduler?: { yield?: () => Promise<void> } }).scheduler;
  if (scheduler?.yield) return scheduler.yield();
  return new Promise((resolve) => setTimeout(resolve));
}
