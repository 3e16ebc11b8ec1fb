// The one error type that users meet. Every failure says what happened, to which file, tensor or key, why, and what to
// do about it, under a stable code `E-AREA-NNN`; the area decides the exit code of the command line.

/** Exit codes by area: 2 usage, 3 environment, 4 data, 5 numeric, 6 memory or lost device, 7 interrupted and saved. */
export const EXIT_CODES: Readonly<Record<string, number>> = {
  ARG: 2,
  CFG: 2,
  ENV: 3,
  FILE: 4,
  DATA: 4,
  NUM: 5,
  MEM: 6,
  RUN: 7,
};

export interface ErrorParts {
  /** What happened, one sentence without a full stop at the end. */
  what: string;
  /** The file, tensor or configuration key that it happened to. */
  where?: string;
  /** The cause as far as it is known. */
  why?: string;
  /** What the user can do. */
  fix?: string;
  cause?: unknown;
}

/** An error with a stable code. `message` is the whole text as it is printed. */
export class LongtailError extends Error {
  readonly code: string;
  readonly parts: ErrorParts;

  constructor(code: string, parts: ErrorParts) {
    super(formatError(code, parts), parts.cause === undefined ? undefined : { cause: parts.cause });
    this.name = "LongtailError";
    this.code = code;
    this.parts = parts;
  }

  /** The exit code that the command line ends with. */
  get exitCode(): number {
    return EXIT_CODES[this.code.split("-")[1] ?? ""] ?? 1;
  }
}

function formatError(code: string, parts: ErrorParts): string {
  const where = parts.where ? ` ${parts.where}:` : "";
  const why = parts.why ? ` → ${parts.why}` : "";
  const fix = parts.fix ? `. Fix: ${parts.fix}` : "";
  return `${code}${where} ${parts.what}${why}${fix}`;
}

/** The candidate nearest to `word` by edit distance, or null where none is near; for «did you mean». */
export function nearestName(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.ceil(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
