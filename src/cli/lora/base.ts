// The base model that an adapter is checked against or merged into: the name of a public model, the embedded one, a
// pipeline's folder, or a transformer file.

import { join } from "node:path";
import { LongtailError, nearestName } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { type FluxConfig, fluxConfig } from "../../models/flux/config.ts";
import { FLUX_PRESETS, fluxModules, inferConfig, type ModuleSize } from "../../models/flux/keys.ts";
import { readJson } from "../../models/weights_file.ts";
import { embeddedPath } from "../project.ts";

export interface BaseModel {
  name: string;
  config: FluxConfig;
  modules: Map<string, ModuleSize>;
  /** The transformer's weights, where the base is a file or a folder. */
  weights: string | null;
}

const WEIGHTS = "diffusion_pytorch_model.safetensors";

/**
 * Finds the base model by name or path.
 * @throws E-FILE-070 where there is none, E-FILE-074 where its weights are not those of a FLUX.1 transformer, and what
 * reading it throws
 */
export async function findBase(files: FileStore, base: string): Promise<BaseModel> {
  if (Object.hasOwn(FLUX_PRESETS, base)) return model(base, FLUX_PRESETS[base]!, null);
  const path = embeddedPath(base, "embedded");
  if (/\.safetensors(\.index\.json)?$/.test(path)) return fromFile(files, path);
  for (const folder of [join(path, "transformer"), path]) {
    const config = join(folder, "config.json");
    if (!(await files.exists(config))) continue;
    const weights = join(folder, WEIGHTS);
    const there = (await files.exists(weights)) || (await files.exists(`${weights}.index.json`));
    return model(base, fluxConfig(await readJson(files, config), config), there ? weights : null);
  }
  const near = nearestName(base, [...Object.keys(FLUX_PRESETS), "embedded"]);
  throw new LongtailError("E-FILE-070", {
    what: "there is no such base model",
    where: base,
    why: "it is neither a name, nor a folder with transformer/config.json, nor a safetensors file",
    fix: near ? `did you mean ${near}?` : `give a path, or one of ${Object.keys(FLUX_PRESETS).join(", ")}, embedded`,
  });
}

async function fromFile(files: FileStore, path: string): Promise<BaseModel> {
  const file = await Safetensors.open(files, path);
  try {
    const beside = join(path, "..", "config.json");
    if (await files.exists(beside)) {
      const json = await readJson(files, beside);
      // Other files of a folder have a config.json as well, of whatever kind.
      if ("num_single_layers" in json) return model(path, fluxConfig(json, beside), path);
    }
    const config = inferConfig(file.tensors);
    if (config) return model(path, config, path);
  } finally {
    await file.close();
  }
  throw new LongtailError("E-FILE-074", {
    what: "the base model's weights are not those of a FLUX.1 transformer",
    where: path,
    why: "x_embedder, context_embedder or the norms of the attention are missing",
    fix: "give the transformer's file, in diffusers' layout or Black Forest Labs'",
  });
}

function model(name: string, config: FluxConfig, weights: string | null): BaseModel {
  return { name, config, modules: fluxModules(config), weights };
}
