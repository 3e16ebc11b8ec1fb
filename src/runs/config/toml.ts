// Writes a resolved configuration as TOML that can be read back: every key with its meaning, unit and where its value came
// from, so that config.resolved.toml alone repeats a run.

import { type Config, describeSections, type OptionInfo } from "./schema.ts";

/** A value in TOML. Lists stay on one line; -0, infinities and NaN do not occur in a checked configuration. */
export function tomlValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(", ")}]`;
  if (typeof value === "string") return JSON.stringify(value).replace(/\u007f/g, "\\u007F");
  if (typeof value === "number") return tomlNumber(value);
  if (typeof value === "boolean") return String(value);
  const pairs = Object.entries(value as object).map(([key, inner]) => `${key} = ${tomlValue(inner)}`);
  return `{ ${pairs.join(", ")} }`;
}

/** JavaScript's shortest spelling is TOML too, but for exponents without a digit before them. */
function tomlNumber(value: number): string {
  return Number.isInteger(value) && Math.abs(value) < 1e15 ? value.toFixed(0) : String(value);
}

/** Breaks a sentence into comment lines of at most `width` characters. */
export function wrapText(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  if (line) lines.push(line);
  return lines;
}

export interface TomlSource {
  config: Config;
  /** Where each key's value came from, by dotted key. */
  origins: ReadonlyMap<string, string>;
}

/** The whole configuration as commented TOML. `header` lines open the file as comments. */
export function toToml(resolved: TomlSource, header: readonly string[] = []): string {
  const lines: string[] = header.map((line) => `# ${line}`.trimEnd());
  for (const section of describeSections()) {
    const list = section.name.endsWith("[]");
    const name = section.name.replace("[]", "");
    const value = name.split(".").reduce<unknown>((at, part) => (at as Record<string, unknown>)[part], resolved.config);
    const tables = list ? (value as Record<string, unknown>[]) : [value as Record<string, unknown>];
    for (const table of tables) {
      if (lines.length) lines.push("");
      for (const line of wrapText(section.description, 110)) lines.push(`# ${line}`);
      lines.push(list ? `[[${name}]]` : `[${name}]`);
      for (const option of section.options) {
        const key = option.key.slice(section.name.length + 1);
        if (isListOfTables(option)) continue;
        const origin = list ? resolved.origins.get(name) : resolved.origins.get(option.key);
        for (const line of wrapText(commentOf(option, origin), 110)) lines.push(`# ${line}`);
        lines.push(`${key} = ${tomlValue(table[key])}`);
      }
    }
  }
  return `${lines.join("\n")}\n`;
}

const isListOfTables = (option: OptionInfo) => describeSections().some(({ name }) => name === `${option.key}[]`);

function commentOf(option: OptionInfo, origin: string | undefined): string {
  const notes = [option.unit, origin && origin !== "default" ? `from ${origin}` : null].filter(Boolean);
  return notes.length ? `${option.description} (${notes.join("; ")})` : option.description;
}
