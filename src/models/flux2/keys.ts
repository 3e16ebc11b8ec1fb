// The Linear layers of a FLUX.2 transformer by name, with their sizes, made from a configuration alone, so that an adapter can be
// checked against a model that is not there.

import { SINUSOID_WIDTH } from "../flux/embeddings.ts";
import type { ModuleSize } from "../flux/keys.ts";
import type { Flux2Config } from "./config.ts";

/** Every Linear layer in diffusers' naming, in the model's order. */
export function flux2Modules(config: Flux2Config): Map<string, ModuleSize> {
  const { width, inner } = config;
  const modules = new Map<string, ModuleSize>();
  const add = (name: string, outputs: number, inputs: number) => modules.set(name, { outputs, inputs });
  add("x_embedder", width, config.inChannels);
  add("context_embedder", width, config.jointWidth);
  for (const name of ["timestep_embedder", ...(config.guidance ? ["guidance_embedder"] : [])]) {
    add(`time_guidance_embed.${name}.linear_1`, width, SINUSOID_WIDTH);
    add(`time_guidance_embed.${name}.linear_2`, width, width);
  }
  add("double_stream_modulation_img.linear", 6 * width, width);
  add("double_stream_modulation_txt.linear", 6 * width, width);
  add("single_stream_modulation.linear", 3 * width, width);
  for (let i = 0; i < config.doubleBlocks; i++) {
    const block = `transformer_blocks.${i}`;
    for (const name of ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]) {
      add(`${block}.attn.${name}`, width, width);
    }
    for (const name of ["ff", "ff_context"]) {
      add(`${block}.${name}.linear_in`, 2 * inner, width);
      add(`${block}.${name}.linear_out`, width, inner);
    }
  }
  for (let i = 0; i < config.singleBlocks; i++) {
    const block = `single_transformer_blocks.${i}.attn`;
    add(`${block}.to_qkv_mlp_proj`, 3 * width + 2 * inner, width);
    add(`${block}.to_out`, width, width + inner);
  }
  add("norm_out.linear", 2 * width, width);
  add("proj_out", config.outChannels, width);
  return modules;
}
