// What a checkpoint is, by the names of its tensors: a FLUX transformer or an autoencoder in one of two layouts, under
// whatever prefix, or something else that can be called by its name so that its user learns what they have there.

import { LongtailError } from "../base/errors.ts";

export type CheckpointFamily = "flux1" | "flux2" | "autoencoder";
export type CheckpointLayout = "diffusers" | "original";

export interface Recognised {
  family: CheckpointFamily;
  layout: CheckpointLayout;
  /** What stands before every name of this part; all-in-one files have one for each part. */
  prefix: string;
}

/** Names that say which part lies under a prefix, and in which layout. */
const MARKERS = {
  transformer: [
    ["double_blocks.0.img_attn.qkv.weight", "original"],
    ["transformer_blocks.0.attn.add_q_proj.weight", "diffusers"],
  ],
  autoencoder: [
    ["decoder.mid.block_1.conv1.weight", "original"],
    ["decoder.mid_block.resnets.0.conv1.weight", "diffusers"],
  ],
} as const;

export type CheckpointPart = keyof typeof MARKERS;

/** Models whose tensors resemble FLUX's; asked first. */
const RELATIVES: readonly (readonly [RegExp, string])[] = [
  [/^distilled_guidance_layer\./, "Chroma"],
  [/(?:^|\.)(?:individual_token_refiner|token_refiner)\./, "HunyuanVideo"],
  [/^controlnet_(?:blocks|single_blocks|x_embedder)\b/, "a ControlNet of FLUX.1"],
  [/^pos_embed\.proj\./, "Stable Diffusion 3"],
  [/^txt_norm\.|\.img_mod\.1\./, "Qwen-Image"],
  [/^(?:nerf_blocks|nerf_image_embedder)\b/, "Chroma Radiance"],
  [/^(?:redux_up|redux_down)\./, "FLUX.1 Redux"],
];

const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/[._]lora_(?:A|B|down|up|unet|te)|^lora_(?:unet|te)|\.(?:lokr_|hada_|dora_scale)/, "a LoRA or another adapter"],
  [/^(?:.*\.)?joint_blocks\.\d/, "Stable Diffusion 3"],
  [
    /^(?:.*\.)?(?:input_blocks|middle_block|output_blocks)\.\d|^down_blocks\.\d+\.resnets\.\d+\.time_emb_proj\./,
    "a U-Net of Stable Diffusion",
  ],
  [/^(?:.*\.)?(?:noise_refiner|context_refiner)\.\d/, "Z-Image or Lumina"],
  [/^(?:.*\.)?blocks\.\d+\.self_attn\./, "Wan"],
  [/(?:^|\.)adaln_single\./, "PixArt, Sana or LTX"],
  [/^(?:.*\.)?(?:joint_transformer_blocks|double_layers)\.\d/, "AuraFlow"],
  [/^(?:.*\.)?text_model\.encoder\.layers\.|^(?:.*\.)?resblocks\.0\./, "a CLIP model"],
  [/^(?:.*\.)?encoder\.block\.0\.layer\.0\.SelfAttention\./, "a T5 encoder"],
  [/^(?:model\.)?layers\.0\.self_attn\.q_proj\./, "a language model"],
  [/^(?:encoder\.layers|decoder\.layers|encoder|decoder)\.\d+\.conv\.0\.weight$/, "a tiny autoencoder (TAESD family)"],
];

/**
 * Finds `part` among `names`; without `part` a transformer before an autoencoder.
 * @throws LongtailError E-FILE-120 nothing of the kind is there, E-FILE-121 it is another model, called by name
 */
export function recognise(names: readonly string[], where: string, part?: CheckpointPart): Recognised {
  for (const wanted of part ? [part] : (["transformer", "autoencoder"] as const)) {
    for (const [marker, layout] of MARKERS[wanted]) {
      const prefix = prefixOf(names, marker);
      if (prefix === null) continue;
      if (wanted === "autoencoder") return { family: "autoencoder", layout, prefix };
      const bare = names.flatMap((name) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
      for (const [pattern, title] of RELATIVES) if (bare.some((name) => pattern.test(name))) throw other(where, title);
      const second = bare.some((name) => /^single_stream_modulation\.(?:lin|linear)\.weight$/.test(name));
      if (second) return { family: "flux2", layout, prefix };
      const first =
        layout === "original" ? "vector_in.in_layer.weight" : "time_text_embed.text_embedder.linear_1.weight";
      if (bare.includes(first)) return { family: "flux1", layout, prefix };
    }
  }
  for (const [pattern, title] of [...RELATIVES, ...OTHERS]) {
    if (names.some((name) => pattern.test(name))) throw other(where, title, part);
  }
  throw new LongtailError("E-FILE-120", {
    what: `there is no ${part ?? "FLUX transformer or autoencoder"} in it that is known here`,
    where,
    why:
      names.length === 0
        ? "it holds no tensors"
        : `it has ${names.length} tensors, the first is ${JSON.stringify(names[0])}`,
    fix: "give a FLUX.1 or FLUX.2 transformer, or its autoencoder, in diffusers' or the original layout",
  });
}

/** What stands before `marker` in the shortest name that ends with it as a whole path; null where none does. */
function prefixOf(names: readonly string[], marker: string): string | null {
  let found: string | null = null;
  for (const name of names) {
    if (!name.endsWith(marker)) continue;
    const prefix = name.slice(0, -marker.length);
    if ((prefix === "" || prefix.endsWith(".")) && (found === null || prefix.length < found.length)) found = prefix;
  }
  return found;
}

function other(where: string, title: string, part?: CheckpointPart): LongtailError {
  return new LongtailError("E-FILE-121", {
    what: `this is ${title}${part ? `, not a FLUX ${part}` : ""}`,
    where,
    why: "its tensors have the names of that model",
    fix: "give a FLUX.1 or FLUX.2 transformer, or its autoencoder, in diffusers' or the original layout",
  });
}
