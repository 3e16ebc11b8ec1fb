// Finds every error and warning of the source by its code, for docs/errors.md and for the test that no code has two
// meanings; the idea of a page a code is that of compilers (rustc, tsc). A scanner of strings, comments and brackets is enough, because codes are always written out as literals.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT_CODES } from "../src/base/errors.ts";

export interface ErrorUse {
  code: string;
  /** Path of the file from the project's root. */
  file: string;
  /** What happened, as far as the source says it in words; «…» stands for values. */
  what: string;
  fix: string;
  /** An error ends the command; the others are warnings and notes of files that were left out. */
  isError: boolean;
}

interface Token {
  kind: "text" | "word" | "sign";
  /** The value of a text, else the characters. */
  value: string;
}

const CODE = /^E-[A-Z]+-\d{3}$/;

/** All uses of codes in the files below a folder, in the order of their paths. */
export function allErrorUses(root: string): ErrorUse[] {
  return readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .map((name) => `src/${name.replaceAll("\\", "/")}`)
    .filter((name) => name.endsWith(".ts"))
    .sort()
    .flatMap((name) => errorUses(name, readFileSync(join(root, name), "utf8")));
}

/** All uses of codes in one file; mere comparisons with a code are none. */
export function errorUses(file: string, source: string): ErrorUse[] {
  const tokens = tokensOf(source);
  const uses: ErrorUse[] = [];
  const isCode = (token: Token | undefined) => token?.kind === "text" && CODE.test(token.value);
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i]!.value === "LongtailError" && tokens[i - 1]?.value === "new" && tokens[i + 1]?.value === "(") {
      const [codes = [], parts = []] = split(inside(tokens, i + 1), ",");
      const properties = propertiesOf(parts, tokens.slice(0, i));
      for (const { value: code } of codes.filter(isCode)) {
        const what = textOf(properties, "what") || textOf(properties, "why") || "…";
        uses.push({ code, file, what, fix: textOf(properties, "fix"), isError: true });
      }
    } else if (isCode(tokens[i])) {
      const code = tokens[i]!.value;
      const [before, name] = [tokens[i - 1]?.value, tokens[i - 2]];
      if (before === ":" && name?.value === "code") {
        const properties = propertiesOf(inside(tokens, opening(tokens, i)), tokens.slice(0, i));
        const text = textOf(properties, "text") || textOf(properties, "what") || textOf(properties, "why") || "…";
        const what = text.replace(/^E-[A-Z]+-\d{3} /, "");
        uses.push({ code, file, what, fix: textOf(properties, "fix"), isError: false });
      } else if (before === "(" && name?.kind === "word" && !["LongtailError", "if"].includes(name.value)) {
        const args = split(inside(tokens, i - 1), ",").map(wordsOf);
        // The configuration's checks: refuse(code, key, what, why, fix).
        const [what = "…", fix = ""] =
          name.value === "refuse" ? [args[2] ?? args[1], args[4]] : [args.slice(1).find(Boolean)];
        uses.push({ code, file, what, fix, isError: true });
      } else if (before === "[") {
        // Tables of reasons: [code, why].
        const [, what = ""] = split(inside(tokens, i - 1), ",").map(wordsOf);
        if (what && !CODE.test(what)) uses.push({ code, file, what, fix: "", isError: true });
      }
    }
  }
  return uses;
}

/** The text of docs/errors.md: a table for each area, one row a code. */
export function errorsMarkdown(uses: readonly ErrorUse[]): string {
  const areas: Readonly<Record<string, string>> = {
    ARG: "Command line",
    CFG: "Configuration",
    ENV: "Environment",
    FILE: "Files",
    DATA: "Data",
    NUM: "Numbers",
    MEM: "Memory",
    RUN: "Runs",
  };
  const lines = [
    "# Errors and warnings",
    "",
    "Every failure has a stable code, and the code's area decides the exit code of the command line. The texts are those of " +
      "the source; «…» stands for a value. A warning ends nothing; where no fix stands here, the message says what fits the case.",
    "",
    "This page is written from the source (`deno run -A --no-check scripts/generate_errors.ts`); do not edit it by hand.",
  ];
  for (const [area, title] of Object.entries(areas)) {
    const own = uses.filter(({ code }) => code.startsWith(`E-${area}-`));
    const codes = [...new Set(own.map(({ code }) => code))].sort();
    if (codes.length === 0) continue;
    lines.push("", `## ${title}: E-${area}, exit code ${EXIT_CODES[area]}`, "");
    lines.push("| code | what | fix | source |", "|---|---|---|---|");
    for (const code of codes) {
      const same = own.filter((use) => use.code === code);
      const distinct = (texts: string[]) => {
        const all = [...new Set(texts.filter(Boolean))].sort();
        return (all.length > 1 ? all.filter((text) => text !== "…") : all).map(cell).join("<br>");
      };
      lines.push(
        `| ${code}${same.some(({ isError }) => isError) ? "" : " (warning)"} | ${distinct(same.map(({ what }) => what))} | ` +
          `${distinct(same.map(({ fix }) => fix))} | ${distinct(same.map(({ file }) => file.replace(/^src\//, "")))} |`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replace(/\s+/g, " ").trim();

/** Texts, words and signs; comments and white space are passed over. */
function tokensOf(source: string): Token[] {
  let at = 0;
  const quoted = (): string => {
    const quote = source[at]!;
    let value = "";
    for (at++; at < source.length && source[at] !== quote; at++)
      value += source[at] === "\\" ? source[++at] : source[at];
    return value;
  };
  const template = (): string => {
    let value = "";
    for (at++; at < source.length && source[at] !== "`"; at++) {
      if (source[at] === "\\") value += source[++at];
      else if (source.startsWith("${", at)) {
        at += 2;
        read();
        value += "…";
      } else value += source[at];
    }
    return value;
  };
  const pattern = () => {
    let isSet = false;
    for (at++; at < source.length && (isSet || source[at] !== "/"); at++) {
      if (source[at] === "\\") at++;
      else if (source[at] === "[") isSet = true;
      else if (source[at] === "]") isSet = false;
    }
    return "";
  };
  /** Reads up to the end, or to a closing brace that nothing opened: the end of a template's value. */
  const read = (): Token[] => {
    const tokens: Token[] = [];
    let braces = 0;
    for (; at < source.length; at++) {
      const char = source[at]!;
      if (/\s/.test(char)) continue;
      if (char === "}" && braces === 0) break;
      if (source.startsWith("//", at)) while (at < source.length && source[at] !== "\n") at++;
      else if (source.startsWith("/*", at)) at = source.indexOf("*/", at) + 1;
      else if (char === "`") tokens.push({ kind: "text", value: template() });
      else if (char === '"' || char === "'") tokens.push({ kind: "text", value: quoted() });
      else if (char === "/" && !endsValue(tokens)) tokens.push({ kind: "text", value: pattern() });
      else if (/[\w$]/.test(char)) {
        let word = char;
        while (/[\w$]/.test(source[at + 1] ?? "")) word += source[++at];
        tokens.push({ kind: "word", value: word });
      } else {
        if (char === "{") braces++;
        if (char === "}") braces--;
        tokens.push({ kind: "sign", value: char });
      }
    }
    return tokens;
  };
  return read();
}

/** Whether a slash here divides: behind a value, or behind one that is said not to be null. */
function endsValue(tokens: readonly Token[]): boolean {
  const last = tokens.at(-1)?.value === "!" ? tokens.at(-2) : tokens.at(-1);
  return last !== undefined && (last.kind === "sign" ? ")]}".includes(last.value) : last.value !== "return");
}

const depthOf = ({ kind, value }: Token) =>
  kind !== "sign" ? 0 : "([{".includes(value) ? 1 : ")]}".includes(value) ? -1 : 0;

/** The tokens between the bracket at `open` and its partner. */
function inside(tokens: readonly Token[], open: number): Token[] {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    depth += depthOf(tokens[i]!);
    if (depth === 0) return tokens.slice(open + 1, i);
  }
  return [];
}

/** Where the bracket around the token `i` opens. */
function opening(tokens: readonly Token[], i: number): number {
  for (let depth = 0; i >= 0; i--) {
    depth += depthOf(tokens[i]!);
    if (depth > 0) return i;
  }
  return 0;
}

/** Parts between signs that lie in no bracket of their own. */
function split(tokens: readonly Token[], signs: string): Token[][] {
  const parts: Token[][] = [[]];
  let depth = 0;
  for (const token of tokens) {
    if (depth === 0 && token.kind === "sign" && signs.includes(token.value)) parts.push([]);
    else parts.at(-1)!.push(token);
    depth += depthOf(token);
  }
  return parts;
}

/** The properties of an object literal, with or without its own brackets; names are looked up in what stands before. */
function propertiesOf(tokens: readonly Token[], before: readonly Token[]): Map<string, Token[]> {
  const own = tokens[0]?.value === "{" ? inside(tokens, 0) : tokens;
  const found = new Map<string, Token[]>();
  for (const part of split(own, ",")) {
    const value = part[1]?.value === ":" ? part.slice(2) : part;
    if (part.length > 0) found.set(part[0]!.value, value.length === 1 ? constantOf(value[0]!, before) : value);
  }
  return found;
}

/** The expression that a constant was last given, where it is one. */
function constantOf(name: Token, before: readonly Token[]): Token[] {
  if (name.kind !== "word") return [name];
  const at = before.findLastIndex((token, i) => token.value === "const" && before[i + 1]?.value === name.value);
  return at >= 0 && before[at + 2]?.value === "=" ? split(before.slice(at + 3), ";")[0]! : [name];
}

const textOf = (properties: ReadonlyMap<string, Token[]>, name: string) => wordsOf(properties.get(name) ?? []);

/** An expression of texts as words: sums are joined, alternatives stand beside each other, values become «…». */
function wordsOf(tokens: readonly Token[]): string {
  const [condition, ...branches] = split(tokens, "?:");
  const alternatives = branches.length > 0 ? branches : [condition!];
  const said = alternatives.map((alternative) =>
    split(alternative, "+")
      .map((part) => (part.length === 1 && part[0]!.kind === "text" ? part[0]!.value : "…"))
      .join(""),
  );
  return [...new Set(said.filter((text) => /\p{L}/u.test(text)))].join(" / ");
}
