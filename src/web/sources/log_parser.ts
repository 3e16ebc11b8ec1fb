// Turns the text of a log.jsonl into lines that the panels can take, whatever it holds: a last line that is half written,
// lines of a newer version, numbers that JSON cannot say, rubbish. What cannot be shown is counted, so that the page can
// say so.

import type { LogLine } from "../protocol.ts";

export interface LogFacts {
  /** Lines that were taken. */
  lines: number;
  /** Lines that are no event: torn, or not this format. */
  torn: number;
  /** Events of kinds that this page does not know, by kind. */
  unknown: Map<string, number>;
}

/** Most kinds that are told apart; a log of rubbish must not fill the memory. */
const MOST_KINDS = 20;

export class LogParser {
  facts: LogFacts = emptyFacts();
  private rest = "";

  /** The whole lines of what was pushed so far and not yet returned. */
  push(text: string): LogLine[] {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop()!;
    const known: LogLine[] = [];
    for (const line of lines) {
      const value = line === "" || line === "\r" ? null : this.read(line);
      if (value) known.push(value);
    }
    return known;
  }

  /** A last line without its end: taken where it is whole, counted as torn where it is not. */
  finish(): LogLine[] {
    return this.rest === "" ? [] : this.push("\n");
  }

  /** Forgets everything, for a log that is written anew. */
  reset(): void {
    this.facts = emptyFacts();
    this.rest = "";
  }

  private read(line: string): LogLine | null {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      this.facts.torn++;
      return null;
    }
    const known = knownLine(value);
    if (known) this.facts.lines++;
    else {
      const kind = (value as { kind?: unknown } | null)?.kind;
      if (typeof kind !== "string" || KINDS[kind]) this.facts.torn++;
      else if (this.facts.unknown.has(kind) || this.facts.unknown.size < MOST_KINDS)
        this.facts.unknown.set(kind, (this.facts.unknown.get(kind) ?? 0) + 1);
    }
    return known;
  }
}

const emptyFacts = (): LogFacts => ({ lines: 0, torn: 0, unknown: new Map() });

type Fields = Record<string, unknown>;
const isNumber = (value: unknown) => typeof value === "number" && Number.isFinite(value);
const isText = (value: unknown) => typeof value === "string";

/** What each kind must have for the panels to use it. */
const KINDS: Readonly<Record<string, (line: Fields) => boolean>> = {
  phase: (line) => isText(line.name) && isNumber(line.done) && isNumber(line.total) && isText(line.unit),
  metric: (line) => typeof line.values === "object" && line.values !== null && !Array.isArray(line.values),
  sample: (line) => isText(line.path),
  checkpoint: () => true,
  message: (line) => isText(line.text),
  warning: (line) => isText(line.text),
  error: (line) => isText(line.text),
};

/** The value as a line that the panels know, or null. Infinite numbers come as texts and become numbers again. */
export function knownLine(value: unknown): LogLine | null {
  if (typeof value !== "object" || value === null) return null;
  const line = value as Fields;
  if (typeof line.kind !== "string" || !Object.hasOwn(KINDS, line.kind)) return null;
  if (!isNumber(line.t) || !isNumber(line.step) || !KINDS[line.kind]!(line)) return null;
  if (line.kind !== "metric") return line as unknown as LogLine;
  const values: Record<string, number> = {};
  for (const [name, given] of Object.entries(line.values as Fields))
    if (typeof given === "number" || (isText(given) && /^(NaN|-?Infinity)$/.test(given as string)))
      values[name] = Number(given);
  return { ...line, values } as unknown as LogLine;
}
