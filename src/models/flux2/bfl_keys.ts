// FLUX.2 checkpoints in Black Forest Labs' own layout, seen under diffusers' names: query, key and value of a double block are
// one matrix there, gains are called "scale", and the last modulation has shift before scale. The fused matrices of the single
// blocks are the same in both layouts.

import { SINUSOID_WIDTH } from "../flux/embeddings.ts";
import { type MappedTensor, rowsOfTensor, swappedHalves, type TensorMap, wholeTensor } from "../mapped_source.ts";
import type { Flux2Config } from "./config.ts";

type Shape = readonly number[];

const OUTER: Readonly<Record<string, string>> = {
  "img_in.weight": "x_embedder.weight",
  "txt_in.weight": "context_embedder.weight",
  "time_in.in_layer.weight": "time_guidance_embed.timestep_embedder.linear_1.weight",
  "time_in.out_layer.weight": "time_guidance_embed.timestep_embedder.linear_2.weight",
  "guidance_in.in_layer.weight": "time_guidance_embed.guidance_embedder.linear_1.weight",
  "guidance_in.out_layer.weight": "time_guidance_embed.guidance_embedder.linear_2.weight",
  "double_stream_modulation_img.lin.weight": "double_stream_modulation_img.linear.weight",
  "double_stream_modulation_txt.lin.weight": "double_stream_modulation_txt.linear.weight",
  "single_stream_modulation.lin.weight": "single_stream_modulation.linear.weight",
  "final_layer.linear.weight": "proj_out.weight",
};

const DOUBLE: Readonly<Record<string, string>> = {
  "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
  "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
  "img_attn.proj.weight": "attn.to_out.0.weight",
  "img_mlp.0.weight": "ff.linear_in.weight",
  "img_mlp.2.weight": "ff.linear_out.weight",
  "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
  "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
  "txt_attn.proj.weight": "attn.to_add_out.weight",
  "txt_mlp.0.weight": "ff_context.linear_in.weight",
  "txt_mlp.2.weight": "ff_context.linear_out.weight",
};

const FUSED: Readonly<Record<string, readonly string[]>> = {
  "img_attn.qkv.weight": ["attn.to_q.weight", "attn.to_k.weight", "attn.to_v.weight"],
  "txt_attn.qkv.weight": ["attn.add_q_proj.weight", "attn.add_k_proj.weight", "attn.add_v_proj.weight"],
};

const SINGLE: Readonly<Record<string, string>> = {
  "linear1.weight": "attn.to_qkv_mlp_proj.weight",
  "linear2.weight": "attn.to_out.weight",
  "norm.query_norm.scale": "attn.norm_q.weight",
  "norm.key_norm.scale": "attn.norm_k.weight",
};

const LAST = "final_layer.adaLN_modulation.1.weight";

const own = <T>(table: Readonly<Record<string, T>>, key: string): T | undefined =>
  Object.hasOwn(table, key) ? table[key] : undefined;

/**
 * The file's tensors under diffusers' names, for `mappedSource`; tensors that no table names are left out.
 * @param shapes of the file's tensors by name, without a prefix
 */
export function flux2BflMap(shapes: ReadonlyMap<string, Shape>): TensorMap {
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapes) {
    if (name === LAST) {
      map.set("norm_out.linear.weight", swappedHalves(name, shape));
      continue;
    }
    const block = /^(double|single)_blocks\.(\d+)\.(.+)$/.exec(name);
    if (!block) {
      const outer = own(OUTER, name);
      if (outer) map.set(outer, wholeTensor(name, shape));
      continue;
    }
    const [, kind, index, rest] = block as unknown as [string, string, string, string];
    const prefix = `${kind === "double" ? "transformer_blocks" : "single_transformer_blocks"}.${index}.`;
    const parts = kind === "double" ? own(FUSED, rest) : undefined;
    const one = own(kind === "double" ? DOUBLE : SINGLE, rest);
    parts?.forEach((part, i) => {
      const rows = shape[0]! / parts.length;
      map.set(prefix + part, rowsOfTensor(name, shape, i * rows, rows));
    });
    if (one) map.set(prefix + one, wholeTensor(name, shape));
  }
  return map;
}

/**
 * The configuration of a FLUX.2 transformer that has no config.json beside it, from its tensors' shapes under diffusers'
 * names; null where they are not those of one. The axes of the rotary positions cannot be seen: four equal ones are taken,
 * as all public models have.
 */
export function inferFlux2Config(shapes: ReadonlyMap<string, Shape>): Flux2Config | null {
  const matrix = (name: string): Shape | null => {
    const shape = shapes.get(`${name}.weight`);
    return shape?.length === 2 ? shape : null;
  };
  const depth = (blocks: RegExp): number => {
    let most = -1;
    for (const name of shapes.keys()) most = Math.max(most, Number(blocks.exec(name)?.[1] ?? -1));
    return most + 1;
  };
  const [image, text, out] = ["x_embedder", "context_embedder", "proj_out"].map(matrix);
  const fused = matrix("single_transformer_blocks.0.attn.to_out");
  const time = matrix("time_guidance_embed.timestep_embedder.linear_1");
  const headSize = shapes.get("single_transformer_blocks.0.attn.norm_q.weight")?.[0];
  if (!image || !text || !out || !fused || !headSize || time?.[1] !== SINUSOID_WIDTH) return null;
  if (!matrix("single_stream_modulation.linear")) return null;
  const width = image[0]!;
  const inner = fused[1]! - width;
  if (width % headSize !== 0 || headSize % 8 !== 0 || inner < 1) return null;
  return {
    inChannels: image[1]!,
    outChannels: out[0]!,
    doubleBlocks: depth(/^transformer_blocks\.(\d+)\./),
    singleBlocks: depth(/^single_transformer_blocks\.(\d+)\./),
    headSize,
    heads: width / headSize,
    width,
    inner,
    jointWidth: text[1]!,
    pooledWidth: 0,
    guidance: matrix("time_guidance_embed.guidance_embedder.linear_1") !== null,
    ropeAxes: [1, 1, 1, 1].map(() => headSize / 4),
    ropeTheta: 2000,
    mlpRatio: inner / width,
    eps: 1e-6,
  };
}
