// Resolves a run's configuration from its layers: the schema's defaults, a preset, the user's TOML file, the command line.
// Each value remembers its origin, which errors name and config.resolved.toml records.

import { parse, TomlError } from "smol-toml";
import { LongtailError, nearestName } from "../../base/errors.ts";
import { type ConfigWarning, checkConfig, recipeRate } from "./checks.ts";
import { admitsType } from "./fields.ts";
import { keyText, problemOf, unknownKey, wrongValue } from "./problems.ts";
import { type Config, configSchema, describeSections, findOption } from "./schema.ts";

export interface Override {
  /** Dotted key or alias, `align.steps`. */
  key: string;
  /** The text after `=`; true for a bare `--key`, false for `--no-key`. */
  value: string | boolean;
}

export interface ResolvedConfig {
  config: Config;
  /** `default`, `preset embedded`, `my.toml`, `command line`, or what `withValue` was told, by dotted key. */
  origins: ReadonlyMap<string, string>;
  warnings: ConfigWarning[];
  /** The preset that was applied, if any. */
  preset: string | null;
  /** The user's own file as it was read, for config.toml in the run folder; null where there was none. */
  sourceText: string | null;
}

/** Reads texts for the loader; the command line gives it the file system. Throws where a file cannot be read. */
export interface ConfigSources {
  readText(path: string): Promise<string>;
  exists(path: string): Promise<boolean>;
  /** Names of the presets and how to read one. */
  presetNames(): Promise<string[]>;
  readPreset(name: string): Promise<string>;
}

export interface LoadRequest {
  /** A preset's name or a path to a TOML file; absent for the defaults (or `preset`) alone. */
  source?: string;
  /** A preset below the file; a file may name one itself with a top-level `preset = "..."`. */
  preset?: string;
  overrides?: readonly Override[];
}

/** Short names on the command line for the keys that people reach for. */
export const ALIASES: Readonly<Record<string, string>> = {
  adapter: "adapter.kind",
  gpu: "device.backend",
  steps: "align.steps",
  seed: "train.seed",
  name: "run.name",
  resume: "run.resume",
};

type Table = Record<string, unknown>;

interface Layer {
  table: Table;
  origin: string;
  /** The layer's text, in which line numbers are looked up. */
  text: string;
}

/**
 * Loads, merges and checks a configuration.
 * Throws E-CFG-001..006 for the layers, E-CFG-010..019 for combinations, E-FILE-001 where the file does not exist.
 */
export async function loadConfig(request: LoadRequest, sources: ConfigSources): Promise<ResolvedConfig> {
  const layers: Layer[] = [];
  let preset = request.preset ?? null;
  let sourceText: string | null = null;
  if (request.source !== undefined) {
    const file = await sources.exists(request.source);
    if (!file && (await sources.presetNames()).includes(request.source)) preset = request.source;
    else {
      if (!file) throw await missingSource(request.source, sources);
      sourceText = await sources.readText(request.source);
      const layer = parseLayer(sourceText, request.source);
      // What the file builds on counts before what the command would put below it.
      preset = takePreset(layer) ?? preset;
      layers.push(layer);
    }
  }
  if (preset !== null) layers.unshift(...(await presetLayers(preset, sources)));
  return resolveLayers(layers, request.overrides ?? [], preset, sourceText);
}

async function missingSource(source: string, sources: ConfigSources): Promise<LongtailError> {
  const names = await sources.presetNames();
  const near = nearestName(source, names);
  return new LongtailError("E-FILE-001", {
    where: source,
    what: "there is no such configuration file or preset",
    fix: near
      ? `did you mean the preset ${near}?`
      : `give the path of a TOML file or one of the presets ${names.join(", ")}`,
  });
}

/** Reads TOML; a syntax error becomes E-CFG-004 with its line and column. */
export function parseLayer(text: string, origin: string): Layer {
  try {
    return { table: parse(text) as Table, origin, text };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = error.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "");
    throw new LongtailError("E-CFG-004", {
      where: `${origin} line ${error.line}, column ${error.column}`,
      what: "the file is not valid TOML",
      why: reason,
      fix: `correct line ${error.line}: ${(text.split("\n")[error.line - 1] ?? "").trim().slice(0, 60)}`,
      cause: error,
    });
  }
}

function takePreset(layer: Layer): string | null {
  const value = layer.table.preset;
  delete layer.table.preset;
  if (value === undefined) return null;
  if (typeof value !== "string") throw wrongValue("preset", value, layer.origin, undefined, "a preset's name as text");
  return value;
}

/** The layers of a preset, lowest first; a preset may build on another one. */
async function presetLayers(name: string, sources: ConfigSources): Promise<Layer[]> {
  const layers: Layer[] = [];
  const seen: string[] = [];
  for (let next: string | null = name; next !== null; ) {
    const known = await sources.presetNames();
    if (!known.includes(next)) {
      const near = nearestName(next, known);
      throw new LongtailError("E-CFG-005", {
        where: next,
        what: "there is no such preset",
        fix: near ? `did you mean ${near}?` : `the presets are ${known.join(", ")}`,
      });
    }
    if (seen.includes(next)) {
      throw new LongtailError("E-CFG-007", {
        where: `preset ${next}`,
        what: `presets build on each other in a circle: ${[...seen, next].join(" → ")}`,
        fix: "remove the preset key from one of them",
      });
    }
    seen.push(next);
    const layer = parseLayer(await sources.readPreset(next), `preset ${next}`);
    next = takePreset(layer);
    layers.unshift(layer);
  }
  return layers;
}

/** Merges the layers and the command line, checks the result, and fills in what "auto" stands for. */
export function resolveLayers(
  layers: readonly Layer[],
  overrides: readonly Override[],
  preset: string | null = null,
  sourceText: string | null = null,
): ResolvedConfig {
  const raw: Table = {};
  const origins = new Map<string, string>();
  const lines = new Map<string, number | null>();
  for (const layer of layers) merge(raw, layer.table, "", layer, origins, lines);
  for (const override of overrides) applyOverride(raw, override, origins, lines);

  const whereOf = (key: string) => {
    const listed = key.replace(/\[.*$/, "");
    const origin = origins.get(key) ?? origins.get(listed);
    if (origin === undefined) return "configuration";
    const line = lines.get(key) ?? lines.get(listed);
    return line ? `${origin} line ${line}` : origin;
  };
  const result = configSchema.safeParse(raw);
  if (!result.success) throw problemOf(result.error.issues, raw, whereOf);
  const complete = new Map<string, string>();
  for (const { options } of describeSections()) {
    for (const { key } of options) if (!key.includes("[]")) complete.set(key, origins.get(key) ?? "default");
  }
  const parsed = result.data;
  const automatic = parsed.optim.lr === "auto";
  if (automatic) complete.set("optim.lr", `the ${parsed.adapter.kind} recipe`);
  const lr = parsed.optim.lr === "auto" ? recipeRate(parsed.adapter.kind, parsed.optim.kind) : parsed.optim.lr;
  const config: Config = { ...parsed, optim: { ...parsed.optim, lr } };
  return { config, origins: complete, warnings: checkConfig(config, whereOf), preset, sourceText };
}

/**
 * The configuration with one key set to what the program decided, such as the ladder's number of updates.
 * @param origin why, for config.resolved.toml: `the ladder, at 15 GFLOP/s`
 */
export function withValue(resolved: ResolvedConfig, key: string, value: unknown, origin: string): ResolvedConfig {
  const option = findOption(key);
  if (!option) throw unknownKey(key, origin);
  if (!option.schema.safeParse(value).success) throw wrongValue(key, value, origin);
  const config = structuredClone(resolved.config) as unknown as Table;
  const parts = key.split(".");
  const table = parts.slice(0, -1).reduce<Table>((at, part) => at[part] as Table, config);
  table[parts.at(-1)!] = value;
  return { ...resolved, config: config as unknown as Config, origins: new Map(resolved.origins).set(key, origin) };
}

const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);

function merge(
  into: Table,
  from: Table,
  prefix: string,
  layer: Layer,
  origins: Map<string, string>,
  lines: Map<string, number | null>,
): void {
  for (const [name, value] of Object.entries(from)) {
    const key = prefix ? `${prefix}.${name}` : name;
    if (name === "__proto__") throw unknownKey(key, layer.origin);
    if (isTable(value)) {
      if (!isTable(into[name])) into[name] = {};
      origins.set(key, layer.origin);
      lines.set(key, lineOf(layer.text, key));
      merge(into[name] as Table, value, key, layer, origins, lines);
      continue;
    }
    into[name] = structuredClone(value);
    // A list replaces the one below it: what that one's tables had said is gone.
    for (const inner of [...origins.keys()]) if (inner.startsWith(`${key}[`)) origins.delete(inner);
    origins.set(key, layer.origin);
    lines.set(key, lineOf(layer.text, key));
    if (Array.isArray(value))
      value.forEach((element, i) => {
        if (isTable(element))
          for (const inner of Object.keys(element)) {
            origins.set(`${key}[${i}].${inner}`, layer.origin);
            lines.set(`${key}[${i}].${inner}`, lineOf(layer.text, `${key}[${i}].${inner}`));
          }
      });
  }
}

/** The line, from 1, on which a key is set in plain TOML text (`[section]`, `[[list]]` and `key =`), or null. */
export function lineOf(text: string, key: string): number | null {
  const counts = new Map<string, number>();
  let section = "";
  for (const [i, line] of text.split("\n").entries()) {
    const table = /^\s*\[(\[?)\s*([\w.-]+)\s*\]/.exec(line);
    if (table) {
      section = table[2]!;
      if (table[1]) {
        const count = counts.get(section) ?? 0;
        counts.set(section, count + 1);
        if (`${section}` === key) return i + 1;
        section = `${section}[${count}]`;
      }
      if (section === key) return i + 1;
      continue;
    }
    const name = /^\s*([\w.-]+)\s*=/.exec(line)?.[1];
    if (name && (section ? `${section}.${name}` : name) === key) return i + 1;
  }
  return null;
}

const COMMAND_LINE = "command line";

/** The full key that a command-line name stands for. */
export const fullKey = (name: string): string => ALIASES[name] ?? name;

/** Reads an override's text as the key's schema wants it: a TOML value, a comma list, or plain text. */
export function readOverride({ key: given, value }: Override): { key: string; value: unknown } {
  const key = fullKey(given).replace(/\[(\d+)\]/g, ".$1");
  const option = findOption(key);
  const where = given === key ? COMMAND_LINE : `${COMMAND_LINE} --${given}`;
  if (!option) throw unknownKey(key, where);
  if (typeof value === "boolean") {
    if (!option.boolean) throw wrongValue(key, undefined, where);
    return { key, value };
  }
  const single = tryToml(value);
  const list = tryToml(`[${value}]`) ?? (value === "" ? [] : value.split(",").map((part) => part.trim()));
  const candidates = single === undefined ? [value, list] : [single, list, value];
  const fitting = candidates.find((candidate) => option.schema.safeParse(candidate).success);
  if (fitting !== undefined) return { key, value: fitting };
  throw wrongValue(key, value.includes(",") && admitsType(option.schema, "array") ? list : candidates[0], where);
}

function tryToml(text: string): unknown {
  try {
    return (parse(`value = ${text}`) as Table).value;
  } catch {
    return undefined;
  }
}

function applyOverride(
  raw: Table,
  override: Override,
  origins: Map<string, string>,
  lines: Map<string, number | null>,
): void {
  const { key, value } = readOverride(override);
  const parts = key.split(".").map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  let at: unknown = raw;
  for (const [i, part] of parts.slice(0, -1).entries()) {
    if (typeof part === "number") {
      const list = at as unknown[];
      if (part >= list.length) {
        throw new LongtailError("E-CFG-006", {
          where: `${COMMAND_LINE}: --${override.key}`,
          what: `${keyText(parts.slice(0, i))} has no position ${part}`,
          why: `it has ${list.length} element${list.length === 1 ? "" : "s"}, counted from 0`,
          fix: "add the table to the configuration file, or use a smaller position",
        });
      }
      at = list[part];
      continue;
    }
    const table = at as Table;
    if (table[part] === undefined || (!isTable(table[part]) && !Array.isArray(table[part]))) {
      const listed = findOption(keyText(parts.slice(0, i + 1)));
      table[part] = listed ? structuredClone(listed.default) : {};
    }
    at = table[part];
  }
  (at as Record<string | number, unknown>)[parts.at(-1)!] = value;
  const named = keyText(parts);
  origins.set(named, COMMAND_LINE);
  lines.set(named, null);
  const list = /^(.*?)\[/.exec(named)?.[1];
  if (list) origins.set(list, COMMAND_LINE);
}
