// A whole open_clip model: configuration, both towers, unit features. The embedded reward and judge and HPSv2 are of this
// kind; one pool holds the weights, in the file's names.

import { LongtailError } from "../../base/errors.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { l2Normalise } from "../../ops/norm.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { OpenClipText, type OpenClipTextConfig } from "./text.ts";
import { OpenClipVision, type OpenClipVisionConfig } from "./vision.ts";

export interface OpenClipConfig {
  vision: OpenClipVisionConfig;
  text: OpenClipTextConfig;
  mean: [number, number, number];
  std: [number, number, number];
}

/** CLIP's own statistics of pictures in [0, 1]. */
export const CLIP_MEAN: [number, number, number] = [0.48145466, 0.4578275, 0.40821073];
export const CLIP_STD: [number, number, number] = [0.26862954, 0.26130258, 0.27577711];

interface RawConfig {
  embed_dim: number;
  quick_gelu?: boolean;
  vision_cfg: {
    image_size: number;
    layers: number;
    width: number;
    head_width?: number;
    patch_size: number;
    mlp_ratio?: number;
  };
  text_cfg: {
    context_length: number;
    vocab_size: number;
    width: number;
    heads: number;
    layers: number;
    mlp_ratio?: number;
  };
}

/** Reads open_clip_config.json, or its `model_cfg` alone. `rows` overrides the vocabulary of a compact table. */
export function openClipConfig(json: Record<string, unknown>, where: string, rows?: number): OpenClipConfig {
  const raw = ((json["model_cfg"] as unknown) ?? json) as RawConfig;
  const preprocess = (json["preprocess_cfg"] ?? {}) as {
    mean?: [number, number, number];
    std?: [number, number, number];
  };
  const vision = raw.vision_cfg;
  const text = raw.text_cfg;
  if (!vision || !text || typeof raw.embed_dim !== "number" || typeof vision.width !== "number") {
    throw new LongtailError("E-FILE-041", {
      what: "the configuration does not describe an open_clip model",
      where,
      fix: "use the open_clip_config.json that came with the weights",
    });
  }
  const activation = raw.quick_gelu ? "quick_gelu" : "gelu";
  return {
    vision: {
      imageSize: vision.image_size,
      patch: vision.patch_size,
      width: vision.width,
      heads: vision.width / (vision.head_width ?? 64),
      layers: vision.layers,
      inner: vision.width * (vision.mlp_ratio ?? 4),
      embed: raw.embed_dim,
      activation,
    },
    text: {
      rows: rows ?? text.vocab_size,
      positions: text.context_length,
      width: text.width,
      heads: text.heads,
      layers: text.layers,
      inner: text.width * (text.mlp_ratio ?? 4),
      embed: raw.embed_dim,
      activation,
    },
    mean: preprocess.mean ?? CLIP_MEAN,
    std: preprocess.std ?? CLIP_STD,
  };
}

/** Which halves of a model are declared: texts that are known beforehand need no text tower beside a training model. */
export type Towers = "both" | "picture" | "text";

export interface OpenClipOptions {
  towers?: Towers;
  /** Declares no token table; `textFeatures` then takes embeddings. */
  tableElsewhere?: boolean;
}

export class OpenClip {
  readonly config: OpenClipConfig;
  readonly parameters: Parameters;
  private readonly towers: { vision: OpenClipVision | null; text: OpenClipText | null };

  constructor(parameters: Parameters, config: OpenClipConfig, options: OpenClipOptions = {}) {
    const { towers = "both", tableElsewhere = false } = options;
    this.config = config;
    this.parameters = parameters;
    this.towers = {
      vision: towers === "text" ? null : new OpenClipVision(parameters.at("visual"), config.vision),
      text: towers === "picture" ? null : new OpenClipText(parameters, config.text, tableElsewhere),
    };
  }

  get vision(): OpenClipVision {
    if (!this.towers.vision) throw new Error("this CLIP model was opened without its picture tower");
    return this.towers.vision;
  }

  get text(): OpenClipText {
    if (!this.towers.text) throw new Error("this CLIP model was opened without its text tower");
    return this.towers.text;
  }

  /** Normalised pictures -> unit features [B, E]. */
  imageFeatures(graph: Graph, pictures: Tensor): Tensor {
    return l2Normalise(this.vision.forward(graph, pictures));
  }

  /** Token rows u32 [B, L], or embeddings [B, L, D] where the table is elsewhere -> unit features [B, E]. */
  textFeatures(graph: Graph, tokens: Tensor, end: Tensor): Tensor {
    return l2Normalise(this.text.forward(graph, tokens, end));
  }
}
