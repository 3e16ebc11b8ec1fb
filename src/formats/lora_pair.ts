// The two files that a finished training leaves: one in diffusers' style and one with fused matrices, so that every program
// finds one that it loads. Which keys each gets follows from the kind of adapter.

import type { FileStore } from "../base/files.ts";
import type { LokrLayers, LoraLayers } from "./adapter_layers.ts";
import { lokrFields, pythonJson } from "./lora_metadata.ts";
import {
  areLokr,
  checkLokr,
  fusedKind,
  lokrTensors,
  portableScales,
  scaled,
  type WriteLoraOptions,
  writeKohya,
  writeLora,
  writeLycoris,
  writeOneTrainer,
  writeTensors,
} from "./lora_write.ts";
import type { LoraFacts } from "./model_spec.ts";

export interface LoraPair {
  /** Loads in diffusers and ComfyUI. */
  diffusers: string;
  /** Loads in ComfyUI, A1111's heirs and sd-scripts. */
  kohya: string;
  /** What a user should know about either file. */
  notes: string[];
}

/**
 * Writes `<base>.safetensors` (diffusers' style) and `<base>.kohya.safetensors` together: both are complete beside their
 * names before either takes its name, so that a full disk leaves an earlier pair whole.
 * @param layers of one kind; a LoKr is written with LyCORIS' names, and in PEFT's form
 */
export async function writeLoraPair(
  files: FileStore,
  base: string,
  layers: LoraLayers | LokrLayers,
  facts: LoraFacts,
  options: WriteLoraOptions = {},
): Promise<LoraPair> {
  const notes: string[] = [];
  const pair = { diffusers: `${base}.safetensors`, kohya: `${base}.kohya.safetensors` };
  const fresh = { diffusers: `${pair.diffusers}.new`, kohya: `${pair.kohya}.new` };
  const all: WriteLoraOptions = { fields: "portable", ...options, facts };
  try {
    if (areLokr(layers)) await writeLokrPair(files, fresh, layers, all, notes);
    else await writePlainPair(files, fresh, layers, all, notes);
    await files.rename(fresh.diffusers, pair.diffusers);
    await files.rename(fresh.kohya, pair.kohya);
  } catch (error) {
    for (const path of Object.values(fresh)) await files.remove(path);
    throw error;
  }
  return { ...pair, notes };
}

type Paths = Readonly<Record<"diffusers" | "kohya", string>>;

async function writePlainPair(
  files: FileStore,
  paths: Paths,
  layers: LoraLayers,
  options: WriteLoraOptions,
  notes: string[],
): Promise<void> {
  const scales = options.scales ?? portableScales(layers);
  await writeLora(files, paths.diffusers, layers, { ...options, scales });
  if (fusedKind(layers) === "kohya") {
    const { rescaled } = await writeKohya(files, paths.kohya, layers, options);
    if (rescaled.length > 0)
      notes.push(`${rescaled.length} layers were brought to their neighbours' scale, which rounds`);
    return;
  }
  await writeOneTrainer(files, paths.kohya, layers, options);
  notes.push(
    "a DoRA of some parts of a fused matrix does not fit kohya's keys: the second file has OneTrainer's, which ComfyUI loads",
  );
}

async function writeLokrPair(
  files: FileStore,
  paths: Paths,
  layers: LokrLayers,
  options: WriteLoraOptions,
  notes: string[],
): Promise<void> {
  checkLokr(paths.diffusers, layers);
  const dtype = options.dtype ?? "F32";
  const fields = lokrFields(layers);
  const tensors = [...layers].flatMap(([module, layer]) => {
    const stem = `transformer.${module}`;
    if (typeof fields !== "string") return lokrTensors(stem, layer, dtype);
    return lokrTensors(stem, { ...layer, first: scaled(layer.first, layer.scale) }, dtype);
  });
  const metadata: Record<string, string> = { format: "pt", ...options.metadata };
  if (typeof fields !== "string") metadata["lora_adapter_metadata"] = pythonJson(fields, "transformer.");
  else notes.push(`the scale is part of the first factors, because ${fields}`);
  await writeTensors(files, paths.diffusers, tensors, metadata, layers, options.facts);
  await writeLycoris(files, paths.kohya, layers, options);
  notes.push("the second file has LyCORIS' names, as ComfyUI loads a LoKr");
}
