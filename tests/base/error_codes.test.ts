// Every code has one meaning, and docs/errors.md says what the source says.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { allErrorUses, errorsMarkdown, errorUses } from "../../scripts/error_codes.ts";
import { EXIT_CODES } from "../../src/base/errors.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const uses = allErrorUses(root);

/** Codes of one failure that different files put into different words, and what that failure is. */
const SAME_FAILURE: Readonly<Record<string, string>> = {
  "E-ENV-020": "the disk has too little room, found before a download or while writing",
  "E-ENV-101": "the hub answers, but not with what was asked for",
  "E-FILE-001": "there is nothing at the path; the words name what was looked for",
  "E-FILE-020": "the file is no tokenizer of its kind",
  "E-FILE-041": "the configuration is not that of the CLIP weights beside it",
  "E-FILE-122": "the weights' storage is none that is read",
  "E-FILE-123": "there is not exactly one set of weights to take",
  "E-FILE-124": "the tensors do not fill the layout that their names belong to",
  "E-MEM-001": "the device's memory is used up",
  "E-NUM-001": "an update has numbers that are not finite; an alignment also knows where they came from",
  "E-RUN-001": "the run was saved before its last step because somebody asked for it",
};

const EMPTY = /^(the|are|not|and|there|has|its|that|this|was|than|for|here|with|what|cannot)$/;
const wordsOf = (text: string) =>
  new Set((text.toLowerCase().match(/[a-z]{3,}/g) ?? []).filter((word) => !EMPTY.test(word)));

/** Two texts say different things where they share less than half the words of the shorter one. */
function differ(one: string, other: string): boolean {
  const [a, b] = [wordsOf(one), wordsOf(other)];
  if (a.size === 0 || b.size === 0) return false;
  return [...a].filter((word) => b.has(word)).length < Math.min(a.size, b.size) / 2;
}

describe("codes of errors", () => {
  const errors = uses.filter(({ isError }) => isError);
  const clashes = errors.flatMap((use, i) =>
    errors
      .slice(0, i)
      .filter(({ code, file, what }) => code === use.code && file !== use.file && differ(what, use.what))
      .map((other) => ({ code: use.code, text: `${use.code}: ${other.file} ${other.what} | ${use.file} ${use.what}` })),
  );

  it("have one meaning each, in whatever file they are thrown", () => {
    expect(clashes.filter(({ code }) => !SAME_FAILURE[code]).map(({ text }) => text)).toEqual([]);
  });

  it("are listed as the same failure only where their words differ", () => {
    expect(Object.keys(SAME_FAILURE).filter((listed) => !clashes.some(({ code }) => code === listed))).toEqual([]);
  });

  it("belong to an area with an exit code", () => {
    expect(uses.length).toBeGreaterThan(200);
    expect(uses.filter(({ code }) => !EXIT_CODES[code.split("-")[1]!])).toEqual([]);
  });

  it("are found in calls, tables and events, and not in comparisons or comments", () => {
    const source = `
      // new LongtailError("E-ARG-001", { what: "in a comment" })
      const ratio = total! / 2, pattern = /["'\`/]/;
      const text = \`\${found} were \${list.map((one) => \`"\${one}"\`).join("}")} left\`;
      if (error.code === "E-ARG-002") throw new LongtailError("E-ARG-003", {
        what: rest ? \`\${rest} is missing\` : "nothing is there", where: path, fix: "say " + "it",
      });
      refuse("E-CFG-001", "a.key", "what it is", "why", "its fix");
      emit({ kind: "warning", code: "E-CFG-002", text });`;
    const found = (code: string, what: string, fix: string, isError: boolean) => ({
      code,
      file: "x",
      what,
      fix,
      isError,
    });
    expect(errorUses("x", source)).toEqual([
      found("E-ARG-003", "… is missing / nothing is there", "say it", true),
      found("E-CFG-001", "what it is", "its fix", true),
      found("E-CFG-002", "… were … left", "", false),
    ]);
  });
});

describe("docs/errors.md", () => {
  it("is what the source says", () => {
    // Written by scripts/generate_errors.ts.
    expect(readFileSync(join(root, "docs", "errors.md"), "utf8")).toBe(errorsMarkdown(uses));
  });
});
