// The configuration that travels with a LoRA: fields of PEFT's LoraConfig, in diffusers files as a JSON text in
// `__metadata__` with "transformer." before every field, in PEFT's own folders as adapter_config.json.

import { LongtailError } from "../base/errors.ts";
import type { LoraLayer } from "./lora.ts";

/** The fields that decide a layer's scale. */
export interface LoraFields {
  /** Null where the file does not say: then alpha = rank. */
  alpha: number | null;
  /** Alpha of single modules by name or ending. */
  alphaPattern: ReadonlyMap<string, number>;
  /** Rank-stabilised scaling: alpha / √rank. */
  rankStabilised: boolean;
}

/** True where a module is meant by an entry: the same name, or one that ends with "." and the entry (PEFT's rule). */
export function matchesEntry(module: string, entry: string): boolean {
  return module === entry || module.endsWith(`.${entry}`);
}

/** alpha / rank of a module under the fields, or 1 without fields. */
export function scaleOf(fields: LoraFields | null, module: string, rank: number): number {
  if (!fields) return 1;
  let alpha = fields.alpha ?? rank;
  for (const [entry, own] of fields.alphaPattern) {
    if (!matchesEntry(module, entry)) continue;
    alpha = own;
    break;
  }
  return alpha / (fields.rankStabilised ? Math.sqrt(rank) : rank);
}

/**
 * Reads the fields out of a JSON text.
 * @param prefix what stands before every field's name
 * @throws E-FILE-018 where the text is not an object, a number is none, or the adapter is not a plain LoRA
 */
export function readFields(text: string, where: string, prefix: string): LoraFields {
  const refuse = (why: string): never => {
    throw new LongtailError("E-FILE-018", {
      what: "the LoRA's configuration cannot be used",
      where,
      why,
      fix: "save the LoRA again from the program that made it, as a plain LoRA",
    });
  };
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    return refuse(`it is not JSON: ${(error as Error).message}`);
  }
  if (typeof root !== "object" || root === null || Array.isArray(root)) return refuse("it is not an object");
  const get = (field: string) =>
    Object.hasOwn(root, prefix + field) ? (root as Record<string, unknown>)[prefix + field] : undefined;
  const number = (value: unknown, field: string): number =>
    typeof value === "number" && Number.isFinite(value)
      ? value
      : refuse(`${field} is ${JSON.stringify(value)}, not a number`);

  const type = get("peft_type");
  if (type !== undefined && type !== null && type !== "LORA") refuse(`peft_type is ${JSON.stringify(type)}`);
  for (const field of ["use_dora", "lora_bias", "fan_in_fan_out"]) {
    if (get(field) === true) refuse(`${field} is set, which changes what the factors mean`);
  }
  const pattern = get("alpha_pattern") ?? {};
  if (typeof pattern !== "object" || Array.isArray(pattern)) refuse("alpha_pattern is not an object");
  const alpha = get("lora_alpha");
  return {
    alpha: alpha === undefined || alpha === null ? null : number(alpha, "lora_alpha"),
    alphaPattern: new Map(
      Object.entries(pattern as object).map(([key, value]) => [key, number(value, "alpha_pattern")]),
    ),
    rankStabilised: get("use_rslora") === true,
  };
}

/** Every field of PEFT 0.21's LoraConfig at its neutral value; what a LoRA sets is put over it. */
const NEUTRAL = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: null,
  bias: "none",
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: false,
  init_lora_weights: "gaussian",
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 1,
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  monteclora_config: null,
  peft_type: "LORA",
  peft_version: "0.21.2",
  qalora_group_size: 16,
  r: 1,
  rank_pattern: {},
  revision: null,
  target_modules: [] as string[],
  target_parameters: null,
  task_type: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

/** Fields that a loader needs or that say what the adapter is; every PEFT since 0.14 knows them. */
const PORTABLE: readonly string[] = [
  "alpha_pattern",
  "bias",
  "init_lora_weights",
  "lora_alpha",
  "lora_bias",
  "lora_dropout",
  "peft_type",
  "r",
  "rank_pattern",
  "target_modules",
  "use_dora",
  "use_rslora",
];

/** The text of `lora_adapter_metadata`, laid out as Python's json with indent 2 and sorted keys. */
export function adapterMetadata(
  layers: ReadonlyMap<string, LoraLayer>,
  options: { targets: readonly string[]; initialisation: string | boolean; portable: boolean },
): string {
  const alphaOf = (layer: LoraLayer) => tidy(layer.scale * layer.rank);
  const [first] = layers.values() as Iterable<LoraLayer>;
  const ranks: Record<string, number> = Object.create(null);
  const alphas: Record<string, number> = Object.create(null);
  for (const [module, layer] of layers) {
    if (layer.rank !== first!.rank) ranks[module] = layer.rank;
    if (alphaOf(layer) !== alphaOf(first!)) alphas[module] = alphaOf(layer);
  }
  const all: Record<string, unknown> = {
    ...NEUTRAL,
    r: first!.rank,
    lora_alpha: alphaOf(first!),
    init_lora_weights: options.initialisation,
    target_modules: [...new Set(options.targets)].sort(),
    rank_pattern: ranks,
    alpha_pattern: alphas,
  };
  const names = Object.keys(all)
    .filter((name) => !options.portable || PORTABLE.includes(name))
    .sort();
  const text = JSON.stringify(Object.fromEntries(names.map((name) => [`transformer.${name}`, all[name]])), null, 2);
  // A float in Python's JSON keeps its point.
  return text.replace(/("transformer\.lora_dropout": 0)(?=,|\n)/, "$1.0");
}

/** Scales are divided and multiplied again: a whole alpha must come out whole. */
function tidy(value: number): number {
  return Number(value.toPrecision(12));
}
