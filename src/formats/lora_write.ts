// Writes adapters in the styles that other programs load: diffusers and PEFT (module by module), kohya's sd-scripts (fused
// matrices), OneTrainer and LyCORIS. Every file goes through a temporary one, so that a reader sees all of it or nothing.

import type { FileStore } from "../base/files.ts";
import { isLokr, type LokrLayer, type LokrLayers, type LoraLayer, type LoraLayers } from "./adapter_layers.ts";
import type { LoraStyle } from "./lora_keys.ts";
import { joinFused } from "./lora_kohya.ts";
import { adapterConfig, adapterMetadata, lokrFields, pythonJson, tidy } from "./lora_metadata.ts";
import { familyOfModules } from "./lora_names.ts";
import { misfit } from "./lora_read.ts";
import { type LoraFacts, loraMetadata, type NetworkFacts, type TensorRecord } from "./model_spec.ts";
import { type TensorToWrite, writeSafetensors } from "./safetensors_write.ts";

export type LoraDtype = "F32" | "F16" | "BF16";

export interface WriteLoraOptions {
  /**
   * `target_modules` of the metadata: the entries that chose the layers. By default the full path of every layer.
   */
  targets?: readonly string[];
  dtype?: LoraDtype;
  /**
   * How the metadata is filled: "full" as diffusers 0.42 with PEFT 0.21 writes it, "portable" with those fields alone
   * that every PEFT since 0.14 accepts (an older PEFT refuses a field that it does not know).
   */
  fields?: "full" | "portable";
  /** How A was made: "gaussian" by default, as diffusers' FLUX scripts say. */
  initialisation?: string | boolean;
  /** Says in the metadata that alpha is divided by √rank. */
  rankStabilised?: boolean;
  /**
   * Where the scale of diffusers-style files stands: in `lora_adapter_metadata` (as diffusers writes it; ComfyUI does not
   * read that and takes scale 1), in alpha tensors beside the factors (diffusers refuses both together), or nowhere, because
   * B was multiplied with it, which rounds unless it is a power of two.
   */
  scales?: "metadata" | "tensors" | "folded";
  /** More strings for `__metadata__`. */
  metadata?: Readonly<Record<string, string>>;
  /** Training facts: `ss_*`, `modelspec.*` and hashes of `__metadata__`. */
  facts?: LoraFacts;
}

/**
 * Writes layers as `transformer.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r], for DoRA with
 * `.lora_magnitude_vector` [out], and `__metadata__` {"format": "pt", "lora_adapter_metadata": …}. Layers of another rank
 * or alpha than the first get entries of `rank_pattern` and `alpha_pattern`.
 * @throws E-FILE-018 where there is no layer or a layer's arrays do not fit its sizes, and what the file store throws
 */
export async function writeLora(
  files: FileStore,
  path: string,
  layers: LoraLayers,
  options: WriteLoraOptions = {},
): Promise<void> {
  check(path, layers);
  if (options.scales === "folded") {
    await writeLora(files, path, folded(layers), { ...options, rankStabilised: false, scales: "metadata" });
    return;
  }
  const tensors = factorTensors(layers, "transformer.", options);
  const inTensors = options.scales === "tensors";
  if (inTensors) tensors.push(...alphaTensors(layers, (module) => `transformer.${module}`));
  const metadata: Record<string, string> = { format: "pt" };
  if (!inTensors) metadata["lora_adapter_metadata"] = adapterMetadata(layers, metadataOptions(layers, options));
  await writeTensors(files, path, tensors, { ...metadata, ...options.metadata }, layers, options.facts);
}

function folded(layers: LoraLayers): LoraLayers {
  return new Map(
    [...layers].map(([module, layer]) => [
      module,
      { ...layer, up: layer.up.map((value) => value * layer.scale), scale: 1 },
    ]),
  );
}

/**
 * Writes PEFT's own form, `base_model.model.<module>.lora_A.weight`, to `path` (adapter_model.safetensors by PEFT's rule)
 * and adapter_config.json beside it.
 */
export async function writePeft(
  files: FileStore,
  path: string,
  layers: LoraLayers,
  options: WriteLoraOptions = {},
): Promise<void> {
  check(path, layers);
  const tensors = factorTensors(layers, "base_model.model.", options);
  await writeTensors(files, path, tensors, { format: "pt", ...options.metadata }, layers, options.facts);
  const config = adapterConfig(layers, { ...metadataOptions(layers, options), portable: options.fields !== "full" });
  await files.writeAtomic(beside(path, "adapter_config.json"), config);
}

export interface FusedResult {
  /** Modules whose values had to be multiplied by a ratio of scales, which rounds them. */
  rescaled: string[];
}

/**
 * Writes kohya's form: `lora_unet_….lora_down.weight`, `.lora_up.weight`, `.alpha` and for DoRA `.dora_scale` [out, 1], with
 * query, key and value (and the single blocks' MLP) in one matrix as sd-scripts saves a LoRA of its `split_qkv`.
 * @throws E-FILE-018 where a module has no place in that layout, or DoRA leaves parts of a matrix untrained
 */
export async function writeKohya(
  files: FileStore,
  path: string,
  layers: LoraLayers,
  options: WriteLoraOptions = {},
): Promise<FusedResult> {
  check(path, layers);
  const joined = join(path, layers);
  const tensors = namedTensors(joined.layers, (stem) => stem, options);
  await writeTensors(files, path, tensors, { ...options.metadata }, layers, options.facts);
  return { rescaled: joined.rescaled };
}

/** Writes OneTrainer's form, `lora_transformer_<module>.lora_down.weight` with alpha; ComfyUI and diffusers load it. */
export async function writeOneTrainer(
  files: FileStore,
  path: string,
  layers: LoraLayers,
  options: WriteLoraOptions = {},
): Promise<void> {
  check(path, layers);
  const tensors = namedTensors(layers, (module) => `lora_transformer_${module.replaceAll(".", "_")}`, options);
  await writeTensors(files, path, tensors, { ...options.metadata }, layers, options.facts);
}

/**
 * Writes a LoKr with LyCORIS' names, `lycoris_<module>.lokr_w1` and so on with alpha. Where both matrices are whole LyCORIS
 * knows no scale, so it goes into the first one.
 */
export async function writeLycoris(
  files: FileStore,
  path: string,
  layers: LokrLayers,
  options: WriteLoraOptions = {},
): Promise<void> {
  checkLokr(path, layers);
  const dtype = options.dtype ?? "F32";
  const tensors: TensorToWrite[] = [];
  for (const [module, layer] of layers) {
    const stem = `lycoris_${module.replaceAll(".", "_")}`;
    const { first, second, scale } = layer;
    const rank = rankOf(layer);
    tensors.push(...lokrTensors(stem, rank === null ? { ...layer, first: scaled(first, scale) } : layer, dtype));
    const alpha = rank === null ? Math.max(second.rows, second.columns) : tidy(scale * rank);
    tensors.push({ name: `${stem}.alpha`, dtype: "F32", shape: [], data: Float32Array.of(alpha) });
  }
  await writeTensors(files, path, tensors, { ...options.metadata }, layers, options.facts);
}

/**
 * Writes a LoKr in PEFT's form with its adapter_config.json.
 * @throws E-FILE-018 where PEFT could not build the layers again from one decompose_factor
 */
export async function writePeftLokr(
  files: FileStore,
  path: string,
  layers: LokrLayers,
  options: WriteLoraOptions = {},
): Promise<void> {
  checkLokr(path, layers);
  const fields = lokrFields(layers);
  if (typeof fields === "string") throw misfit(path, "the whole file", fields, { fix: "write it in LyCORIS' style" });
  const dtype = options.dtype ?? "F32";
  const tensors = [...layers].flatMap(([module, layer]) => lokrTensors(`base_model.model.${module}`, layer, dtype));
  await writeTensors(files, path, tensors, { format: "pt", ...options.metadata }, layers, options.facts);
  await files.writeAtomic(beside(path, "adapter_config.json"), `${pythonJson(fields, "")}\n`);
}

/** Which of the two layouts with underscores can hold the layers. */
export function fusedKind(layers: LoraLayers): "kohya" | "onetrainer" {
  if (![...layers.values()].some((layer) => layer.magnitude)) return "kohya";
  try {
    // A trial with the shapes alone would repeat the rules; a DoRA is small enough to join twice.
    joinFused(layers);
    return "kohya";
  } catch {
    return "onetrainer";
  }
}

/**
 * The place for scales that every loader reads as meant. Where all are 1, none is needed. ComfyUI does not read the metadata,
 * and diffusers 0.42 mixes up alpha tensors of modules where one's name ends another's (proj_out), so that only equal
 * alphas are safe there. Its FLUX.2 pipelines take no alpha tensors at all.
 */
export function portableScales(layers: LoraLayers): "metadata" | "tensors" | "folded" {
  const all = [...layers.values()];
  if (all.every((layer) => layer.scale === 1)) return "metadata";
  if (familyOfModules(layers.keys()) === "flux2") return "folded";
  const alphaOf = ({ scale, rank }: LoraLayer) => tidy(scale * rank);
  return all.every((layer) => alphaOf(layer) === alphaOf(all[0]!)) ? "tensors" : "folded";
}

/** Writes layers in a style by name. @returns notes on what the style could not keep */
export async function writeInStyle(
  files: FileStore,
  path: string,
  layers: LoraLayers,
  style: Exclude<LoraStyle, "xlabs" | "bfl" | "lycoris">,
  options: WriteLoraOptions = {},
): Promise<string[]> {
  if (style === "diffusers") {
    await writeLora(files, path, layers, options);
    const rounded =
      options.scales === "folded" && [...layers.values()].some(({ scale }) => !Number.isInteger(Math.log2(scale)));
    return rounded ? ["alpha / rank went into the values of B, which rounds them; --scales=metadata keeps them"] : [];
  }
  if (style === "peft") await writePeft(files, path, layers, options);
  else if (style === "onetrainer") await writeOneTrainer(files, path, layers, options);
  else {
    const { rescaled } = await writeKohya(files, path, layers, options);
    if (rescaled.length > 0) {
      return [
        `parts of one matrix had different scales: the values of ${rescaled.length} layers (${rescaled[0]}, …) were ` +
          "multiplied by the ratio, which rounds them",
      ];
    }
  }
  return [];
}

/** Writes a file with the metadata of a training, where facts are given. */
export async function writeTensors(
  files: FileStore,
  path: string,
  tensors: TensorToWrite[],
  metadata: Readonly<Record<string, string>>,
  layers: LoraLayers | LokrLayers,
  facts: LoraFacts | undefined,
): Promise<void> {
  const all = facts
    ? { ...metadata, ...(await loraMetadata(tensors as TensorRecord[], facts, networkOf(layers))) }
    : metadata;
  await writeSafetensors(files, path, tensors, { metadata: all });
}

function networkOf(layers: LoraLayers | LokrLayers): NetworkFacts {
  if (areLokr(layers)) {
    const ranks = [...layers.values()].map((layer) => rankOf(layer) ?? 0);
    return { kind: "lokr", ranks, alphas: [...layers.values()].map(({ scale }, i) => tidy(scale * ranks[i]!)) };
  }
  const all = [...layers.values()] as LoraLayer[];
  return {
    kind: all.some((layer) => layer.magnitude) ? "dora" : "lora",
    ranks: all.map(({ rank }) => rank),
    alphas: all.map(({ rank, scale }) => tidy(rank * scale)),
  };
}

function metadataOptions(layers: LoraLayers, options: WriteLoraOptions) {
  return {
    targets: options.targets ?? [...layers.keys()],
    initialisation: options.initialisation ?? "gaussian",
    portable: options.fields === "portable",
    rankStabilised: options.rankStabilised ?? false,
  };
}

function factorTensors(layers: LoraLayers, prefix: string, options: WriteLoraOptions): TensorToWrite[] {
  const dtype = options.dtype ?? "F32";
  return [...layers].flatMap(([module, { rank, inputs, outputs, down, up, magnitude }]) => {
    const tensors: TensorToWrite[] = [
      { name: `${prefix}${module}.lora_A.weight`, dtype, shape: [rank, inputs], data: down },
      { name: `${prefix}${module}.lora_B.weight`, dtype, shape: [outputs, rank], data: up },
    ];
    if (magnitude) {
      tensors.push({ name: `${prefix}${module}.lora_magnitude_vector`, dtype, shape: [outputs], data: magnitude });
    }
    return tensors;
  });
}

/** Factors with the short words of sd-scripts. */
function namedTensors(
  layers: LoraLayers,
  stemOf: (name: string) => string,
  options: WriteLoraOptions,
): TensorToWrite[] {
  const dtype = options.dtype ?? "F32";
  const tensors = [...layers].flatMap(([name, { rank, inputs, outputs, down, up, magnitude }]) => {
    const stem = stemOf(name);
    const own: TensorToWrite[] = [
      { name: `${stem}.lora_down.weight`, dtype, shape: [rank, inputs], data: down },
      { name: `${stem}.lora_up.weight`, dtype, shape: [outputs, rank], data: up },
    ];
    if (magnitude) own.push({ name: `${stem}.dora_scale`, dtype, shape: [outputs, 1], data: magnitude });
    return own;
  });
  return [...tensors, ...alphaTensors(layers, stemOf)];
}

/** Alphas stay float32: an alpha like 12.345 would lose digits in half precision, and they are few. */
function alphaTensors(layers: LoraLayers, stemOf: (name: string) => string): TensorToWrite[] {
  return [...layers].map(([name, { rank, scale }]) => ({
    name: `${stemOf(name)}.alpha`,
    dtype: "F32",
    shape: [],
    data: Float32Array.of(tidy(scale * rank)),
  }));
}

export function lokrTensors(stem: string, layer: LokrLayer, dtype: LoraDtype): TensorToWrite[] {
  return (["first", "second"] as const).flatMap((which): TensorToWrite[] => {
    const factor = layer[which];
    const name = `${stem}.lokr_${which === "first" ? "w1" : "w2"}`;
    const { rows, columns } = factor;
    if ("whole" in factor) return [{ name, dtype, shape: [rows, columns], data: factor.whole }];
    return [
      { name: `${name}_a`, dtype, shape: [rows, factor.rank], data: factor.left },
      { name: `${name}_b`, dtype, shape: [factor.rank, columns], data: factor.right },
    ];
  });
}

export function scaled(factor: LokrLayer["first"], by: number): LokrLayer["first"] {
  if (by === 1) return factor;
  const times = (values: Float32Array) => values.map((value) => value * by);
  return "whole" in factor ? { ...factor, whole: times(factor.whole) } : { ...factor, left: times(factor.left) };
}

/** The rank that LyCORIS divides alpha by; null where both matrices are whole. */
function rankOf({ first, second }: LokrLayer): number | null {
  return "rank" in second ? second.rank : "rank" in first ? first.rank : null;
}

/** Whether a file's layers are a LoKr's. */
export const areLokr = (layers: LoraLayers | LokrLayers): layers is LokrLayers => [...layers.values()].some(isLokr);

function join(path: string, layers: LoraLayers) {
  try {
    return joinFused(layers);
  } catch (error) {
    throw misfit(path, "the whole file", (error as Error).message, {
      fix: "write it in diffusers' or OneTrainer's style, which keep every module by itself",
    });
  }
}

function check(path: string, layers: LoraLayers): void {
  if (layers.size === 0) throw misfit(path, "the adapter", "it has no layers");
  for (const [module, { rank, inputs, outputs, down, up, magnitude }] of layers) {
    if (down.length !== rank * inputs || up.length !== outputs * rank) {
      const why = `${down.length} and ${up.length} values do not fill rank ${rank} of ${outputs} × ${inputs}`;
      throw misfit(path, module, why);
    }
    if (magnitude && magnitude.length !== outputs) {
      throw misfit(path, module, `${magnitude.length} magnitudes are not one for each of ${outputs} outputs`);
    }
  }
  const dora = [...layers.values()].filter((layer: LoraLayer) => layer.magnitude).length;
  if (dora > 0 && dora < layers.size) {
    throw misfit(
      path,
      "the whole file",
      `${dora} of ${layers.size} layers have a DoRA magnitude; loaders expect all or none`,
    );
  }
}

export function checkLokr(path: string, layers: LokrLayers): void {
  if (layers.size === 0) throw misfit(path, "the adapter", "it has no layers");
  for (const [module, { first, second, inputs, outputs }] of layers) {
    const filled = [first, second].every((factor) =>
      "whole" in factor
        ? factor.whole.length === factor.rows * factor.columns
        : factor.left.length === factor.rows * factor.rank && factor.right.length === factor.rank * factor.columns,
    );
    if (!filled || first.rows * second.rows !== outputs || first.columns * second.columns !== inputs) {
      throw misfit(path, module, `its factors do not make ${outputs} × ${inputs}`);
    }
  }
}

function beside(path: string, name: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1) + name;
}
