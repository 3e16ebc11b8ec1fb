// Module names and fused layers of kohya's sd-scripts for FLUX.1. They follow Black Forest Labs' own layout: query, key and
// value in one matrix, and in single blocks the MLP's first layer with them. A file holds for such a matrix either one
// down factor that its parts share, or the parts' own factors on a block diagonal.

import type { LoraLayer } from "./lora.ts";

export interface FusedNames {
  /** diffusers' modules whose rows lie in the matrix, from the top. */
  modules: readonly string[];
  /** How the rows are shared out. */
  rows: "equal" | "single-linear1";
  /** True where diffusers stores the two halves of the rows in the other order (scale before shift). */
  swapHalves?: boolean;
}

const DOUBLE: Readonly<Record<string, readonly string[]>> = {
  img_attn_qkv: ["attn.to_q", "attn.to_k", "attn.to_v"],
  txt_attn_qkv: ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
  img_attn_proj: ["attn.to_out.0"],
  txt_attn_proj: ["attn.to_add_out"],
  img_mlp_0: ["ff.net.0.proj"],
  img_mlp_2: ["ff.net.2"],
  txt_mlp_0: ["ff_context.net.0.proj"],
  txt_mlp_2: ["ff_context.net.2"],
  img_mod_lin: ["norm1.linear"],
  txt_mod_lin: ["norm1_context.linear"],
};

const SINGLE: Readonly<Record<string, readonly string[]>> = {
  linear1: ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
  linear2: ["proj_out"],
  modulation_lin: ["norm.linear"],
};

const OUTER: Readonly<Record<string, string>> = {
  img_in: "x_embedder",
  txt_in: "context_embedder",
  time_in_in_layer: "time_text_embed.timestep_embedder.linear_1",
  time_in_out_layer: "time_text_embed.timestep_embedder.linear_2",
  vector_in_in_layer: "time_text_embed.text_embedder.linear_1",
  vector_in_out_layer: "time_text_embed.text_embedder.linear_2",
  guidance_in_in_layer: "time_text_embed.guidance_embedder.linear_1",
  guidance_in_out_layer: "time_text_embed.guidance_embedder.linear_2",
  final_layer_linear: "proj_out",
  final_layer_adaLN_modulation_1: "norm_out.linear",
};

const own = <T>(table: Readonly<Record<string, T>>, key: string) =>
  Object.hasOwn(table, key) ? table[key] : undefined;

/** What a stem like `lora_unet_double_blocks_0_img_attn_qkv` stands for, or null where it is no transformer layer's. */
export function fuseNames(stem: string): FusedNames | null {
  const block = /^lora_unet_(double|single)_blocks_(\d+)_(.+)$/.exec(stem);
  if (block) {
    const modules = own(block[1] === "double" ? DOUBLE : SINGLE, block[3]!);
    if (!modules) return null;
    const prefix = `${block[1] === "double" ? "transformer_blocks" : "single_transformer_blocks"}.${block[2]}.`;
    const rows = block[3] === "linear1" ? "single-linear1" : "equal";
    return { modules: modules.map((module) => prefix + module), rows };
  }
  const outer = /^lora_unet_(.+)$/.exec(stem);
  const module = outer && own(OUTER, outer[1]!);
  if (!module) return null;
  return { modules: [module], rows: "equal", swapHalves: module === "norm_out.linear" };
}

/** Splits a matrix into its modules' own layers; null where the rows do not share out. A part without values is left out. */
export function splitFused(names: FusedNames, fused: LoraLayer): Map<string, LoraLayer> | null {
  const { rank, inputs, outputs, scale } = fused;
  const parts = names.modules.length;
  const heights =
    names.rows === "equal" ? names.modules.map(() => outputs / parts) : [inputs, inputs, inputs, outputs - 3 * inputs];
  if (heights.some((height) => !Number.isInteger(height) || height < 1)) return null;
  if (names.swapHalves && outputs % 2 !== 0) return null;
  const up = names.swapHalves ? swapped(fused.up) : fused.up;
  const layers = new Map<string, LoraLayer>();
  const diagonal = parts > 1 && isBlockDiagonal(up, rank, heights);
  const width = diagonal ? rank / parts : rank;
  let row = 0;
  names.modules.forEach((module, part) => {
    const height = heights[part]!;
    const column = diagonal ? part * width : 0;
    const ownUp = new Float32Array(height * width);
    for (let i = 0; i < height; i++) {
      const from = (row + i) * rank + column;
      ownUp.set(up.subarray(from, from + width), i * width);
    }
    row += height;
    const down = fused.down.slice(column * inputs, (column + width) * inputs);
    // The form has room for all parts of a fused layer even where only some were trained.
    if (diagonal && ownUp.every((v) => v === 0) && down.every((v) => v === 0)) return;
    layers.set(module, { rank: width, inputs, outputs: height, down, up: ownUp, scale });
  });
  return layers;
}

function swapped(up: Float32Array): Float32Array {
  const half = up.length / 2;
  const out = new Float32Array(up.length);
  out.set(up.subarray(half));
  out.set(up.subarray(0, half), half);
  return out;
}

/** True where every part's rows have values in the part's own columns alone. */
function isBlockDiagonal(up: Float32Array, rank: number, heights: readonly number[]): boolean {
  if (rank % heights.length !== 0) return false;
  const width = rank / heights.length;
  let row = 0;
  let any = false;
  for (const [part, height] of heights.entries()) {
    for (let i = row; i < row + height; i++) {
      for (let j = 0; j < rank; j++) {
        if (up[i * rank + j] === 0) continue;
        if (Math.floor(j / width) !== part) return false;
        any = true;
      }
    }
    row += height;
  }
  // A fresh shared factor is all zero as well: then nothing tells the two forms apart, and sharing keeps every value.
  return any;
}
