// FLUX.1 dev's folder in its real size as configurations and headers, and a desktop GPU to plan for.

import process from "node:process";
import { ClipTextModel } from "../../src/models/clip/text.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { T5Encoder, t5Config } from "../../src/models/t5/encoder.ts";
import { Autoencoder } from "../../src/models/vae/autoencoder.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { HeaderFiles } from "./header_files.ts";

export const GIB = 2 ** 30;
/** A desktop GPU. */
export const desktop: Target = {
  ...portableTarget(),
  kernels: {
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeWorkgroupsPerDimension: 65535,
  },
  software: false,
  f16: true,
  maxBindingBytes: GIB,
  maxStorageBuffers: 10,
};

export const FOLDER = "FLUX.1-dev";
const TRANSFORMER = { _class_name: "FluxTransformer2DModel", guidance_embeds: true };
const CLIP = { hidden_size: 768, max_position_embeddings: 77, hidden_act: "quick_gelu" };
const VAE = { _class_name: "AutoencoderKL", use_quant_conv: false, use_post_quant_conv: false, sample_size: 1024 };

/** The folder's configurations, and headers with the shapes that they mean. */
export function fluxDev(): HeaderFiles {
  const files = new HeaderFiles();
  const session = new Session({ ...desktop, maxBindingBytes: Number.MAX_SAFE_INTEGER });
  const declare = (name: string, file: string, config: object, model: (parameters: Parameters) => unknown) => {
    const parameters = new Parameters(session.pool(name, "weights"));
    model(parameters);
    files.addJson(`${FOLDER}/${name}/config.json`, config);
    files.addWeights(
      `${FOLDER}/${name}/${file}.safetensors`,
      [...parameters.variables].map(([key, variable]) => [key, variable.shape] as const),
    );
  };
  files.addJson(`${FOLDER}/model_index.json`, { _class_name: "FluxPipeline" });
  declare(
    "transformer",
    "diffusion_pytorch_model",
    TRANSFORMER,
    (p) => new FluxTransformer(p, fluxConfig(TRANSFORMER, "")),
  );
  const clip = { rows: 49408, positions: 77, width: 768, heads: 12, layers: 12, inner: 3072, activation: "quick_gelu" };
  declare("text_encoder", "model", CLIP, (p) => new ClipTextModel(p, clip));
  declare("text_encoder_2", "model", {}, (p) => new T5Encoder(p, t5Config({})));
  const settings = { kind: "kl", scale: 1, shift: 0, config: VAE } as const;
  declare("vae", "diffusion_pytorch_model", VAE, (p) => new Autoencoder(p, settings, { encoder: true, decoder: true }));
  return files;
}

/** Whether every row of the documents' tables of planned memory is worked out and printed, or a single one. */
export const printsPlans = process.env["LONGTAIL_PARITY"] === "print";

/** Prints planned memory where it is asked for; gives it in GiB. */
export function plannedGib(what: string, bytes: number): number {
  if (printsPlans) console.log(`planned: ${what}: ${(bytes / GIB).toFixed(1)} GiB`);
  return bytes / GIB;
}
