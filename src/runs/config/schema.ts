// The configuration of a run as one zod schema, from which the option reference, --help, command-line overrides and the
// commented config.resolved.toml are made. Keys are strict: a typo is an error, never a silent default.

import { z } from "zod";
import { alignSection } from "./align.ts";
import { dataSection } from "./data.ts";
import { acceptedText, admitsType, type FieldMeta, unwrap } from "./fields.ts";
import { deviceSection, evalSection, logSection, modelSection, runSection, saveSection } from "./sections.ts";
import { adapterSection, flowSection, optimSection, sampleSection, scheduleSection, trainSection } from "./training.ts";

export const configSchema = z.strictObject({
  model: modelSection,
  data: dataSection,
  adapter: adapterSection,
  optim: optimSection,
  schedule: scheduleSection,
  train: trainSection,
  flow: flowSection,
  sample: sampleSection,
  eval: evalSection,
  align: alignSection,
  log: logSection,
  save: saveSection,
  run: runSection,
  device: deviceSection,
});

type Parsed = z.output<typeof configSchema>;
/** A checked configuration. `optim.lr` is a number: "auto" has been replaced by the recipe's value. */
export type Config = Omit<Parsed, "optim"> & { optim: Omit<Parsed["optim"], "lr"> & { lr: number } };
export type AlignConfig = Config["align"];
export type RewardConfig = AlignConfig["rewards"][number];
export type PictureSetConfig = Config["data"]["sets"][number];

/** One key of the schema with all that help and documentation need. */
export interface OptionInfo {
  /** Dotted path, `align.steps`; keys of a list's tables have `[]`, `align.rewards[].weight`. */
  key: string;
  /** The table that it is in, `align` or `align.guard`. */
  section: string;
  description: string;
  unit?: string;
  /** The accepted values in words. */
  accepted: string;
  default: unknown;
  /** False where a table of a list must give the key itself. */
  hasDefault: boolean;
  boolean: boolean;
  schema: z.ZodType;
}

export interface SectionInfo {
  name: string;
  description: string;
  options: OptionInfo[];
}

const shapeOf = (schema: z.ZodType) => (unwrap(schema) as unknown as { shape: Record<string, z.ZodType> }).shape;
const typeOf = (schema: z.ZodType) => (unwrap(schema) as unknown as { def: { type: string } }).def.type;
const elementOf = (schema: z.ZodType) => (unwrap(schema) as unknown as { def: { element: z.ZodType } }).def.element;
const metaOf = (schema: z.ZodType) => (schema.meta() ?? { description: "" }) as unknown as FieldMeta;

function describeOption(name: string, section: string, schema: z.ZodType): OptionInfo {
  const meta = metaOf(schema);
  const def = (schema as unknown as { def: { type: string; defaultValue?: unknown } }).def;
  return {
    key: `${section}.${name}`,
    section,
    description: meta.description,
    ...(meta.unit === undefined ? {} : { unit: meta.unit }),
    accepted: acceptedText(schema),
    default: def.defaultValue,
    hasDefault: def.type === "default",
    boolean: admitsType(schema, "boolean"),
    schema,
  };
}

function describeSection(name: string, schema: z.ZodType, into: SectionInfo[]): void {
  const info: SectionInfo = { name, description: metaOf(schema).description, options: [] };
  into.push(info);
  for (const [key, child] of Object.entries(shapeOf(schema))) {
    if (typeOf(child) === "object") {
      describeSection(`${name}.${key}`, child, into);
      continue;
    }
    info.options.push(describeOption(key, name, child));
    if (typeOf(child) === "array" && typeOf(elementOf(child)) === "object") {
      const table: SectionInfo = { name: `${name}.${key}[]`, description: metaOf(child).description, options: [] };
      for (const [inner, schemaOfInner] of Object.entries(shapeOf(elementOf(child)))) {
        table.options.push(describeOption(inner, table.name, schemaOfInner));
      }
      into.push(table);
    }
  }
}

let cache: SectionInfo[] | null = null;

/** Every section and key, in the order of the schema. */
export function describeSections(): SectionInfo[] {
  if (!cache) {
    cache = [];
    for (const [name, schema] of Object.entries(configSchema.shape)) describeSection(name, schema, cache);
  }
  return cache;
}

/** The key at a dotted path, or null; list positions (`align.rewards.0.weight`) lead to the keys of the list's tables. */
export function findOption(path: string): OptionInfo | null {
  const wanted = path.replace(/\[(\d+)\]/g, ".$1").replace(/\.\d+(?=\.|$)/g, "[]");
  for (const { options } of describeSections()) for (const option of options) if (option.key === wanted) return option;
  return null;
}
