// Turns what zod finds wrong into the coded errors that users meet: the key, where its value came from, what was given,
// what is accepted, and for a misspelt key the nearest one that exists.

import type { z } from "zod";
import { LongtailError, nearestName } from "../../base/errors.ts";
import { acceptedText, admitsType } from "./fields.ts";
import { describeSections, findOption } from "./schema.ts";

/** `align.rewards[1].weight` from the path's parts. */
export function keyText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (all, part) => (typeof part === "number" ? `${all}[${part}]` : all ? `${all}.${String(part)}` : String(part)),
    "",
  );
}

/** A value as an error shows it: short, in TOML's spelling. */
export function valueText(value: unknown): string {
  if (value === undefined) return "nothing";
  const shown = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value));
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
}

const kindText = (value: unknown) => {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (value instanceof Date) return "a date";
  switch (typeof value) {
    case "string":
      return `the text ${valueText(value)}`;
    case "number":
      return `the number ${valueText(value)}`;
    case "object":
      return "a table";
    default:
      return valueText(value);
  }
};

/** All keys and tables below a prefix that could have been meant, without list brackets. */
function keysOf(section: string): string[] {
  const own = describeSections().find(({ name }) => name === section);
  const tables = describeSections().flatMap(({ name }) =>
    name.startsWith(`${section}.`) && !name.endsWith("[]") ? [name.slice(section.length + 1)] : [],
  );
  return [...(own?.options.map(({ key }) => key.slice(section.length + 1)) ?? []), ...tables];
}

/** E-CFG-001 for a key that does not exist, with the nearest key of its section, else the same name in another section. */
export function unknownKey(key: string, where: string): LongtailError {
  const plain = key.replace(/\[\d+\]/g, "[]").replace(/\.\d+(?=\.|$)/g, "[]");
  const cut = plain.lastIndexOf(".");
  const section = cut < 0 ? "" : plain.slice(0, cut);
  const name = plain.slice(cut + 1);
  const sections = describeSections().map((one) => one.name);
  if (section && !sections.includes(section)) {
    const near = nearestName(
      section,
      sections.filter((one) => !one.endsWith("[]")),
    );
    return new LongtailError("E-CFG-001", {
      where,
      what: `unknown section [${section}]`,
      fix: near
        ? `did you mean [${near}]?`
        : `the sections are ${sections.filter((one) => !/[.[]/.test(one)).join(", ")}`,
    });
  }
  const top = sections.filter((one) => !/[.[]/.test(one));
  const siblings = section ? keysOf(section) : [...top, "preset"];
  const all = describeSections().flatMap(({ options }) => options.map((option) => option.key));
  const elsewhere = all.find((one) => one.slice(one.lastIndexOf(".") + 1) === name);
  const near = nearestName(name, siblings);
  const prefix = section ? `${key.slice(0, key.lastIndexOf("."))}.` : "";
  const fix = near
    ? `did you mean ${prefix}${near}?`
    : elsewhere
      ? `did you mean ${elsewhere}?`
      : `the keys here are ${siblings.join(", ")}`;
  return new LongtailError("E-CFG-001", { where, what: `unknown key ${key}`, fix });
}

/** Choices that there were once, by key and value: why they are gone and what to write instead. */
const GONE: Readonly<Record<string, { why: string; fix: string }>> = {
  'device.tuner = "fixed"': {
    why: 'it chose the kernels that "off" chooses, and no choice of kernels gives the same bits on every adapter',
    fix: 'write device.tuner = "off", which runs the very same kernels',
  },
};

/** E-CFG-002 (wrong type or choice) or E-CFG-003 (number out of range) for one key and the value it was given. */
export function wrongValue(
  key: string,
  given: unknown,
  where: string,
  schema?: z.ZodType,
  detail?: string,
): LongtailError {
  const option = findOption(key);
  const known = schema ?? option?.schema;
  const accepted = known ? acceptedText(known) : (detail ?? "another value");
  const numeric = typeof given === "number" && known !== undefined && admitsType(known, "number");
  if (numeric) {
    return new LongtailError("E-CFG-003", {
      where,
      what: `${key} = ${valueText(given)} is out of range`,
      why: `expected ${accepted}`,
      fix: `set ${key} to ${accepted}${option ? `; the default is ${valueText(option.default)}` : ""}`,
    });
  }
  const choices =
    typeof given === "string"
      ? nearestName(
          given,
          [...accepted.matchAll(/"([^"]+)"/g)].map((m) => m[1]!),
        )
      : null;
  const gone = GONE[`${key} = ${valueText(given)}`];
  if (gone) return new LongtailError("E-CFG-002", { where, what: `${key} is ${kindText(given)}`, ...gone });
  return new LongtailError("E-CFG-002", {
    where,
    what: `${key} is ${kindText(given)}`,
    why: `expected ${accepted}${detail && known ? ` (${detail})` : ""}`,
    fix: choices
      ? `did you mean ${JSON.stringify(choices)}?`
      : option?.hasDefault
        ? `the default is ${valueText(option.default)}`
        : `give ${key} a value of that kind`,
  });
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const part of path) value = (value as Record<PropertyKey, unknown> | null | undefined)?.[part];
  return value;
}

/**
 * The first of zod's issues as a coded error; the others are named in its fix.
 * @param raw the value that was checked
 * @param whereOf tells where a key's value was given, `my.toml line 12` or `command line`
 */
export function problemOf(
  issues: readonly z.core.$ZodIssue[],
  raw: unknown,
  whereOf: (key: string) => string,
): LongtailError {
  const found: { key: string; error: LongtailError }[] = [];
  for (const issue of issues) {
    if (issue.code === "unrecognized_keys") {
      for (const name of issue.keys) {
        const key = keyText([...issue.path, name]);
        found.push({ key, error: unknownKey(key, whereOf(key)) });
      }
      continue;
    }
    // A wrong element of a list of plain values is reported as the list's own error, with the element's position.
    let path = issue.path;
    while (path.length > 1 && !findOption(keyText(path)) && typeof path.at(-1) === "number") path = path.slice(0, -1);
    const key = keyText(path);
    const position =
      path.length < issue.path.length
        ? `position ${Number(issue.path[path.length]) + 1} of the list is ${kindText(valueAt(raw, issue.path))}`
        : undefined;
    const given = valueAt(raw, path);
    if (!findOption(key)) {
      found.push({
        key,
        error: new LongtailError("E-CFG-002", {
          where: whereOf(key),
          what: `${key} is ${kindText(given)}`,
          why: "expected a table of keys",
          fix: `write [${key}] and its keys below it`,
        }),
      });
      continue;
    }
    const detail =
      position ??
      ((Array.isArray(given) && issue.code === "too_big") || issue.code === "too_small"
        ? lengthDetail(issue, given)
        : undefined);
    found.push({ key, error: wrongValue(key, given, whereOf(key), undefined, detail) });
  }
  // A key that is missing and one that is not known are one typo; the nearest name tells it.
  found.sort((a, b) => Number(b.error.code === "E-CFG-001") - Number(a.error.code === "E-CFG-001"));
  const [first, ...others] = found;
  if (!first) return new LongtailError("E-CFG-002", { what: "the configuration is not valid", where: "configuration" });
  if (!others.length) return first.error;
  return new LongtailError(first.error.code, {
    ...first.error.parts,
    fix: `${first.error.parts.fix ?? "correct it"} (and ${others.length} more to correct: ${others
      .slice(0, 5)
      .map((one) => one.key)
      .join(", ")})`,
  });
}

function lengthDetail(issue: z.core.$ZodIssue, given: unknown): string | undefined {
  if (typeof given === "string" && given === "") return "the text is empty";
  if (Array.isArray(given) && "origin" in issue && issue.origin === "array") return `it has ${given.length} elements`;
  return undefined;
}
