// The terminal as the command line uses it: two streams written at once and in order, a width, and whether escape codes
// are welcome. Everything that prints takes this interface, so tests hand in a recorder.

import { writeSync } from "node:fs";
import process from "node:process";

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Whether one line may be redrawn in place. */
  interactive: boolean;
  color: boolean;
  /** Current width; asked anew for each line, so a resize needs no handler. */
  columns(): number;
}

/** Text without its colour codes. */
export const plainText = (text: string): string => text.replace(/\u001b\[[0-9;]*m/g, "");

/** Columns that a text takes: wide East Asian characters and pictures take two, marks that combine none. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of plainText(text)) {
    if (/\p{Mark}/u.test(character)) continue;
    width +=
      /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/u.test(
        character,
      ) && !/[\u2190-\u2bff\u00a9\u00ae]/.test(character)
        ? 2
        : 1;
  }
  return width;
}

/** Cuts a plain text to `width` columns, with an ellipsis where something is missing. */
export function cutTo(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  if (width < 1) return "";
  let kept = "";
  let used = 0;
  for (const character of text) {
    const next = displayWidth(character);
    if (used + next > width - 1) break;
    kept += character;
    used += next;
  }
  return `${kept}…`;
}

/** Breaks one line of text between words; what follows the first line is set in by two. A word is never cut. */
export function wrapWords(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line.trim() === "" || displayWidth(longer) <= width) line = longer;
    else {
      lines.push(line);
      line = `  ${word}`;
    }
  }
  return [...lines, line].join("\n");
}

/** Whether colours are wanted: NO_COLOR and --no-color say no, FORCE_COLOR says yes, else what the stream is. */
export function wantsColor(
  environment: Readonly<Record<string, string | undefined>>,
  interactive: boolean,
  flag: boolean,
): boolean {
  if (!flag || environment.NO_COLOR) return false;
  if (environment.FORCE_COLOR) return environment.FORCE_COLOR !== "0";
  return interactive && environment.TERM !== "dumb";
}

/** Writes all of `text` before it returns, also into a slow pipe. A reader that has gone away is no error of ours. */
function writeAll(descriptor: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(descriptor, bytes, done, bytes.length - done);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        continue;
      }
      return;
    }
  }
}

/** The process's own terminal. */
export function processTerminal(colorFlag: boolean): Terminal {
  const interactive = Boolean(process.stdout.isTTY) && process.env.TERM !== "dumb";
  return {
    out: (text) => writeAll(1, text),
    err: (text) => writeAll(2, text),
    interactive,
    color: wantsColor(process.env, interactive, colorFlag),
    columns: () => process.stdout.columns || Number(process.env.COLUMNS) || 80,
  };
}
