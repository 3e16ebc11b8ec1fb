// The autoencoder of a pipeline behind one face: pictures in [0, 1] on one side, packed model latents (shifted and scaled as
// the transformer wants them) on the other, whichever of AutoencoderKL, AutoencoderTiny or TAEF2 lies between.

import type { Parameters } from "../../nn/parameters.ts";
import { affine } from "../../ops/pointwise.ts";
import { slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { KlDecoder, KlEncoder, klConfig } from "./kl.ts";
import { packLatents, unpackLatents } from "./packing.ts";
import { TAEF2, type TinyConfig, TinyDecoder, TinyEncoder } from "./tiny.ts";

export type AutoencoderKind = "kl" | "tiny" | "taef2" | "flux2";

export interface AutoencoderSettings {
  kind: AutoencoderKind;
  /** Model latent = (autoencoder latent - shift) · scale. */
  scale: number;
  shift: number;
  /** The config.json of diffusers' classes; TAEF2 has none. FLUX.2's (../flux2/autoencoder.ts) reads this alone. */
  config: Record<string, unknown>;
}

/** Pixels of a latent's side in every autoencoder of the family. */
export const LATENT_STRIDE = 8;

/** An autoencoder as pipelines know it. */
export interface PictureCoder {
  /** Channels of its latents. */
  readonly latentChannels: number;
  /** Most channels that a value of a half has at the pictures' full resolution. */
  widest(half: "encoder" | "decoder"): number;
  /** Pictures [B, 3, H, W] in [0, 1] -> packed model latents [B, H·W/256, 4C]. */
  encode(graph: Graph, pictures: Tensor): Tensor;
  /** Packed model latents of `rows` × `columns` tokens -> pictures in [0, 1], not clamped. */
  decode(graph: Graph, packed: Tensor, rows: number, columns: number): Tensor;
}

interface Coder {
  forward(graph: Graph, x: Tensor): Tensor;
}

export class Autoencoder implements PictureCoder {
  readonly settings: AutoencoderSettings;
  private readonly encoder: Coder | null;
  private readonly decoder: Coder | null;

  /** Declares the halves that are wanted. */
  constructor(parameters: Parameters, settings: AutoencoderSettings, halves: { encoder?: boolean; decoder?: boolean }) {
    this.settings = settings;
    const tiny = settings.kind === "kl" ? null : tinyConfig(settings);
    const at = (half: string) => parameters.at(tiny?.diffusers ? `${half}.layers` : half);
    this.encoder = halves.encoder
      ? tiny
        ? new TinyEncoder(at("encoder"), tiny)
        : new KlEncoder(at("encoder"), klConfig(settings.config))
      : null;
    this.decoder = halves.decoder
      ? tiny
        ? new TinyDecoder(at("decoder"), tiny)
        : new KlDecoder(at("decoder"), klConfig(settings.config))
      : null;
  }

  /** Most channels that a value of a half has at the pictures' full resolution. */
  widest(half: "encoder" | "decoder"): number {
    if (this.settings.kind !== "kl") return tinyConfig(this.settings).width;
    const { widths } = klConfig(this.settings.config);
    // The decoder comes up to the last level with the width of the one before.
    return half === "encoder" ? widths[0]! : widths[1]!;
  }

  /** Channels of its latents. */
  get latentChannels(): number {
    const { settings } = this;
    return settings.kind === "kl" ? klConfig(settings.config).latentChannels : tinyConfig(settings).latentChannels;
  }

  /** TAEF2's files are made for pictures in [0, 1], diffusers' classes for [-1, 1]. */
  private get signed(): boolean {
    return this.settings.kind !== "taef2";
  }

  /** Pictures [B, 3, H, W] in [0, 1] -> packed model latents [B, H·W/256, 4C]; AutoencoderKL gives its mean. */
  encode(graph: Graph, pictures: Tensor): Tensor {
    if (!this.encoder) throw new Error("the autoencoder was opened without its encoder");
    const { scale, shift, kind } = this.settings;
    const output = this.encoder.forward(graph, this.signed ? affine(pictures, 2, -1) : pictures);
    const latent = kind === "kl" ? slice(output, 1, 0, output.dim(1) / 2) : output;
    return affine(packLatents(latent), scale, -scale * shift);
  }

  /** Packed model latents of `rows` × `columns` tokens -> pictures in [0, 1], not clamped. */
  decode(graph: Graph, packed: Tensor, rows: number, columns: number): Tensor {
    if (!this.decoder) throw new Error("the autoencoder was opened without its decoder");
    const { scale, shift } = this.settings;
    const latent = unpackLatents(affine(packed, 1 / scale, shift), rows, columns);
    const picture = this.decoder.forward(graph, latent);
    return this.signed ? affine(picture, 0.5, 0.5) : picture;
  }
}

function tinyConfig({ kind, config }: AutoencoderSettings): TinyConfig {
  if (kind === "taef2") return TAEF2;
  const widths = config["encoder_block_out_channels"] as number[] | undefined;
  return {
    latentChannels: (config["latent_channels"] as number | undefined) ?? 16,
    width: widths?.[0] ?? 64,
    pool: false,
    diffusers: true,
  };
}
