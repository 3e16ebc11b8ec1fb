// The configuration that travels with a LoRA: fields of PEFT's LoraConfig, in diffusers files as a JSON text in
// `__metadata__` with "transformer." before every field, in PEFT's own folders as adapter_config.json.

import { LongtailError } from "../base/errors.ts";
import type { LokrLayers, LoraLayer, LoraLayers } from "./adapter_layers.ts";
import { decomposeFactor } from "./lokr.ts";

/** The fields that decide a layer's scale. */
export interface LoraFields {
  /** Null where the file does not say: then alpha = rank. */
  alpha: number | null;
  /** Alpha of single modules by name or ending. */
  alphaPattern: ReadonlyMap<string, number>;
  /** Rank-stabilised scaling: alpha / √rank. */
  rankStabilised: boolean;
  /** True where the layers must have a DoRA magnitude. */
  dora: boolean;
  /** The scale of a LoKr's layers, alpha / r, or null for a LoRA. */
  lokr: { scaleOf(module: string): number } | null;
}

/** True where a module is meant by an entry: the same name, or one that ends with "." and the entry (PEFT's rule). */
export function matchesEntry(module: string, entry: string): boolean {
  return module === entry || module.endsWith(`.${entry}`);
}

/** alpha / rank of a module under the fields, or 1 without fields. */
export function scaleOf(fields: LoraFields | null, module: string, rank: number): number {
  if (!fields) return 1;
  const alpha = ofPattern(fields.alphaPattern, module) ?? fields.alpha ?? rank;
  return alpha / (fields.rankStabilised ? Math.sqrt(rank) : rank);
}

/** The first entry that means the module; PEFT writes a full name as "^name". */
function ofPattern(pattern: ReadonlyMap<string, number>, module: string): number | undefined {
  for (const [entry, own] of pattern) {
    if (entry.startsWith("^") ? entry.slice(1) === module : matchesEntry(module, entry)) return own;
  }
  return undefined;
}

/**
 * Reads the fields out of a JSON text.
 * @param prefix what stands before every field's name
 * @throws E-FILE-018 where the text is not an object, a number is none, or the adapter is no LoRA, DoRA or LoKr
 */
export function readFields(text: string, where: string, prefix: string): LoraFields {
  const refuse = (why: string): never => {
    throw new LongtailError("E-FILE-018", {
      what: "the LoRA's configuration cannot be used",
      where,
      why,
      fix: "save the adapter again from the program that made it, as a LoRA, DoRA or LoKr",
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
  const lokr = type === "LOKR";
  if (type !== undefined && type !== null && type !== "LORA" && !lokr) {
    refuse(`peft_type is ${JSON.stringify(type)}`);
  }
  for (const field of ["lora_bias", "fan_in_fan_out"]) {
    if (get(field) === true) refuse(`${field} is set, which changes what the factors mean`);
  }
  const pattern = (field: string): Map<string, number> => {
    const found = get(field) ?? {};
    if (typeof found !== "object" || Array.isArray(found)) refuse(`${field} is not an object`);
    return new Map(Object.entries(found as object).map(([key, value]) => [key, number(value, field)]));
  };
  const field = lokr ? "alpha" : "lora_alpha";
  const given = get(field);
  const alpha = given === undefined || given === null ? null : number(given, field);
  const alphaPattern = pattern("alpha_pattern");
  let scales: LoraFields["lokr"] = null;
  if (lokr) {
    const rank = number(get("r"), "r");
    const rankPattern = pattern("rank_pattern");
    // Whole Kronecker factors do not show the rank that the scale divides by.
    const scaleOf = (module: string) =>
      (ofPattern(alphaPattern, module) ?? alpha ?? rank) / (ofPattern(rankPattern, module) ?? rank);
    scales = { scaleOf };
  }
  return {
    alpha,
    alphaPattern,
    rankStabilised: get("use_rslora") === true,
    dora: get("use_dora") === true,
    lokr: scales,
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

export interface AdapterMetadataOptions {
  targets: readonly string[];
  initialisation: string | boolean;
  portable: boolean;
  /** Writes alpha for PEFT's rank-stabilised scale, alpha / √rank. */
  rankStabilised?: boolean;
}

/** The text of `lora_adapter_metadata`, laid out as Python's json with indent 2 and sorted keys. */
export function adapterMetadata(layers: LoraLayers, options: AdapterMetadataOptions): string {
  return pythonJson(loraFields(layers, options), "transformer.");
}

/** The text of PEFT's adapter_config.json for a LoRA or DoRA. */
export function adapterConfig(layers: LoraLayers, options: AdapterMetadataOptions): string {
  return `${pythonJson(loraFields(layers, options), "")}\n`;
}

function loraFields(layers: LoraLayers, options: AdapterMetadataOptions): Record<string, unknown> {
  const root = (rank: number) => (options.rankStabilised ? Math.sqrt(rank) : rank);
  const alphaOf = (layer: LoraLayer) => tidy(layer.scale * root(layer.rank));
  const [first] = layers.values() as Iterable<LoraLayer>;
  const ranks: Record<string, number> = Object.create(null);
  const alphas: Record<string, number> = Object.create(null);
  for (const [module, layer] of patternOrder(layers)) {
    if (layer.rank !== first!.rank) ranks[module] = layer.rank;
    if (alphaOf(layer) !== alphaOf(first!)) alphas[module] = alphaOf(layer);
  }
  const all: Record<string, unknown> = {
    ...NEUTRAL,
    r: first!.rank,
    lora_alpha: alphaOf(first!),
    init_lora_weights: options.initialisation,
    target_modules: [...new Set(options.targets)].sort(),
    rank_pattern: explicit(ranks, layers, (layer) => layer.rank),
    alpha_pattern: explicit(alphas, layers, alphaOf),
    use_dora: [...layers.values()].some((layer) => layer.magnitude),
    use_rslora: options.rankStabilised ?? false,
  };
  return Object.fromEntries(Object.entries(all).filter(([name]) => !options.portable || PORTABLE.includes(name)));
}

/** PEFT takes the first entry that a module's name ends with, so longer names must come first. */
function patternOrder<T>(layers: ReadonlyMap<string, T>): [string, T][] {
  const depth = (name: string) => name.split(".").length;
  return [...layers]
    .map((entry, i) => ({ entry, i }))
    .sort((a, b) => depth(b.entry[0]) - depth(a.entry[0]) || a.i - b.i)
    .map(({ entry }) => entry);
}

/** Where an entry's name is the ending of another module's, that module needs an entry of its own before it. */
function explicit<T>(
  pattern: Record<string, number>,
  layers: ReadonlyMap<string, T>,
  numberOf: (layer: T) => number,
): Record<string, number> {
  const entries = Object.keys(pattern);
  const out: Record<string, number> = Object.create(null);
  for (const [module, layer] of patternOrder(layers)) {
    if (entries.some((entry) => matchesEntry(module, entry))) out[module] = numberOf(layer);
  }
  return out;
}

/**
 * The fields of PEFT's LoKrConfig, or why PEFT cannot build such layers: it derives every shape from one factor.
 */
export function lokrFields(layers: LokrLayers): Record<string, unknown> | string {
  const factor = decomposeFactor(layers.values());
  if (factor === null)
    return "the sizes of its factors follow from no single decompose_factor, which is all that PEFT knows";
  const rankOf = (layer: LokrLayers extends ReadonlyMap<string, infer L> ? L : never): number => {
    if ("rank" in layer.second) return layer.second.rank;
    if ("rank" in layer.first) return layer.first.rank;
    // PEFT keeps a matrix whole where the rank is at least half of its larger side.
    return Math.max(layer.second.rows, layer.second.columns);
  };
  const [first] = layers.values();
  const ranks: Record<string, number> = Object.create(null);
  const alphas: Record<string, number> = Object.create(null);
  const alphaOf = (layer: typeof first) => tidy(layer!.scale * rankOf(layer!));
  for (const [module, layer] of patternOrder(layers)) {
    ranks[module] = rankOf(layer);
    alphas[module] = alphaOf(layer);
  }
  return {
    peft_type: "LOKR",
    r: rankOf(first!),
    alpha: alphaOf(first),
    rank_pattern: ranks,
    alpha_pattern: alphas,
    target_modules: [...layers.keys()].sort(),
    decompose_both: [...layers.values()].some((layer) => "rank" in layer.first),
    decompose_factor: factor,
    init_weights: true,
    rank_dropout: 0,
    module_dropout: 0,
    use_effective_conv2d: false,
  };
}

/** Fields as Python's json with indent 2 and sorted keys writes them. */
export function pythonJson(fields: Record<string, unknown>, prefix: string): string {
  const names = Object.keys(fields).sort();
  const text = JSON.stringify(Object.fromEntries(names.map((name) => [prefix + name, fields[name]])), null, 2);
  // A float in Python's JSON keeps its point.
  return text.replace(/("(?:transformer\.)?lora_dropout": 0)(?=,|\n)/, "$1.0");
}

/** Scales are divided and multiplied again: a whole alpha must come out whole. */
export function tidy(value: number): number {
  return Number(value.toPrecision(12));
}
