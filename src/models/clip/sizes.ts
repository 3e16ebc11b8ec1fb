// Sizes of a CLIP model read from its tensors, for weights that come alone (HPS v2.1 is one .pt file), and the fields of a
// configuration that tensors do not show: heads and activation. Widths, layers, patch and picture size always come from the
// shapes; heads follow open_clip's model table, where a picture tower has heads of 64 up to ViT-L, and ViT-H, ViT-g and
// ViT-bigG have 16 of 80, 88 and 104. Text towers have heads of 64 throughout.

import { LongtailError } from "../../base/errors.ts";
import type { TensorSource } from "../../base/tensor_source.ts";
import { CLIP_MEAN, CLIP_STD, type OpenClipConfig } from "./open_clip.ts";

/** Width of a head where it is not 64, by width of the picture tower. */
const HEAD_WIDTHS: Readonly<Record<number, number>> = { 1280: 80, 1408: 88, 1664: 104 };
/** Largest width of a tower that OpenAI published weights for, with QuickGELU. */
const OPENAI_WIDTH = 1024;
/** Words in a file's path that mean weights trained with QuickGELU. */
const QUICK = /openai|quick[-_]?gelu|clip-vit-(?:base|large)-patch\d+(?:-336)?(?:\/|$)|metaclip|dfn/i;

export type Json = Readonly<Record<string, unknown>>;

export interface InferredClip {
  config: OpenClipConfig;
  /** What was assumed because nothing says it. */
  notes: string[];
}

/**
 * @param source under open_clip's names
 * @param config transformers' config.json, where there is one
 * @throws LongtailError E-FILE-141 the shapes are no CLIP vision transformer's, E-FILE-142 nothing says how many heads there
 * are, E-FILE-041 the configuration describes another model
 */
export function inferClip(source: TensorSource, config: Json | null = null, configPath = ""): InferredClip {
  const notes: string[] = [];
  const shape = (name: string): readonly number[] => {
    if (!source.has(name)) throw unreadable(source.name, `${name} is missing`);
    return source.shape(name);
  };
  const [width, channels, patch] = shape("visual.conv1.weight") as [number, number, number, number];
  const side = Math.sqrt(shape("visual.positional_embedding")[0]! - 1);
  if (channels !== 3 || !Number.isInteger(side))
    throw unreadable(source.name, "its patches do not fill a square of RGB");
  const [positions, textWidth] = shape("positional_embedding") as [number, number];
  const embed = shape("visual.proj")[1]!;
  const sides = { vision: part(config, "vision"), text: part(config, "text") };
  const towers = {
    vision: tower(source, "visual.transformer.resblocks", width),
    text: tower(source, "transformer.resblocks", textWidth),
  };
  const heads = {
    vision: headsOf(source.name, sides.vision, width, HEAD_WIDTHS[width] ?? 64),
    text: headsOf(source.name, sides.text, textWidth, 64),
  };
  let activation = config ? (sides.vision["hidden_act"] ?? "quick_gelu") : null;
  if (activation === null) {
    activation = QUICK.test(source.name) ? "quick_gelu" : "gelu";
    if (Math.max(width, textWidth) <= OPENAI_WIDTH)
      notes.push(
        `no configuration says which activation these weights were trained with; ${activation} is taken` +
          (activation === "gelu" ? " (weights of OpenAI need quick_gelu: put their config.json beside them)" : ""),
      );
  }
  if (config) {
    agree(configPath, "vision_config.hidden_size", sides.vision["hidden_size"], width);
    agree(configPath, "vision_config.num_hidden_layers", sides.vision["num_hidden_layers"], towers.vision.layers);
    agree(configPath, "vision_config.patch_size", sides.vision["patch_size"], patch);
    agree(configPath, "vision_config.image_size", sides.vision["image_size"], side * patch);
    agree(configPath, "text_config.hidden_size", sides.text["hidden_size"], textWidth);
    agree(configPath, "text_config.num_hidden_layers", sides.text["num_hidden_layers"], towers.text.layers);
    agree(configPath, "projection_dim", config["projection_dim"], embed);
  }
  const textActivation = config ? (sides.text["hidden_act"] ?? "quick_gelu") : activation;
  return {
    notes,
    config: {
      vision: {
        imageSize: side * patch,
        patch,
        width,
        heads: heads.vision,
        embed,
        activation: String(activation),
        ...towers.vision,
      },
      text: {
        rows: shape("token_embedding.weight")[0]!,
        positions,
        width: textWidth,
        heads: heads.text,
        embed,
        activation: String(textActivation),
        ...towers.text,
      },
      mean: CLIP_MEAN,
      std: CLIP_STD,
    },
  };
}

/** `vision_config` or `text_config`; old files repeat what counts in `*_config_dict`. */
function part(config: Json | null, name: "vision" | "text"): Json {
  const object = (value: unknown) => (typeof value === "object" && value !== null ? (value as Json) : {});
  return { ...object(config?.[`${name}_config`]), ...object(config?.[`${name}_config_dict`]) };
}

function tower(source: TensorSource, prefix: string, width: number): { layers: number; inner: number } {
  let layers = 0;
  while (source.has(`${prefix}.${layers}.ln_1.weight`)) layers++;
  const up = `${prefix}.0.mlp.c_fc.weight`;
  if (layers === 0 || !source.has(up)) throw unreadable(source.name, `${prefix} has no blocks`);
  const [inner, from] = source.shape(up) as [number, number];
  if (from !== width) throw unreadable(source.name, `${up} does not take ${width} numbers`);
  return { layers, inner };
}

function headsOf(where: string, config: Json, width: number, headWidth: number): number {
  const given = config["num_attention_heads"];
  const heads = typeof given === "number" ? given : width / headWidth;
  if (Number.isInteger(heads) && heads > 0 && width % heads === 0) return heads;
  throw new LongtailError("E-FILE-142", {
    what: `nothing says how many heads a tower of width ${width} has`,
    where,
    why: "its tensors do not show it, and no public CLIP has this width",
    fix: "put the config.json or open_clip_config.json of these weights beside them",
  });
}

function agree(where: string, key: string, given: unknown, found: number): void {
  if (given === undefined || given === found) return;
  throw new LongtailError("E-FILE-041", {
    what: `${key} is ${JSON.stringify(given)}, and the tensors say ${found}`,
    where,
    why: "the configuration belongs to another model",
    fix: "use the config.json that came with these weights",
  });
}

function unreadable(where: string, why: string): LongtailError {
  return new LongtailError("E-FILE-141", {
    what: "the sizes of the CLIP model cannot be read from its tensors",
    where,
    why,
    fix: "fetch the file again, or check that it is a whole CLIP model",
  });
}
