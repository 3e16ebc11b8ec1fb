// Configuration of Qwen3 text encoders in the field names of transformers, whose versions write the rotary base in two ways.

import { LongtailError } from "../../base/errors.ts";

export interface Qwen3Config {
  /** Rows of the token table. */
  rows: number;
  width: number;
  headSize: number;
  heads: number;
  /** Heads of keys and values; each serves heads / keyValueHeads query heads. */
  keyValueHeads: number;
  layers: number;
  inner: number;
  eps: number;
  ropeTheta: number;
}

/** Layers whose outputs FLUX.2 klein reads, counted from 1. */
export const KLEIN_LAYERS: readonly number[] = [9, 18, 27];
/** Tokens of a prompt with its chat marks and padding, in FLUX.2 klein. */
export const KLEIN_TEXT_LENGTH = 512;

/**
 * @param known rows of a table that is kept compact, the whole vocabulary by default, and the layers that will be read
 * @throws LongtailError E-FILE-042 where the file describes another architecture or contradicts itself
 */
export function qwen3Config(
  json: Record<string, unknown>,
  where: string,
  known: { rows?: number; layers?: readonly number[] } = {},
): Qwen3Config {
  const fail = (what: string): never => {
    throw new LongtailError("E-FILE-042", {
      what,
      where,
      why: "FLUX.2 klein reads the states of a Qwen3 language model",
      fix: "use the text encoder that belongs to the transformer",
    });
  };
  const number = (key: string, fallback: number): number => {
    const value = json[key] ?? fallback;
    return typeof value === "number" && value > 0 ? value : fail(`${key} is not a number above 0`);
  };
  const type = json["model_type"];
  if (type !== undefined && type !== "qwen3") fail(`the text encoder is ${JSON.stringify(type)}, not "qwen3"`);
  if (json["attention_bias"] === true) fail("attention_bias is set");
  if (json["use_sliding_window"] === true) fail("use_sliding_window is set");
  if ((json["hidden_act"] ?? "silu") !== "silu") fail(`the activation is ${JSON.stringify(json["hidden_act"])}`);
  const rope = (json["rope_parameters"] ?? json["rope_scaling"]) as Record<string, unknown> | null | undefined;
  const kind = rope?.["rope_type"] ?? rope?.["type"] ?? "default";
  if (kind !== "default") fail(`positions are scaled (${JSON.stringify(kind)})`);
  const heads = number("num_attention_heads", 32);
  const keyValueHeads = number("num_key_value_heads", heads);
  if (heads % keyValueHeads !== 0) fail(`${keyValueHeads} key heads do not share out ${heads} query heads`);
  const layers = number("num_hidden_layers", 36);
  if (known.layers?.some((layer) => layer > layers))
    fail(`it has ${layers} layers, and ${known.layers.join(", ")} are read`);
  return {
    rows: known.rows ?? number("vocab_size", 151936),
    width: number("hidden_size", 2560),
    headSize: number("head_dim", 128),
    heads,
    keyValueHeads,
    layers,
    inner: number("intermediate_size", 9728),
    eps: number("rms_norm_eps", 1e-6),
    ropeTheta: (rope?.["rope_theta"] as number | undefined) ?? number("rope_theta", 1e6),
  };
}
