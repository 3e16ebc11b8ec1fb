// The Linear layers of a FLUX.1 transformer by name, with their sizes, in both layouts: diffusers' and Black Forest Labs'.
// Made from a configuration alone, so that an adapter can be checked against a model that is not there.

import { type AdapterFamily, fusePath } from "../../formats/lora_names.ts";
import type { FluxConfig } from "./config.ts";
import { fluxConfig } from "./config.ts";
import { SINUSOID_WIDTH } from "./embeddings.ts";

export interface ModuleSize {
  outputs: number;
  inputs: number;
}

/** Rows of a base model's matrix that one module of diffusers' naming has. */
export interface ModuleRows {
  module: string;
  /** The whole matrix, or a part of it whose place follows from the matrix' size (`rowsOf`). */
  rows: "all" | { part: number; of: readonly string[]; singleLinear1: boolean };
  /** The two halves of the rows stand in the other order there. */
  swapHalves: boolean;
}

/** Every Linear layer in diffusers' naming, in the model's order. */
export function fluxModules(config: FluxConfig): Map<string, ModuleSize> {
  const { width } = config;
  const mlp = config.mlpRatio * width;
  const modules = new Map<string, ModuleSize>();
  const add = (name: string, outputs: number, inputs: number) => modules.set(name, { outputs, inputs });
  add("x_embedder", width, config.inChannels);
  add("context_embedder", width, config.jointWidth);
  for (const [name, inputs] of [
    ["timestep_embedder", SINUSOID_WIDTH],
    ...(config.guidance ? [["guidance_embedder", SINUSOID_WIDTH] as const] : []),
    ["text_embedder", config.pooledWidth],
  ] as const) {
    add(`time_text_embed.${name}.linear_1`, width, inputs);
    add(`time_text_embed.${name}.linear_2`, width, width);
  }
  for (let i = 0; i < config.doubleBlocks; i++) {
    const block = `transformer_blocks.${i}`;
    add(`${block}.norm1.linear`, 6 * width, width);
    add(`${block}.norm1_context.linear`, 6 * width, width);
    for (const name of ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"]) {
      add(`${block}.attn.${name}`, width, width);
    }
    for (const name of ["ff", "ff_context"]) {
      add(`${block}.${name}.net.0.proj`, mlp, width);
      add(`${block}.${name}.net.2`, width, mlp);
    }
  }
  for (let i = 0; i < config.singleBlocks; i++) {
    const block = `single_transformer_blocks.${i}`;
    add(`${block}.norm.linear`, 3 * width, width);
    for (const name of ["to_q", "to_k", "to_v"]) add(`${block}.attn.${name}`, width, width);
    add(`${block}.proj_mlp`, mlp, width);
    add(`${block}.proj_out`, width, width + mlp);
  }
  add("norm_out.linear", 2 * width, width);
  add("proj_out", config.outChannels, width);
  return modules;
}

/**
 * The modules whose rows a weight of a transformer file holds, in either layout and with any prefix that such files have;
 * empty for tensors that are no Linear layer's matrix by name.
 */
export function modulesOfTensor(name: string, family: AdapterFamily = "flux1"): ModuleRows[] {
  const bare = name.replace(/^(model\.diffusion_model|diffusion_model|transformer)\./, "");
  if (!bare.endsWith(".weight")) return [];
  const path = bare.slice(0, -".weight".length);
  const original =
    /^(double_blocks|single_blocks|img_in|txt_in|time_in|vector_in|guidance_in|final_layer|\w+_stream_modulation\w*\.lin)\b/;
  const names = original.test(path) ? fusePath(path, family) : null;
  if (!names) return [{ module: path, rows: "all", swapHalves: false }];
  if (names.modules.length === 1) {
    return [{ module: names.modules[0]!, rows: "all", swapHalves: names.swapHalves ?? false }];
  }
  const singleLinear1 = names.rows === "single-linear1";
  return names.modules.map((module, part) => ({
    module,
    rows: { part, of: names.modules, singleLinear1 },
    swapHalves: false,
  }));
}

/** First row and number of rows of a module in a matrix of `outputs` × `inputs`. */
export function rowsOf({ rows }: ModuleRows, outputs: number, inputs: number): { first: number; count: number } {
  if (rows === "all") return { first: 0, count: outputs };
  if (rows.singleLinear1) {
    return rows.part < 3
      ? { first: rows.part * inputs, count: inputs }
      : { first: 3 * inputs, count: outputs - 3 * inputs };
  }
  const count = outputs / rows.of.length;
  return { first: rows.part * count, count };
}

const PUBLIC = { num_layers: 19, num_single_layers: 38, num_attention_heads: 24, attention_head_dim: 128 };

/** Configurations of the public models by name. */
export const FLUX_PRESETS: Readonly<Record<string, FluxConfig>> = {
  "flux-dev": fluxConfig({ ...PUBLIC, guidance_embeds: true }, "flux-dev"),
  "flux-schnell": fluxConfig({ ...PUBLIC, guidance_embeds: false }, "flux-schnell"),
};

/**
 * The configuration of a transformer file that has none beside it, from the names and shapes of its tensors; null where
 * they are not those of a FLUX.1 transformer. The axes of the rotary positions cannot be seen and are set to any that fit.
 */
export function inferConfig(tensors: ReadonlyMap<string, { shape: readonly number[] }>): FluxConfig | null {
  const shapes = new Map<string, readonly number[]>();
  let [doubles, singles, guidance] = [-1, -1, false];
  let headSize = 0;
  for (const [name, { shape }] of tensors) {
    for (const { module } of modulesOfTensor(name)) {
      shapes.set(module, shape);
      const block = /^(single_transformer_blocks|transformer_blocks)\.(\d+)\./.exec(module);
      if (block?.[1] === "transformer_blocks") doubles = Math.max(doubles, Number(block[2]));
      if (block?.[1] === "single_transformer_blocks") singles = Math.max(singles, Number(block[2]));
      guidance ||= module.startsWith("time_text_embed.guidance_embedder");
    }
    if (/(norm_q\.weight|query_norm\.scale)$/.test(name)) headSize = shape[0] ?? 0;
  }
  const [image, text, pooled] = ["x_embedder", "context_embedder", "time_text_embed.text_embedder.linear_1"].map(
    (module) => shapes.get(module),
  );
  if (!image || !text || !pooled || headSize < 1 || image[0]! % headSize !== 0) return null;
  return {
    inChannels: image[1]!,
    outChannels: shapes.get("proj_out")?.[0] ?? image[1]!,
    doubleBlocks: doubles + 1,
    singleBlocks: singles + 1,
    headSize,
    heads: image[0]! / headSize,
    width: image[0]!,
    jointWidth: text[1]!,
    pooledWidth: pooled[1]!,
    guidance,
    ropeAxes: [headSize],
    ropeTheta: 10000,
    mlpRatio: 4,
  };
}
