// The base model that an adapter is checked against or merged into: the name of a public model, the embedded one, a
// pipeline's folder, or a transformer file.

import { join } from "node:path";
import { LongtailError, nearestName } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { openCheckpoint } from "../../models/checkpoint_source.ts";
import type { FamilyConfig } from "../../models/family.ts";
import { fluxConfig } from "../../models/flux/config.ts";
import { FLUX_PRESETS, fluxModules, inferConfig, type ModuleSize } from "../../models/flux/keys.ts";
import { FLUX2_PRESETS, type Flux2Config, flux2Config } from "../../models/flux2/config.ts";
import { flux2Modules } from "../../models/flux2/keys.ts";
import { readJson } from "../../models/weights_file.ts";
import { embeddedPath } from "../../runs/project.ts";

export interface BaseModel {
  name: string;
  family: "flux1" | "flux2";
  config: FamilyConfig;
  modules: Map<string, ModuleSize>;
  /** The transformer's weights, where the base is a file or a folder. */
  weights: string | null;
}

/** Public models by name. */
const PRESETS: Readonly<Record<string, FamilyConfig>> = { ...FLUX_PRESETS, ...FLUX2_PRESETS };

const WEIGHTS = "diffusion_pytorch_model.safetensors";

/**
 * Finds the base model by name or path.
 * @throws E-FILE-070 where there is none, E-FILE-074 where its weights are not those of a FLUX transformer, and what
 * reading it throws
 */
export async function findBase(files: FileStore, base: string): Promise<BaseModel> {
  if (Object.hasOwn(PRESETS, base)) return model(base, PRESETS[base]!, null);
  const path = embeddedPath(base, "embedded");
  if (/\.safetensors(\.index\.json)?$/.test(path)) return fromFile(files, path);
  for (const folder of [join(path, "transformer"), path]) {
    const config = join(folder, "config.json");
    if (!(await files.exists(config))) continue;
    const weights = join(folder, WEIGHTS);
    const there = (await files.exists(weights)) || (await files.exists(`${weights}.index.json`));
    return model(base, configOf(await readJson(files, config), config), there ? weights : null);
  }
  const near = nearestName(base, [...Object.keys(PRESETS), "embedded"]);
  throw new LongtailError("E-FILE-070", {
    what: "there is no such base model",
    where: base,
    why: "it is neither a name, nor a folder with transformer/config.json, nor a safetensors file",
    fix: near ? `did you mean ${near}?` : `give a path, or one of ${Object.keys(PRESETS).join(", ")}, embedded`,
  });
}

async function fromFile(files: FileStore, path: string): Promise<BaseModel> {
  const file = await Safetensors.open(files, path);
  try {
    const beside = join(path, "..", "config.json");
    if (await files.exists(beside)) {
      const json = await readJson(files, beside);
      // Other files of a folder have a config.json as well, of whatever kind.
      if ("num_single_layers" in json) return model(path, configOf(json, beside), path);
    }
    if (file.names().some((name) => /(^|\.)single_stream_modulation\./.test(name))) {
      const { config: json, configPath, source } = await openCheckpoint(files, path, { part: "transformer" });
      await source.close();
      return model(path, flux2Config(json, configPath), path);
    }
    const config = inferConfig(file.tensors);
    if (config) return model(path, config, path);
  } finally {
    await file.close();
  }
  throw new LongtailError("E-FILE-074", {
    what: "the base model's weights are not those of a FLUX transformer",
    where: path,
    why: "x_embedder, context_embedder or the norms of the attention are missing",
    fix: "give the transformer's file, in diffusers' layout or Black Forest Labs'",
  });
}

function configOf(json: Record<string, unknown>, where: string): FamilyConfig {
  return json["_class_name"] === "Flux2Transformer2DModel" ? flux2Config(json, where) : fluxConfig(json, where);
}

/** FLUX.2's feed-forward layers have a width of their own; FLUX.1's follow the model's. */
const isSecond = (config: FamilyConfig): config is Flux2Config => "inner" in config;

function model(name: string, config: FamilyConfig, weights: string | null): BaseModel {
  if (isSecond(config)) return { name, family: "flux2", config, modules: flux2Modules(config), weights };
  return { name, family: "flux1", config, modules: fluxModules(config), weights };
}
