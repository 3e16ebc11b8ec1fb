// FLUX.2's autoencoder (diffusers' AutoencoderKLFlux2): the one of FLUX.1 with 32 channels, 1×1 convolutions between its halves
// and the latents, and latents that are normalised in packed form with the running statistics of a BatchNorm, which take the
// place of scale and shift. Same face as Autoencoder: pictures in [0, 1] on one side, packed model latents on the other.

import { LongtailError } from "../../base/errors.ts";
import { Conv2d } from "../../nn/conv.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { add, affine, div, mul, sqrt, sub } from "../../ops/pointwise.ts";
import { slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { PictureCoder } from "../vae/autoencoder.ts";
import { type KlConfig, KlDecoder, KlEncoder, klConfig } from "../vae/kl.ts";
import { packLatents, unpackLatents } from "../vae/packing.ts";

export interface Flux2AutoencoderConfig {
  encoder: KlConfig;
  decoder: KlConfig;
  latentChannels: number;
  quantConv: boolean;
  postQuantConv: boolean;
  /** Added to the running variances. */
  eps: number;
}

/** @throws LongtailError E-FILE-035 where the file describes layers that this autoencoder does not have */
export function flux2AutoencoderConfig(json: Record<string, unknown>, where: string): Flux2AutoencoderConfig {
  const base = klConfig({ latent_channels: 32, ...json });
  const decoderWidths = (json["decoder_block_out_channels"] as number[] | null | undefined) ?? base.widths;
  const patch = (json["patch_size"] as number[] | undefined) ?? [2, 2];
  const wrong =
    json["_class_name"] !== undefined && json["_class_name"] !== "AutoencoderKLFlux2"
      ? `is ${JSON.stringify(json["_class_name"])}`
      : base.widths.length !== 4 || decoderWidths.length !== 4
        ? `has ${base.widths.length} levels`
        : patch.join() !== "2,2"
          ? `packs patches of [${patch}]`
          : json["mid_block_add_attention"] === false
            ? "has no attention in its middle (mid_block_add_attention)"
            : (json["act_fn"] ?? "silu") !== "silu"
              ? `has the activation ${JSON.stringify(json["act_fn"])}`
              : null;
  if (wrong) {
    throw new LongtailError("E-FILE-035", {
      what: `the autoencoder ${wrong}`,
      where,
      why: "FLUX.2's has four levels with attention in the middle and latents in patches of 2×2",
      fix: "use the autoencoder that belongs to the transformer",
    });
  }
  return {
    encoder: base,
    decoder: { ...base, widths: decoderWidths },
    latentChannels: base.latentChannels,
    quantConv: json["use_quant_conv"] !== false,
    postQuantConv: json["use_post_quant_conv"] !== false,
    eps: (json["batch_norm_eps"] as number | undefined) ?? 1e-4,
  };
}

export class Flux2Autoencoder implements PictureCoder {
  readonly config: Flux2AutoencoderConfig;
  private readonly encoder: { body: KlEncoder; quant: Conv2d | null } | null;
  private readonly decoder: { body: KlDecoder; quant: Conv2d | null } | null;
  /** Running mean and variance of packed channels, [4C]. */
  private readonly mean: Variable;
  private readonly variance: Variable;

  /** Declares the halves that are wanted, under diffusers' names. */
  constructor(
    parameters: Parameters,
    config: Flux2AutoencoderConfig,
    halves: { encoder?: boolean; decoder?: boolean },
  ) {
    const { latentChannels: channels } = config;
    this.config = config;
    this.encoder = halves.encoder
      ? {
          body: new KlEncoder(parameters.at("encoder"), config.encoder),
          quant: config.quantConv ? new Conv2d(parameters.at("quant_conv"), 2 * channels, 2 * channels, 1) : null,
        }
      : null;
    this.decoder = halves.decoder
      ? {
          body: new KlDecoder(parameters.at("decoder"), config.decoder),
          quant: config.postQuantConv ? new Conv2d(parameters.at("post_quant_conv"), channels, channels, 1) : null,
        }
      : null;
    this.mean = parameters.at("bn").tensor("running_mean", [4 * channels]);
    this.variance = parameters.at("bn").tensor("running_var", [4 * channels]);
  }

  get latentChannels(): number {
    return this.config.latentChannels;
  }

  /** Most channels that a value of a half has at the pictures' full resolution. */
  widest(half: "encoder" | "decoder"): number {
    // The decoder comes up to the last level with the width of the one before.
    return half === "encoder" ? this.config.encoder.widths[0]! : this.config.decoder.widths[1]!;
  }

  /** Packed latents [B, L, 4C] as the transformer wants them: (x - mean) / sqrt(variance + eps) by packed channel. */
  normalise(graph: Graph, packed: Tensor): Tensor {
    return div(sub(packed, graph.read(this.mean)), this.deviation(graph));
  }

  /** The way back from `normalise`. */
  denormalise(graph: Graph, packed: Tensor): Tensor {
    return add(mul(packed, this.deviation(graph)), graph.read(this.mean));
  }

  private deviation(graph: Graph): Tensor {
    return sqrt(affine(graph.read(this.variance), 1, this.config.eps));
  }

  /** Pictures [B, 3, H, W] in [-1, 1] -> moments [B, 2C, H/8, W/8]: mean, then log variance (not clamped). */
  moments(graph: Graph, pictures: Tensor): Tensor {
    if (!this.encoder) throw new Error("the autoencoder was opened without its encoder");
    const { body, quant } = this.encoder;
    const moments = body.forward(graph, pictures);
    return quant ? quant.forward(graph, moments) : moments;
  }

  /** Latents [B, C, h, w] -> pictures [B, 3, 8h, 8w] in [-1, 1], not clamped. */
  picture(graph: Graph, latents: Tensor): Tensor {
    if (!this.decoder) throw new Error("the autoencoder was opened without its decoder");
    const { body, quant } = this.decoder;
    return body.forward(graph, quant ? quant.forward(graph, latents) : latents);
  }

  /** Pictures [B, 3, H, W] in [0, 1] -> packed model latents [B, H·W/256, 4C], from the posterior's mean. */
  encode(graph: Graph, pictures: Tensor): Tensor {
    const moments = this.moments(graph, affine(pictures, 2, -1));
    return this.normalise(graph, packLatents(slice(moments, 1, 0, this.config.latentChannels)));
  }

  /** Packed model latents of `rows` × `columns` tokens -> pictures in [0, 1], not clamped. */
  decode(graph: Graph, packed: Tensor, rows: number, columns: number): Tensor {
    const latents = unpackLatents(this.denormalise(graph, packed), rows, columns);
    return affine(this.picture(graph, latents), 0.5, 0.5);
  }
}
