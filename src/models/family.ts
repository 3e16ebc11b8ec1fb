// The two families of transformers that pipelines hold, FLUX.1 and FLUX.2, behind one face: which class the weights make, where
// tokens stand, what encodes prompts and pictures. Whatever is not here (sampling, training, files) does not ask for the family.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Session } from "../tensor/session.ts";
import { type FluxConfig, fluxConfig } from "./flux/config.ts";
import { positionIds } from "./flux/embeddings.ts";
import { StreamedFlux, type StreamedOptions } from "./flux/streamed/streamed.ts";
import { FluxTransformer } from "./flux/transformer.ts";
import { Flux2Autoencoder, flux2AutoencoderConfig } from "./flux2/autoencoder.ts";
import { type Flux2Config, flux2Config } from "./flux2/config.ts";
import { positionIds as positionIds2 } from "./flux2/embeddings.ts";
import { QwenEncoding } from "./flux2/text_encoder.ts";
import { Flux2Transformer } from "./flux2/transformer.ts";
import type { PipelineLayout } from "./pipeline_layout.ts";
import { ClipT5Encoding } from "./text_encoders.ts";
import type { TextEncoderOptions, TextEncoding } from "./text_encoding.ts";
import { Autoencoder, type PictureCoder } from "./vae/autoencoder.ts";
import type { VelocityNetwork } from "./velocity_network.ts";

export type FamilyConfig = FluxConfig | Flux2Config;

/** diffusers' classes. */
export const FAMILY_CLASSES = {
  flux1: { transformer: "FluxTransformer2DModel", pipeline: "FluxPipeline" },
  flux2: { transformer: "Flux2Transformer2DModel", pipeline: "Flux2KleinPipeline" },
} as const;

/** Autoencoders by their settings' kind. */
export const AUTOENCODER_NAMES = {
  kl: "AutoencoderKL",
  tiny: "AutoencoderTiny",
  taef2: "TAEF2",
  flux2: "AutoencoderKLFlux2",
} as const;

/** A transformer of a family whose configuration has been read. */
export interface FamilyModel {
  config: FamilyConfig;
  /** Most channels that a token has on its way through the transformer. */
  widest: number;
  /** Declares the weights. */
  build(parameters: Parameters): VelocityNetwork;
  /** The same with blocks that are streamed, in families that can be. */
  stream: ((session: Session, options: StreamedOptions) => StreamedFlux) | null;
  /** Coordinates of text tokens and, after them, of a picture's, row by row. */
  positionIds(textTokens: number, rows: number, columns: number): number[][];
}

/** @throws LongtailError E-FILE-040 where the transformer is of another family than the pipeline, or contradicts itself */
export function familyModel({ family, transformer }: Pick<PipelineLayout, "family" | "transformer">): FamilyModel {
  if (family === "flux1") {
    const config = fluxConfig(transformer.config, transformer.configPath);
    return {
      config,
      // A single block puts attention and MLP side by side.
      widest: config.width * (1 + config.mlpRatio),
      build: (parameters) => new FluxTransformer(parameters, config),
      stream: (session, options) => new StreamedFlux(session, config, options),
      positionIds,
    };
  }
  const config = flux2Config(transformer.config, transformer.configPath);
  return {
    config,
    // A single block's first matrix makes query, key, value and both halves of the gated layer.
    widest: 3 * config.width + 2 * config.inner,
    build: (parameters) => new Flux2Transformer(parameters, config),
    stream: null,
    positionIds: positionIds2,
  };
}

/** The autoencoder that a layout names; `halves` are declared. */
export function openAutoencoder(
  parameters: Parameters,
  { settings, configPath }: PipelineLayout["autoencoder"],
  halves: { encoder?: boolean; decoder?: boolean },
): PictureCoder {
  if (settings.kind !== "flux2") return new Autoencoder(parameters, settings, halves);
  return new Flux2Autoencoder(parameters, flux2AutoencoderConfig(settings.config, configPath), halves);
}

/** @throws LongtailError E-FILE-043 where the pipeline's text encoder is a model that is not computed here */
export async function openTextEncoding(
  files: FileStore,
  session: Session,
  layout: PipelineLayout,
  options: TextEncoderOptions,
): Promise<TextEncoding> {
  const { text } = layout;
  if (text.kind === "clip-t5") return await ClipT5Encoding.open(files, session, layout, text, options);
  if (text.kind === "qwen3") return await QwenEncoding.open(files, session, layout, text, options);
  throw new LongtailError("E-FILE-043", {
    what: `the text encoder is ${JSON.stringify(text.model)}, which is not computed here`,
    where: text.configPath,
    why: "FLUX.2 dev reads a Mistral language model of 24 billion parameters; prompts are encoded with CLIP and T5, or Qwen3",
    fix: "use FLUX.2 klein, whose encoder is Qwen3; longtail align also takes prompts that were embedded elsewhere (data.items)",
  });
}
