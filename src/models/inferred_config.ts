// Configurations of checkpoints that come without a config.json, read from the shapes of their tensors and written in
// diffusers' field names, and the comparison of a configuration that is there with the tensors it should describe.

import { LongtailError } from "../base/errors.ts";
import type { FluxConfig } from "./flux/config.ts";
import { inferConfig } from "./flux/keys.ts";
import type { TransformerSizes } from "./flux/variants.ts";
import { inferFlux2Config } from "./flux2/bfl_keys.ts";
import type { Flux2Config } from "./flux2/config.ts";

export type Json = Readonly<Record<string, unknown>>;
type Shapes = ReadonlyMap<string, readonly number[]>;

/** Sizes and configuration that tensors show. `config` lacks the axes of the rotary positions where they cannot be known. */
export interface Inferred {
  config: Json;
  /** Sizes of a transformer; null for an autoencoder. */
  sizes: TransformerSizes | null;
}

/** Axes of the rotary positions by head size: all public models have one of these. */
const AXES = new Map([
  [128, [16, 56, 56]],
  [16, [4, 4, 8]],
]);

const incomplete = (where: string, what: string) =>
  new LongtailError("E-FILE-124", {
    what,
    where,
    why: "tensors that the layout must have are missing, or have another shape",
    fix: "fetch the file again, or check that it is complete",
  });

const unreadable = (where: string) => incomplete(where, "the sizes of the transformer cannot be read from its tensors");

/** False where a name has the number of a block that cannot be: every block has several tensors. */
const countable = (found: { doubleBlocks: number; singleBlocks: number }, shapes: Shapes) =>
  found.doubleBlocks + found.singleBlocks < shapes.size;

/** @param shapes of all tensors, by diffusers' names */
export function inferFlux1(shapes: Shapes, where: string): Inferred {
  const found = inferConfig(new Map([...shapes].map(([name, shape]) => [name, { shape }])));
  if (!found || !countable(found, shapes)) throw unreadable(where);
  const axes = AXES.get(found.headSize);
  return {
    sizes: { family: "flux1", pooledWidth: found.pooledWidth, ...sizesOf(found) },
    config: {
      _class_name: "FluxTransformer2DModel",
      patch_size: 1,
      in_channels: found.inChannels,
      out_channels: found.outChannels,
      num_layers: found.doubleBlocks,
      num_single_layers: found.singleBlocks,
      attention_head_dim: found.headSize,
      num_attention_heads: found.heads,
      joint_attention_dim: found.jointWidth,
      pooled_projection_dim: found.pooledWidth,
      guidance_embeds: found.guidance,
      ...(axes ? { axes_dims_rope: axes } : {}),
    },
  };
}

/** @param shapes of all tensors, by diffusers' names */
export function inferFlux2(shapes: Shapes, where: string): Inferred {
  const found = inferFlux2Config(shapes);
  if (!found || !countable(found, shapes)) throw unreadable(where);
  return {
    sizes: { family: "flux2", pooledWidth: 0, ...sizesOf(found) },
    config: {
      _class_name: "Flux2Transformer2DModel",
      patch_size: 1,
      in_channels: found.inChannels,
      out_channels: found.outChannels,
      num_layers: found.doubleBlocks,
      num_single_layers: found.singleBlocks,
      attention_head_dim: found.headSize,
      num_attention_heads: found.heads,
      joint_attention_dim: found.jointWidth,
      mlp_ratio: found.mlpRatio,
      axes_dims_rope: found.ropeAxes,
      rope_theta: found.ropeTheta,
      eps: found.eps,
      guidance_embeds: found.guidance,
    },
  };
}

type Sizes = Omit<TransformerSizes, "family" | "pooledWidth">;

function sizesOf(config: FluxConfig | Flux2Config): Sizes {
  const { doubleBlocks, singleBlocks, heads, headSize, inChannels, outChannels, jointWidth, guidance } = config;
  return { doubleBlocks, singleBlocks, heads, headSize, inChannels, outChannels, jointWidth, guidance };
}

/** Groups of every public autoencoder's norms; shapes do not show them. */
const GROUPS = 32;

/**
 * FLUX.1's autoencoder, or FLUX.2's with its 32 channels and running statistics. Stable Diffusion 3's has FLUX.1's shapes
 * with other scalings; only its config.json tells.
 * @param shapes of all tensors, by diffusers' names
 */
export function inferAutoencoder(shapes: Shapes, where: string): Inferred {
  const latent = shapes.get("decoder.conv_in.weight")?.[1] ?? 0;
  const second = shapes.has("bn.running_mean");
  if (latent !== (second ? 32 : 16)) {
    throw new LongtailError("E-FILE-121", {
      what: `this is an autoencoder of ${latent} latent channels`,
      where,
      why: "FLUX.1's has 16; those of Stable Diffusion and SDXL have 4",
      fix: "use the autoencoder that belongs to the transformer, or give the folder with its config.json",
    });
  }
  const levels = count(shapes, /^decoder\.up_blocks\.(\d+)\./);
  if (levels > shapes.size) throw incomplete(where, `its decoder has ${levels} stages by name`);
  const widths = Array.from({ length: levels }, (_, level) => {
    const last = shapes.get(`decoder.up_blocks.${levels - 1 - level}.resnets.0.conv1.weight`);
    if (!last) throw incomplete(where, `stage ${levels - 1 - level} of the decoder is missing`);
    return last[0]!;
  });
  return {
    sizes: null,
    config: {
      _class_name: second ? "AutoencoderKLFlux2" : "AutoencoderKL",
      in_channels: 3,
      out_channels: 3,
      block_out_channels: widths,
      layers_per_block: count(shapes, /^decoder\.up_blocks\.0\.resnets\.(\d+)\./) - 1,
      latent_channels: latent,
      act_fn: "silu",
      mid_block_add_attention: shapes.has("decoder.mid_block.attentions.0.to_q.weight"),
      use_quant_conv: shapes.has("quant_conv.weight"),
      use_post_quant_conv: shapes.has("post_quant_conv.weight"),
      sample_size: 1024,
      ...(widths.every((width) => width % GROUPS === 0) ? { norm_num_groups: GROUPS } : {}),
      ...(second ? { batch_norm_eps: 1e-4 } : { scaling_factor: 0.3611, shift_factor: 0.1159 }),
    },
  };
}

/** One more than the largest number that the group of `pattern` takes. */
function count(shapes: Shapes, pattern: RegExp): number {
  let found = 0;
  for (const name of shapes.keys()) {
    const number = pattern.exec(name)?.[1];
    if (number !== undefined) found = Math.max(found, 1 + Number(number));
  }
  return found;
}

/** The field that must come from a config.json because tensors do not show it, or null. */
export function unknownField(config: Json): string | null {
  const key = String(config["_class_name"]).startsWith("Autoencoder") ? "norm_num_groups" : "axes_dims_rope";
  return config[key] === undefined ? key : null;
}

/** Fields that both a configuration and tensors show. A field that is not written has its class' default. */
const COMPARED = [
  "in_channels",
  "out_channels",
  "num_layers",
  "num_single_layers",
  "attention_head_dim",
  "num_attention_heads",
  "joint_attention_dim",
  "pooled_projection_dim",
  "guidance_embeds",
  "block_out_channels",
  "layers_per_block",
  "latent_channels",
];

/** The first field in which a written configuration and the tensors differ, or null. */
export function contradiction(written: Json, inferred: Json): { key: string; written: unknown; shown: unknown } | null {
  for (const key of COMPARED) {
    const [a, b] = [written[key], inferred[key]];
    if (a === undefined || a === null || b === undefined) continue;
    if (JSON.stringify(a) !== JSON.stringify(b)) return { key, written: a, shown: b };
  }
  return null;
}
