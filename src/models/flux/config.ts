// Configuration of FLUX.1 transformers in diffusers' field names. Older files omit some fields; their defaults are here.

import { LongtailError } from "../../base/errors.ts";

export interface FluxConfig {
  inChannels: number;
  outChannels: number;
  doubleBlocks: number;
  singleBlocks: number;
  headSize: number;
  heads: number;
  /** heads * headSize. */
  width: number;
  jointWidth: number;
  pooledWidth: number;
  guidance: boolean;
  ropeAxes: number[];
  ropeTheta: number;
  mlpRatio: number;
}

/** @throws LongtailError E-FILE-040 where the file describes another architecture or contradicts itself */
export function fluxConfig(json: Record<string, unknown>, where: string): FluxConfig {
  const fail = (what: string): never => {
    throw new LongtailError("E-FILE-040", {
      what,
      where,
      fix: "point [model] at a FLUX.1 transformer in diffusers layout",
    });
  };
  if (json["_class_name"] !== undefined && json["_class_name"] !== "FluxTransformer2DModel") {
    fail(`the configuration is of ${json["_class_name"]}, not of FluxTransformer2DModel`);
  }
  const number = (key: string, fallback?: number): number => {
    const value = json[key] ?? fallback;
    return typeof value === "number" ? value : fail(`${key} is missing or not a number`);
  };
  const heads = number("num_attention_heads", 24);
  const headSize = number("attention_head_dim", 128);
  const ropeAxes = (json["axes_dims_rope"] as number[] | undefined) ?? [16, 56, 56];
  if (ropeAxes.reduce((a, b) => a + b, 0) !== headSize) {
    fail(`axes_dims_rope [${ropeAxes}] do not add up to attention_head_dim ${headSize}`);
  }
  const inChannels = number("in_channels", 64);
  return {
    inChannels,
    outChannels: (json["out_channels"] as number | null | undefined) ?? inChannels,
    doubleBlocks: number("num_layers", 19),
    singleBlocks: number("num_single_layers", 38),
    headSize,
    heads,
    width: heads * headSize,
    jointWidth: number("joint_attention_dim", 4096),
    pooledWidth: number("pooled_projection_dim", 768),
    guidance: Boolean(json["guidance_embeds"] ?? false),
    ropeAxes,
    ropeTheta: 10000,
    mlpRatio: 4,
  };
}
