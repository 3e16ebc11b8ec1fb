// Where the parts of a text-to-image pipeline lie and what their configurations say: diffusers' folder of FLUX.1 or FLUX.2
// (model_index.json, transformer, text encoders, vae, scheduler), or the same with a pipeline.json that says what the model files
// do not (compact texts, another autoencoder).

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { findWeights, isWeightsFile } from "./checkpoint_files.ts";
import { openCheckpoint, requireTextToImage } from "./checkpoint_source.ts";
import { safetensorsSource } from "./mapped_source.ts";
import { KLEIN_LAYERS, KLEIN_TEXT_LENGTH } from "./qwen3/config.ts";
import type { AutoencoderSettings } from "./vae/autoencoder.ts";
import { readJson } from "./weights_file.ts";

export interface Part {
  config: Record<string, unknown>;
  configPath: string;
  /** A safetensors file, or the name that its shards and index share; any form of checkpoint where `foreign`. */
  weights: string;
  foreign: boolean;
}

/** FLUX.1's encoders: CLIP in text_encoder, T5 in text_encoder_2. */
export interface ClipT5Parts {
  kind: "clip-t5";
  clip: Part;
  t5: Part;
  clipLength: number;
}

/** FLUX.2 klein's encoder, the layers whose states are read (counted from 1), and its tokenizer's file. */
export interface QwenParts {
  kind: "qwen3";
  encoder: Part;
  layers: readonly number[];
  tokenizer: string;
}

/** A language model that is not computed here: FLUX.2 dev's. Its prompts can be embedded elsewhere. */
export interface OtherText {
  kind: "other";
  model: string;
  configPath: string;
}

export interface PipelineLayout {
  family: PipelineFamily;
  folder: string;
  transformer: Part;
  text: ClipT5Parts | QwenParts | OtherText;
  /** Tokens of a prompt, padding included, whose states the transformer reads. */
  textLength: number;
  autoencoder: { settings: AutoencoderSettings; configPath: string; weights: string; foreign: boolean };
  /** Side of square pictures when nothing else is asked for, in pixels. */
  imageSize: number;
  /** Scale of classifier-free guidance that the model is meant to be drawn with; 1 is none. */
  classifierFree: number;
  /** The sampler's schedule that comes along, scheduler/scheduler_config.json; null where there is none. */
  scheduler: { config: Readonly<Record<string, unknown>>; path: string } | null;
}

export type PipelineFamily = "flux1" | "flux2";

/** The guidance scale of diffusers' pipeline for FLUX.2 klein's base models; the distilled ones are drawn without. */
const KLEIN_GUIDANCE = 4;
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
  const index = (await files.exists(at("model_index.json"))) ? await readJson(files, at("model_index.json")) : null;
  const named = own ? null : await familyOfIndex(files, folder, index);
  const ownTransformer = await readPart(files, folder, "transformer", "diffusion_pytorch_model");
  const swapped = transformer === "auto" ? ownTransformer : await readTransformer(files, transformer, ownTransformer);
  // A pipeline.json names no class; then the transformer tells.
  const second = ownTransformer.config["_class_name"] === "Flux2Transformer2DModel";
  const family = named ?? (second ? "flux2" : "flux1");
  const autoencoder = await readAutoencoder(files, folder, vae, own);
  const guided = Boolean(swapped.config["guidance_embeds"] ?? family === "flux2");
  const text = family === "flux2" ? await readLanguageModel(files, folder, own) : await readClipT5(files, folder, own);
  const klein = family === "flux2" && text.kind === "qwen3" && !guided;
  return {
    family,
    folder,
    transformer: swapped,
    text,
    textLength:
      numberOf(own?.["text_length"] ?? own?.["t5_length"]) ??
      (family === "flux2" ? KLEIN_TEXT_LENGTH : guided ? T5_LENGTH.guided : T5_LENGTH.distilled),
    autoencoder,
    imageSize: numberOf(own?.["image_size"]) ?? numberOf(autoencoder.settings.config["sample_size"]) ?? IMAGE_SIZE,
    classifierFree: klein && !(own?.["is_distilled"] ?? index?.["is_distilled"]) ? KLEIN_GUIDANCE : 1,
    scheduler: await readScheduler(files, at("scheduler", "scheduler_config.json"), own),
  };
}

async function readPart(files: FileStore, folder: string, name: string, stem: string): Promise<Part> {
  const configPath = `${folder}/${name}/config.json`;
  const config = await readJson(files, configPath);
  return { config, configPath, weights: `${folder}/${name}/${stem}.safetensors`, foreign: false };
}

async function readClipT5(files: FileStore, folder: string, own: Record<string, unknown> | null): Promise<ClipT5Parts> {
  const clip = await readPart(files, folder, "text_encoder", "model");
  const t5 = await readPart(files, folder, "text_encoder_2", "model");
  const positions = clip.config["max_position_embeddings"];
  return {
    kind: "clip-t5",
    clip,
    t5,
    clipLength: numberOf(own?.["clip_length"]) ?? numberOf(positions) ?? CLIP_LENGTH,
  };
}

async function readLanguageModel(
  files: FileStore,
  folder: string,
  own: Record<string, unknown> | null,
): Promise<QwenParts | OtherText> {
  const encoder = await readPart(files, folder, "text_encoder", "model");
  const model = encoder.config["model_type"] ?? "qwen3";
  if (model !== "qwen3") return { kind: "other", model: String(model), configPath: encoder.configPath };
  return {
    kind: "qwen3",
    encoder,
    layers: (own?.["text_layers"] as number[] | undefined) ?? KLEIN_LAYERS,
    tokenizer: `${folder}/tokenizer/tokenizer.json`,
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
  // The file itself: runs note which weights they began with.
  const { path: weights } = await findWeights(files, where, "transformer");
  return { config: checkpoint.config, configPath: checkpoint.configPath, weights, foreign: true };
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

async function familyOfIndex(
  files: FileStore,
  folder: string,
  index: Record<string, unknown> | null,
): Promise<PipelineFamily> {
  if (!index) {
    throw new LongtailError("E-FILE-033", {
      what: "there is no pipeline",
      where: folder,
      why: (await files.exists(folder))
        ? "it has neither model_index.json nor pipeline.json"
        : "there is no such folder; relative paths start where the command runs",
      fix: 'set model.pipeline to a FLUX.1 or FLUX.2 folder in diffusers\' layout, or to "embedded"',
    });
  }
  const name = index["_class_name"];
  const found = typeof name === "string" ? /^Flux(2?)[A-Za-z]*Pipeline$/.exec(name) : null;
  if (found) return found[1] ? "flux2" : "flux1";
  throw new LongtailError("E-FILE-034", {
    what: `the pipeline is ${JSON.stringify(name ?? null)}`,
    where: `${folder}/model_index.json`,
    why: "transformers of the FLUX.1 and FLUX.2 families are trained and drawn with",
    fix: "use a FLUX.1 or FLUX.2 klein pipeline, or a model of their architecture",
  });
}

/** Classes of diffusers' autoencoders by the kind that reads them. */
const KINDS: Readonly<Record<string, "kl" | "tiny" | "flux2">> = {
  AutoencoderKL: "kl",
  AutoencoderTiny: "tiny",
  AutoencoderKLFlux2: "flux2",
};

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
      why: `read are ${Object.keys(KINDS).join(", ")}`,
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
    weights: foreign
      ? (await findWeights(files, place, "autoencoder")).path
      : `${place}/diffusion_pytorch_model.safetensors`,
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
