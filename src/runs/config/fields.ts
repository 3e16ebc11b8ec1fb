// The building blocks of the configuration schema. Every key carries a default, a unit and one sentence, kept in zod's
// metadata, so that --help, docs/options.md and config.resolved.toml are all written from the schema and cannot drift.

import { z } from "zod";

/** What the schema knows about a key or section besides its type. */
export interface FieldMeta {
  description: string;
  /** Unit of the value in words, such as "updates" or "MiB"; absent where a value has none. */
  unit?: string;
}

/** A key: its type, its default, what it means and its unit. */
export function field<T extends z.ZodType>(schema: T, byDefault: z.output<T>, description: string, unit?: string) {
  const meta: FieldMeta = unit === undefined ? { description } : { description, unit };
  return schema.default(byDefault as never).meta({ ...meta });
}

/** A section: a strict table of keys; an absent section is one full of defaults. */
export function section<T extends z.ZodRawShape>(shape: T, description: string) {
  return z
    .strictObject(shape)
    .prefault({} as never)
    .meta({ description });
}

/** A whole number of at least `least`. */
export const whole = (least: number) => z.number().int().min(least);

/** A finite number of at least `least` and, where given, at most `most`. */
export const real = (least: number, most?: number) =>
  most === undefined ? z.number().min(least) : z.number().min(least).max(most);

export const text = () => z.string();
export const words = () => z.array(z.string().min(1));
/** Two numbers: the value at the least noisy end of the training range and at the noisiest. */
export const range = () => z.tuple([z.number(), z.number()]);

/** What is under `.default()`, `.prefault()` and `.optional()`. */
export function unwrap(schema: z.ZodType): z.ZodType {
  let current = schema as unknown as { def: { type: string; innerType?: unknown } };
  while (["default", "prefault", "optional"].includes(current.def.type))
    current = current.def.innerType as typeof current;
  return current as unknown as z.ZodType;
}

interface LooseDef {
  type: string;
  values?: unknown[];
  entries?: Record<string, string>;
  options?: z.ZodType[];
  items?: z.ZodType[];
  element?: z.ZodType;
  checks?: { _zod: { def: { check: string; value?: number; inclusive?: boolean; format?: string } } }[];
}

const definition = (schema: z.ZodType) => (unwrap(schema) as unknown as { def: LooseDef }).def;

/** Whether a value of JavaScript type `type` can be right for the schema at all. */
export function admitsType(schema: z.ZodType, type: string): boolean {
  const def = definition(schema);
  if (def.type === "union") return def.options!.some((option) => admitsType(option, type));
  if (def.type === "enum") return type === "string";
  if (def.type === "literal") return def.values!.some((value) => typeof value === type);
  return def.type === type;
}

/** The accepted values in words: `a whole number of at least 1`, `"auto", "no" or text`. */
export function acceptedText(schema: z.ZodType): string {
  const def = definition(schema);
  switch (def.type) {
    case "union":
      return joinOr(def.options!.map(acceptedText));
    case "enum":
      return joinOr(Object.values(def.entries!).map((value) => JSON.stringify(value)));
    case "literal":
      return joinOr(def.values!.map((value) => JSON.stringify(value)));
    case "tuple":
      return def.items!.length === 2 ? "two numbers" : `${def.items!.length} values`;
    case "array":
      return `a list of ${elementText(def.element!)}`;
    case "boolean":
      return "true or false";
    case "string":
      return "text";
    case "object":
      return "a table";
    case "number":
      return numberText(def);
    default:
      return def.type;
  }
}

function elementText(element: z.ZodType): string {
  switch (definition(element).type) {
    case "string":
      return "texts";
    case "object":
      return "tables";
    case "number":
      return "numbers";
    default:
      return acceptedText(element);
  }
}

function numberText(def: LooseDef): string {
  let noun = "a number";
  let least: string | null = null;
  let most: string | null = null;
  for (const { _zod } of def.checks ?? []) {
    const check = _zod.def;
    if (check.check === "number_format") noun = "a whole number";
    if (check.check === "greater_than") least = `${check.inclusive ? "of at least" : "above"} ${check.value}`;
    if (check.check === "less_than") most = `${check.inclusive ? "at most" : "below"} ${check.value}`;
  }
  return [noun, least, most && (least ? `and ${most}` : `of ${most}`)].filter(Boolean).join(" ");
}

function joinOr(parts: string[]): string {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} or ${parts.at(-1)}`;
}
