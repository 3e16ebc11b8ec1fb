// The base model that an adapter file was made for, from the file alone: the width of its layers tells the embedded model
// from FLUX.1, and the names in its metadata (sd-scripts' `ss_*`, ModelSpec) tell schnell from dev.

import type { FileStore } from "../../base/files.ts";
import { type LoraKeys, sortFileKeys } from "../../formats/lora_keys.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { FLUX_PRESETS, fluxModules, type ModuleSize } from "../../models/flux/keys.ts";
import { FLUX2_PRESETS } from "../../models/flux2/config.ts";
import { flux2Modules } from "../../models/flux2/keys.ts";
import { type BaseModel, findBase } from "./base.ts";

export interface InferredBase {
  base: BaseModel;
  /** What in the file speaks for it, for people. */
  why: string;
}

/** Strings in which programs name the model that they trained on. */
const NAMED_IN = [
  "ss_sd_model_name",
  "ss_base_model_version",
  "modelspec.architecture",
  "modelspec.title",
  "base_model",
  "ss_output_name",
] as const;

/** @throws what opening a safetensors file throws */
export async function inferBase(files: FileStore, path: string): Promise<InferredBase> {
  const file = await Safetensors.open(files, path);
  try {
    const keys = sortFileKeys(file.tensors);
    if (keys.family === "flux2") return await inferSecond(files, file, keys);
    const { width: usual } = FLUX_PRESETS["flux-dev"]!;
    const width = commonWidth(file, keys, fluxModules(FLUX_PRESETS["flux-dev"]!), usual);
    const embedded = await findBase(files, "embedded").catch(() => null);
    if (embedded && width === embedded.config.width) {
      const { doubles, singles } = blockCounts(keys);
      const fit = doubles <= embedded.config.doubleBlocks && singles <= embedded.config.singleBlocks;
      return { base: embedded, why: `its width is ${width}${fit ? "" : ", though it has more blocks"}` };
    }
    const named = namedVariant(file.metadata);
    const guided = [...keys.layers.values()].some(({ names }) =>
      names.modules.some((module) => module.includes("guidance_embedder")),
    );
    const preset = async (name: string, why: string) => ({ base: await findBase(files, name), why });
    if (guided) return await preset("flux-dev", "it changes the guidance embedder, which only dev has");
    if (named) return await preset(named.variant, `its ${named.key} is ${JSON.stringify(named.text)}`);
    const seen =
      width === usual ? `its width is ${width}` : width ? `its width, ${width}, is no known model's` : "no width";
    return await preset("flux-dev", `${seen}, and nothing in its metadata names schnell`);
  } finally {
    await file.close();
  }
}

/** FLUX.2's public models differ in width. */
async function inferSecond(files: FileStore, file: Safetensors, keys: LoraKeys): Promise<InferredBase> {
  const klein = FLUX2_PRESETS["flux2-klein-4b"]!;
  const width = commonWidth(file, keys, flux2Modules(klein), klein.width);
  const found = Object.entries(FLUX2_PRESETS).find(([, config]) => config.width === width)?.[0];
  const seen = width ? `its layers are FLUX.2's, of width ${width}` : "its layers are FLUX.2's";
  return {
    base: await findBase(files, found ?? "flux2-klein-4b"),
    why: found ? seen : `${seen}, which is no known model's`,
  };
}

/**
 * The number of inputs that most of the layers have which read the model's width; null where there is none.
 * @param modules of a model of the file's family, whose width is `width`
 */
function commonWidth(
  file: Safetensors,
  keys: LoraKeys,
  modules: ReadonlyMap<string, ModuleSize>,
  width: number,
): number | null {
  const votes = new Map<number, number>();
  for (const { names, parts } of keys.layers.values()) {
    // Blocks that the public model does not have vote as its first.
    const module = names.modules[0]!.replace(/blocks\.\d+\./, "blocks.0.");
    if (modules.get(module)?.inputs !== width) continue;
    const columns = (part: Parameters<typeof parts.get>[0]) => {
      const key = parts.get(part);
      return key === undefined ? 0 : (file.info(key).shape[1] ?? 0);
    };
    const kronecker = (which: "lokr_w1" | "lokr_w2") => columns(which) || columns(`${which}_b`);
    const inputs = columns("down") || kronecker("lokr_w1") * kronecker("lokr_w2");
    if (inputs > 0) votes.set(inputs, (votes.get(inputs) ?? 0) + 1);
  }
  const [most] = [...votes].sort((a, b) => b[1] - a[1]);
  return most?.[0] ?? null;
}

function blockCounts(keys: LoraKeys): { doubles: number; singles: number } {
  const counts = { doubles: 0, singles: 0 };
  for (const { names } of keys.layers.values()) {
    const block = /^(single_)?transformer_blocks\.(\d+)\./.exec(names.modules[0]!);
    if (!block) continue;
    const kind = block[1] ? "singles" : "doubles";
    counts[kind] = Math.max(counts[kind], Number(block[2]) + 1);
  }
  return counts;
}

function namedVariant(metadata: ReadonlyMap<string, string>): { variant: string; key: string; text: string } | null {
  for (const key of NAMED_IN) {
    const text = metadata.get(key);
    const found = /schnell|flux[.\-_ ]?1?[.\-_ ]?dev/i.exec(text ?? "");
    if (!found) continue;
    return { variant: /schnell/i.test(found[0]) ? "flux-schnell" : "flux-dev", key, text: text!.slice(0, 80) };
  }
  return null;
}
