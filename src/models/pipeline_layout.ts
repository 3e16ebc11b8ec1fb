// Where the parts of a text-to-image pipeline lie and what their configurations say: diffusers' folder of FLUX.1
// (model_index.json, transformer, text_encoder, text_encoder_2, vae, scheduler), or the same with a pipeline.json that says what the
// model files do not (compact texts, another autoencoder).

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { isWeightsFile } from "./checkpoint_files.ts";
import { openCheckpoint, requireTextToImage } from "./checkpoint_source.ts";
import { safetensorsSource } from "./mapped_source.ts";
import type { AutoencoderSettings } from "./vae/autoencoder.ts";
import { readJson } from "./weights_file.ts";

export interface Part {
  config: Record<string, unknown>;
  configPath: string;
  /** A safetensors file, or the name that its shards and index share; any form of checkpoint where `foreign`. */
  weights: string;
  foreign: boolean;
}

export interface PipelineLayout {
  folder: string;
  transformer: Part;
  clip: Part;
  t5: Part;
  autoencoder: { settings: AutoencoderSettings; configPath: string; weights: string; foreign: boolean };
  /** Side of square pictures when nothing else is asked for, in pixels. */
  imageSize: number;
  clipLength: number;
  t5Length: number;
  /** The sampler's schedule that comes along, scheduler/scheduler_config.json; null where there is none. */
  scheduler: { config: Readonly<Record<string, unknown>>; path: string } | null;
}

/** Tokens of T5: dev's transformer was trained with 512, schnell's (which has no guidance embedding) with 256. */
const T5_LENGTH = { guided: 512, distilled: 256 };
const CLIP_LENGTH = 77;
const IMAGE_SIZE = 1024;

/**
 * Reads the configurations of a pipeline's folder; weights are not touched.
 * @param vae "auto" for the pipeline's own autoencoder, else a folder of one in diffusers' layout or a file of one
 * @param transformer "auto" for the pipeline's own, else a file or folder of one, in either layout
 * @throws LongtailError E-FILE-033 no pipeline there, E-FILE-034 one of another family, E-FILE-001 a part is missing
 */
export async function readLayout(
  files: FileStore,
  folder: string,
  vae: string,
  transformer = "auto",
): Promise<PipelineLayout> {
  const at = (...parts: string[]) => [folder, ...parts].join("/");
  const own = (await files.exists(at("pipeline.json"))) ? await readJson(files, at("pipeline.json")) : null;
  if (!own) await checkIndex(files, folder);
  const part = async (name: string, stem: string): Promise<Part> => ({
    config: await readJson(files, at(name, "config.json")),
    configPath: at(name, "config.json"),
    weights: at(name, `${stem}.safetensors`),
    foreign: false,
  });
  const ownTransformer = await part("transformer", "diffusion_pytorch_model");
  const swapped = transformer === "auto" ? ownTransformer : await readTransformer(files, transformer, ownTransformer);
  const clip = await part("text_encoder", "model");
  const t5 = await part("text_encoder_2", "model");
  const guided = Boolean(swapped.config["guidance_embeds"]);
  const positions = clip.config["max_position_embeddings"];
  const autoencoder = await readAutoencoder(files, folder, vae, own);
  const schedulerPath = at("scheduler", "scheduler_config.json");
  return {
    folder,
    transformer: swapped,
    clip,
    t5,
    autoencoder,
    imageSize: numberOf(own?.["image_size"]) ?? numberOf(autoencoder.settings.config["sample_size"]) ?? IMAGE_SIZE,
    clipLength: numberOf(own?.["clip_length"]) ?? numberOf(positions) ?? CLIP_LENGTH,
    t5Length: numberOf(own?.["t5_length"]) ?? (guided ? T5_LENGTH.guided : T5_LENGTH.distilled),
    scheduler: await readScheduler(files, schedulerPath, own),
  };
}

/** The transformer that takes the place of a pipeline's own. */
async function readTransformer(files: FileStore, where: string, own: Part): Promise<Part> {
  const checkpoint = await openCheckpoint(files, where, {
    part: "transformer",
    config: { json: own.config, path: own.configPath },
  });
  await checkpoint.source.close();
  requireTextToImage(checkpoint, where);
  return { config: checkpoint.config, configPath: checkpoint.configPath, weights: where, foreign: true };
}

/** The tensors of a part under diffusers' names. */
export async function openPart(
  files: FileStore,
  part: "transformer" | "autoencoder",
  { weights, foreign, ...rest }: Part | PipelineLayout["autoencoder"],
): Promise<RangedSource> {
  if (!foreign) return safetensorsSource(await Safetensors.open(files, weights));
  const json = "config" in rest ? rest.config : rest.settings.config;
  return (await openCheckpoint(files, weights, { part, config: { json, path: rest.configPath } })).source;
}

/** The file, or what a pipeline.json says of its sampler: a static shift. */
async function readScheduler(
  files: FileStore,
  path: string,
  own: Record<string, unknown> | null,
): Promise<PipelineLayout["scheduler"]> {
  if (await files.exists(path)) return { config: await readJson(files, path), path };
  const shift = numberOf((own?.["sampler"] as Record<string, unknown> | undefined)?.["shift"]);
  return shift ? { config: { shift }, path: "pipeline.json" } : null;
}

const numberOf = (value: unknown): number | undefined => (typeof value === "number" && value > 0 ? value : undefined);

async function checkIndex(files: FileStore, folder: string): Promise<void> {
  const path = `${folder}/model_index.json`;
  if (!(await files.exists(path))) {
    throw new LongtailError("E-FILE-033", {
      what: "there is no pipeline",
      where: folder,
      why: (await files.exists(folder))
        ? "it has neither model_index.json nor pipeline.json"
        : "there is no such folder; relative paths start where the command runs",
      fix: 'set model.pipeline to a FLUX.1 folder in diffusers\' layout, or to "embedded"',
    });
  }
  const family = (await readJson(files, path))["_class_name"];
  if (typeof family === "string" && /^Flux[A-Za-z]*Pipeline$/.test(family) && !/Flux2/.test(family)) return;
  throw new LongtailError("E-FILE-034", {
    what: `the pipeline is ${JSON.stringify(family ?? null)}`,
    where: path,
    why: "transformers of the FLUX.1 family are trained and drawn with",
    fix: "use a FLUX.1 pipeline, or a model of its architecture",
  });
}

/** Classes of diffusers' autoencoders by the kind that reads them. */
const KINDS: Readonly<Record<string, "kl" | "tiny">> = { AutoencoderKL: "kl", AutoencoderTiny: "tiny" };

async function readAutoencoder(
  files: FileStore,
  folder: string,
  vae: string,
  own: Record<string, unknown> | null,
): Promise<PipelineLayout["autoencoder"]> {
  const described = own?.["vae"] as
    | { file?: string; kind?: string; scaling_factor?: number; shift_factor?: number }
    | undefined;
  const taef2 = { scale: described?.scaling_factor ?? 1, shift: described?.shift_factor ?? 0 };
  const place = vae === "auto" ? (described?.file ? `${folder}/${described.file}` : `${folder}/vae`) : vae;
  if (place.endsWith(".safetensors") && (described || vae === "auto")) {
    const settings = { kind: "taef2" as const, ...taef2, config: {} };
    return { settings, configPath: `${folder}/pipeline.json`, weights: place, foreign: false };
  }
  const foreign = isWeightsFile(place) || !(await files.exists(`${place}/config.json`));
  const { config, path } = foreign
    ? await readForeign(files, place)
    : { config: await readJson(files, `${place}/config.json`), path: `${place}/config.json` };
  const kind = KINDS[String(config["_class_name"])];
  if (!kind) {
    throw new LongtailError("E-FILE-035", {
      what: `the autoencoder is ${JSON.stringify(config["_class_name"] ?? null)}`,
      where: path,
      why: `read are ${Object.keys(KINDS).join(" and ")}`,
      fix: "use the autoencoder that belongs to the transformer",
    });
  }
  if (kind === "kl") checkKl(config, path);
  const fallback = kind === "kl" ? { scale: 0.3611, shift: 0.1159 } : { scale: 1, shift: 0 };
  return {
    settings: {
      kind,
      scale: numberOf(config["scaling_factor"]) ?? fallback.scale,
      shift: typeof config["shift_factor"] === "number" ? config["shift_factor"] : fallback.shift,
      config,
    },
    configPath: path,
    weights: foreign ? place : `${place}/diffusion_pytorch_model.safetensors`,
    foreign,
  };
}

async function readForeign(
  files: FileStore,
  where: string,
): Promise<{ config: Record<string, unknown>; path: string }> {
  const { config, configPath, source } = await openCheckpoint(files, where, { part: "autoencoder" });
  await source.close();
  return { config, path: configPath };
}

/** Refuses layers that FLUX.1's autoencoder does not have; without them its pictures would be wrong and nothing would tell. */
function checkKl(config: Record<string, unknown>, path: string): void {
  const levels = (config["block_out_channels"] as unknown[] | undefined)?.length;
  const wrong =
    (config["use_quant_conv"] ?? true) || (config["use_post_quant_conv"] ?? true)
      ? "has convolutions between moments and latents (use_quant_conv)"
      : config["mid_block_add_attention"] === false
        ? "has no attention in its middle (mid_block_add_attention)"
        : levels !== undefined && levels !== 4
          ? `has ${levels} levels`
          : (config["act_fn"] ?? "silu") !== "silu"
            ? `has the activation ${JSON.stringify(config["act_fn"])}`
            : null;
  if (!wrong) return;
  throw new LongtailError("E-FILE-035", {
    what: `the autoencoder ${wrong}`,
    where: path,
    why: "FLUX.1's has four levels with attention in the middle and nothing between its moments and the latents",
    fix: "use the autoencoder that belongs to the transformer",
  });
}
