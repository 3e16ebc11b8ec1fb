// JSON and JSON Lines with messages that name the file and the line. Used for item lists, metadata of picture folders and
// the log of a run, whose last line may be torn when a machine lost its power.

import { LongtailError } from "../base/errors.ts";

/** @throws E-DATA-010 the text is not JSON */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(withoutMark(text));
  } catch (error) {
    throw notJson(where, error);
  }
}

export interface JsonLine {
  /** Counted from 1, empty lines included. */
  line: number;
  value: unknown;
}

/**
 * Values of a JSON Lines text; empty lines are passed over.
 * @param tornTail leave out a last line without a line break that does not parse, as an interrupted writer leaves it
 * @throws E-DATA-010 with file and line
 */
export function parseJsonLines(text: string, where: string, { tornTail = false } = {}): JsonLine[] {
  const lines = withoutMark(text).split("\n");
  const found: JsonLine[] = [];
  for (const [i, content] of lines.entries()) {
    if (content.trim() === "") continue;
    try {
      found.push({ line: i + 1, value: JSON.parse(content) });
    } catch (error) {
      if (tornTail && i === lines.length - 1) break;
      throw notJson(`${where}:${i + 1}`, error);
    }
  }
  return found;
}

/** One value as a line with its line break. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

/** Editors on Windows put a byte-order mark in front, which JSON.parse refuses. */
const withoutMark = (text: string) => (text.startsWith("\ufeff") ? text.slice(1) : text);

function notJson(where: string, error: unknown): LongtailError {
  return new LongtailError("E-DATA-010", {
    what: "is not JSON",
    where,
    why: (error as Error).message,
    fix: "correct the text there; every JSON editor shows the place",
    cause: error,
  });
}
