// Configuration of FLUX.2 transformers in diffusers' field names, the sizes of the public models, and the layers that
// adapters of this family train.

import { LongtailError } from "../../base/errors.ts";

export interface Flux2Config {
  /** Channels of a packed token: 4 times those of the autoencoder. */
  inChannels: number;
  outChannels: number;
  doubleBlocks: number;
  singleBlocks: number;
  headSize: number;
  heads: number;
  /** heads * headSize. */
  width: number;
  /** Width of the feed-forward layers between their two matrices: mlpRatio * width. */
  inner: number;
  /** Width of the text states: that of the text encoder times the number of its layers that are taken. */
  jointWidth: number;
  /** FLUX.2 takes no pooled text. */
  pooledWidth: 0;
  guidance: boolean;
  /** Sizes of the parts of a head that turn with the four coordinates of a position. */
  ropeAxes: number[];
  ropeTheta: number;
  mlpRatio: number;
  eps: number;
}

/** Width of the sinusoidal vectors in all public models; embeddings.ts of FLUX.1 makes them. */
const SINUSOIDS = 256;

/** @throws LongtailError E-FILE-040 where the file describes another architecture or contradicts itself */
export function flux2Config(json: Record<string, unknown>, where: string): Flux2Config {
  const fail = (what: string): never => {
    throw new LongtailError("E-FILE-040", {
      what,
      where,
      fix: "point [model] at a FLUX.2 transformer in diffusers layout",
    });
  };
  if (json["_class_name"] !== undefined && json["_class_name"] !== "Flux2Transformer2DModel") {
    fail(`the configuration is of ${json["_class_name"]}, not of Flux2Transformer2DModel`);
  }
  const number = (key: string, fallback: number): number => {
    const value = json[key] ?? fallback;
    return typeof value === "number" && value > 0 ? value : fail(`${key} is not a number above 0`);
  };
  const patch = number("patch_size", 1);
  if (patch !== 1) fail(`patch_size is ${patch}: latents are packed before the transformer, which takes single tokens`);
  const sinusoids = number("timestep_guidance_channels", SINUSOIDS);
  if (sinusoids !== SINUSOIDS) fail(`timestep_guidance_channels is ${sinusoids}, and ${SINUSOIDS} is what is computed`);
  const heads = number("num_attention_heads", 48);
  const headSize = number("attention_head_dim", 128);
  const width = heads * headSize;
  const axes = json["axes_dims_rope"] ?? [32, 32, 32, 32];
  const even = (size: unknown) => Number.isInteger(size) && (size as number) % 2 === 0 && (size as number) > 0;
  if (!Array.isArray(axes) || axes.length !== 4 || !axes.every(even)) {
    fail("axes_dims_rope is not a list of four even sizes");
  }
  const ropeAxes = axes as number[];
  if (ropeAxes.reduce((a, b) => a + b, 0) !== headSize) {
    fail(`axes_dims_rope [${ropeAxes}] do not add up to attention_head_dim ${headSize}`);
  }
  const depth = (key: string, fallback: number): number => {
    const value = number(key, fallback);
    return Number.isInteger(value) ? value : fail(`${key} is not a whole number`);
  };
  const inChannels = number("in_channels", 128);
  const mlpRatio = number("mlp_ratio", 3);
  return {
    inChannels,
    outChannels: number("out_channels", inChannels),
    doubleBlocks: depth("num_layers", 8),
    singleBlocks: depth("num_single_layers", 48),
    headSize,
    heads,
    width,
    // A ratio that was worked out from widths may be a rounding below the one that is meant.
    inner: Math.floor(width * mlpRatio + 1e-6),
    jointWidth: number("joint_attention_dim", 15360),
    pooledWidth: 0,
    guidance: Boolean(json["guidance_embeds"] ?? true),
    ropeAxes,
    ropeTheta: number("rope_theta", 2000),
    mlpRatio,
    eps: number("eps", 1e-6),
  };
}

const of = (name: string, blocks: [number, number], heads: number, jointWidth: number, guidance: boolean) =>
  flux2Config(
    {
      num_layers: blocks[0],
      num_single_layers: blocks[1],
      num_attention_heads: heads,
      joint_attention_dim: jointWidth,
      guidance_embeds: guidance,
    },
    name,
  );

/** Configurations of the public models by name. */
export const FLUX2_PRESETS: Readonly<Record<string, Flux2Config>> = {
  "flux2-dev": of("flux2-dev", [8, 48], 48, 15360, true),
  "flux2-klein-4b": of("flux2-klein-4b", [5, 20], 24, 7680, false),
  "flux2-klein-9b": of("flux2-klein-9b", [8, 24], 32, 12288, false),
};

/**
 * The layers that diffusers' FLUX.2 training scripts adapt, as names or endings of module names (`AdapterSettings.targets`):
 * the image stream's attention of the double blocks, and both fused matrices of the single blocks. The ending "attn.to_out"
 * would meet nothing else, but the scripts name every single block, and so do the files that they write.
 */
export function flux2Targets(config: Pick<Flux2Config, "singleBlocks">): string[] {
  const fused = Array.from({ length: config.singleBlocks }, (_, i) => `single_transformer_blocks.${i}.attn.to_out`);
  return ["to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", ...fused];
}
