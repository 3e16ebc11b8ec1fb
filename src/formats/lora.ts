// LoRA files (Hu et al. 2021) in the styles that other programs write and read: diffusers (with and without the adapter's
// metadata), PEFT, and kohya's sd-scripts. Whatever the style, a file becomes one pair of factors a module of diffusers'
// naming; what is written is diffusers' own form, keys and metadata alike.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { LoraLayer } from "./adapter_layers.ts";
import { fuseNames, splitFused } from "./lora_kohya.ts";
import { adapterMetadata, type LoraFields, readFields, scaleOf } from "./lora_metadata.ts";
import { Safetensors } from "./safetensors.ts";
import { writeSafetensors } from "./safetensors_write.ts";

export type { LoraLayer } from "./adapter_layers.ts";

export type LoraStyle = "diffusers" | "peft" | "kohya";

export interface LoraFile {
  style: LoraStyle;
  /** By module path without a prefix: "transformer_blocks.0.attn.to_q". */
  layers: Map<string, LoraLayer>;
  /** `__metadata__` of the file. */
  metadata: ReadonlyMap<string, string>;
}

/** Prefixes of keys by style; the part behind is the module path. */
const PREFIXES: readonly [string, LoraStyle][] = [
  ["transformer.", "diffusers"],
  ["base_model.model.", "peft"],
];

/**
 * Reads a LoRA of the transformer.
 * Scale: from the metadata (diffusers), from adapter_config.json beside the file (PEFT), from the alpha tensors (kohya);
 * 1 where a file says nothing, as diffusers takes it.
 * @throws E-FILE-017 where keys belong to no known layer or style, E-FILE-018 where factors do not fit together or the
 * file needs something that is not supported, and what reading a safetensors file throws
 */
export async function readLora(files: FileStore, path: string): Promise<LoraFile> {
  const file = await Safetensors.open(files, path);
  try {
    if (file.names().some((name) => name.endsWith(".lora_down.weight"))) return await readKohya(file);
    return await readPeft(files, file);
  } finally {
    await file.close();
  }
}

async function readPeft(files: FileStore, file: Safetensors): Promise<LoraFile> {
  const style = PREFIXES.find(([prefix]) => file.names().some((name) => name.startsWith(prefix)))?.[1] ?? "diffusers";
  const prefix = PREFIXES.find(([, s]) => s === style)![0];
  const pairs = new Map<string, { A?: string; B?: string }>();
  const unknown: string[] = [];
  for (const name of file.names()) {
    // PEFT puts the adapter's name between in some versions.
    const found = /^(.+)\.lora_([AB])(?:\.default)?\.weight$/.exec(name);
    if (!found || !name.startsWith(prefix)) {
      unknown.push(name);
      continue;
    }
    const module = found[1]!.slice(prefix.length);
    const pair = pairs.get(module) ?? {};
    pair[found[2] as "A" | "B"] = name;
    pairs.set(module, pair);
  }
  refuseUnknown(file.path, unknown, pairs.size);
  const fields = await peftFields(files, file, style);
  const layers = new Map<string, LoraLayer>();
  for (const [module, { A, B }] of pairs) {
    if (!A || !B) throw misfit(file.path, A ?? B!, `its other factor, lora_${A ? "B" : "A"}, is missing`);
    const factors = await readFactors(file, A, B);
    layers.set(module, { ...factors, scale: scaleOf(fields, module, factors.rank) });
  }
  return { style, layers, metadata: file.metadata };
}

/** Fields of the LoRA's configuration, or null where none is known. */
async function peftFields(files: FileStore, file: Safetensors, style: LoraStyle): Promise<LoraFields | null> {
  const text = file.metadata.get("lora_adapter_metadata");
  if (text !== undefined) return readFields(text, file.path, "transformer.");
  if (style !== "peft") return null;
  const slash = Math.max(file.path.lastIndexOf("/"), file.path.lastIndexOf("\\"));
  const config = `${file.path.slice(0, slash + 1)}adapter_config.json`;
  return (await files.exists(config)) ? readFields(await files.readText(config), config, "") : null;
}

async function readKohya(file: Safetensors): Promise<LoraFile> {
  const stems = new Map<string, Set<string>>();
  const unknown: string[] = [];
  for (const name of file.names()) {
    const found = /^(.+?)\.(lora_down\.weight|lora_up\.weight|alpha)$/.exec(name);
    if (!found || !fuseNames(found[1]!)) {
      unknown.push(name);
      continue;
    }
    stems.set(found[1]!, (stems.get(found[1]!) ?? new Set()).add(found[2]!));
  }
  refuseUnknown(file.path, unknown, stems.size);
  const layers = new Map<string, LoraLayer>();
  for (const [stem, parts] of stems) {
    for (const part of ["lora_down.weight", "lora_up.weight"]) {
      if (!parts.has(part)) throw misfit(file.path, stem, `its ${part} is missing`);
    }
    const factors = await readFactors(file, `${stem}.lora_down.weight`, `${stem}.lora_up.weight`);
    const alpha = parts.has("alpha") ? (await file.readF32(`${stem}.alpha`))[0]! : factors.rank;
    if (!Number.isFinite(alpha)) throw misfit(file.path, `${stem}.alpha`, `its value is ${alpha}`);
    const names = fuseNames(stem)!;
    const split = splitFused(names, { ...factors, scale: alpha / factors.rank });
    if (!split)
      throw misfit(file.path, stem, `${factors.outputs} rows cannot be split into ${names.modules.join(", ")}`);
    for (const [module, layer] of split) layers.set(module, layer);
  }
  return { style: "kohya", layers, metadata: file.metadata };
}

async function readFactors(file: Safetensors, A: string, B: string): Promise<Omit<LoraLayer, "scale">> {
  const [a, b] = [file.info(A).shape, file.info(B).shape];
  if (a.length !== 2 || b.length !== 2) throw misfit(file.path, A, `shapes [${a}] and [${b}] are no matrices`);
  const [rank, inputs] = a as [number, number];
  if (b[1] !== rank || rank < 1) throw misfit(file.path, A, `shapes [${a}] and [${b}] have no common rank`);
  return { rank, inputs, outputs: b[0]!, down: await file.readF32(A), up: await file.readF32(B) };
}

export interface WriteLoraOptions {
  /**
   * `target_modules` of the metadata: the entries that chose the layers. By default the full path of every layer.
   */
  targets?: readonly string[];
  dtype?: "F32" | "F16" | "BF16";
  /**
   * How the metadata is filled: "full" as diffusers 0.42 with PEFT 0.21 writes it, "portable" with those fields alone
   * that every PEFT since 0.14 accepts (an older PEFT refuses a field that it does not know).
   */
  fields?: "full" | "portable";
  /** How A was made: "gaussian" by default, as diffusers' FLUX scripts say. */
  initialisation?: string | boolean;
  /** More strings for `__metadata__`. */
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes layers as `transformer.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r], with
 * `__metadata__` {"format": "pt", "lora_adapter_metadata": …}. Layers of another rank or alpha than the first get entries
 * of `rank_pattern` and `alpha_pattern`.
 * @throws E-FILE-018 where there is no layer or a layer's arrays do not fit its sizes, and what the file store throws
 */
export async function writeLora(
  files: FileStore,
  path: string,
  layers: ReadonlyMap<string, LoraLayer>,
  options: WriteLoraOptions = {},
): Promise<void> {
  if (layers.size === 0) throw misfit(path, "the adapter", "it has no layers");
  const tensors = [];
  for (const [module, { rank, inputs, outputs, down, up }] of layers) {
    if (down.length !== rank * inputs || up.length !== outputs * rank) {
      throw misfit(
        path,
        module,
        `${down.length} and ${up.length} values do not fill rank ${rank} of ${outputs} × ${inputs}`,
      );
    }
    const dtype = options.dtype ?? "F32";
    tensors.push({ name: `transformer.${module}.lora_A.weight`, dtype, shape: [rank, inputs], data: down });
    tensors.push({ name: `transformer.${module}.lora_B.weight`, dtype, shape: [outputs, rank], data: up });
  }
  const fields = adapterMetadata(layers, {
    targets: options.targets ?? [...layers.keys()],
    initialisation: options.initialisation ?? "gaussian",
    portable: options.fields === "portable",
  });
  await writeSafetensors(files, path, tensors, {
    metadata: { format: "pt", lora_adapter_metadata: fields, ...options.metadata },
  });
}

function refuseUnknown(path: string, unknown: readonly string[], known: number): void {
  if (unknown.length === 0 && known > 0) return;
  const listed = unknown.slice(0, 20).join(", ") + (unknown.length > 20 ? `, and ${unknown.length - 20} more` : "");
  throw new LongtailError("E-FILE-017", {
    what:
      unknown.length > 0
        ? `${unknown.length} keys belong to no layer of a FLUX.1 transformer's LoRA: ${listed}`
        : "the file has no LoRA layers",
    where: path,
    why: "read are diffusers (transformer.…lora_A), PEFT (base_model.model.…lora_A) and kohya (lora_unet_…lora_down) files",
    fix: "use a LoRA of the FLUX.1 transformer alone, without text encoders, in one of these styles",
  });
}

function misfit(path: string, name: string, why: string): LongtailError {
  return new LongtailError("E-FILE-018", {
    what: `the LoRA of ${name} cannot be used`,
    where: path,
    why,
    fix: "save the LoRA again from the program that made it, in diffusers' style",
  });
}
