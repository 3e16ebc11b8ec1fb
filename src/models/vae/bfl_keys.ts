// AutoencoderKL in the original layout (`ae.safetensors` of FLUX.1, and the file of the same kind of FLUX.2) and in
// diffusers' names. The decoder's stages are counted from the other end, and the projections of the attention are 1 × 1
// convolutions there and matrices here.

import { type MappedTensor, wholeTensor } from "../mapped_source.ts";

type Shapes = ReadonlyMap<string, readonly number[]>;

/** Names inside a half, original -> diffusers, where only words differ. */
const WORDS: readonly (readonly [string, string])[] = [
  ["mid.block_1.", "mid_block.resnets.0."],
  ["mid.block_2.", "mid_block.resnets.1."],
  ["mid.attn_1.norm.", "mid_block.attentions.0.group_norm."],
  ["mid.attn_1.q.", "mid_block.attentions.0.to_q."],
  ["mid.attn_1.k.", "mid_block.attentions.0.to_k."],
  ["mid.attn_1.v.", "mid_block.attentions.0.to_v."],
  ["mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."],
  ["norm_out.", "conv_norm_out."],
];

/** FLUX.2's convolutions between moments and latents lie inside the halves in one layout and beside them in the other. */
const QUANTISERS: readonly (readonly [string, string])[] = [
  ["encoder.quant_conv.", "quant_conv."],
  ["decoder.post_quant_conv.", "post_quant_conv."],
];

/** Weights that are [C, C, 1, 1] in one layout and [C, C] in the other. */
const PROJECTION = /^(?:encoder|decoder)\.mid_block\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight$/;

/** diffusers' tensors as those of a file in the original layout, given by its bare names; unknown names stay as they are. */
export function vaeDiffusersMap(shapes: Shapes): Map<string, MappedTensor> {
  const levels = 1 + Math.max(-1, ...numbersAfter(shapes, "decoder.up."));
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapes) {
    const target = diffusersName(name, levels);
    const matrix = PROJECTION.test(target) && shape.length === 4;
    map.set(target, wholeTensor(name, shape, matrix ? shape.slice(0, 2) : shape));
  }
  return map;
}

/** The original layout's tensors as those of diffusers. */
export function vaeOriginalMap(shapes: Shapes): Map<string, MappedTensor> {
  const levels = 1 + Math.max(-1, ...numbersAfter(shapes, "decoder.up_blocks."));
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapes) {
    const convolution = PROJECTION.test(name) && shape.length === 2;
    map.set(originalName(name, levels), wholeTensor(name, shape, convolution ? [...shape, 1, 1] : shape));
  }
  return map;
}

function numbersAfter(shapes: Shapes, prefix: string): number[] {
  return [...shapes.keys()].flatMap((name) =>
    name.startsWith(prefix) ? [Number.parseInt(name.slice(prefix.length), 10)] : [],
  );
}

function diffusersName(name: string, levels: number): string {
  for (const [original, diffusers] of QUANTISERS)
    if (name.startsWith(original)) return name.replace(original, diffusers);
  const half = /^(encoder|decoder)\.(.+)$/.exec(name);
  if (!half) return name;
  const [, side, inner] = half as unknown as [string, string, string];
  const stage = /^(down|up)\.(\d+)\.(?:block\.(\d+)\.(.+)|(downsample|upsample)\.conv\.(.+))$/.exec(inner);
  if (stage) {
    const [, way, level, block, leaf, change, last] = stage;
    const index = way === "up" ? levels - 1 - Number(level) : Number(level);
    const place = `${side}.${way}_blocks.${index}`;
    return change
      ? `${place}.${change}rs.0.conv.${last}`
      : `${place}.resnets.${block}.${leaf!.replace(/^nin_shortcut\./, "conv_shortcut.")}`;
  }
  for (const [original, diffusers] of WORDS) {
    if (inner.startsWith(original)) return `${side}.${diffusers}${inner.slice(original.length)}`;
  }
  return name;
}

function originalName(name: string, levels: number): string {
  for (const [original, diffusers] of QUANTISERS)
    if (name.startsWith(diffusers)) return name.replace(diffusers, original);
  const half = /^(encoder|decoder)\.(.+)$/.exec(name);
  if (!half) return name;
  const [, side, inner] = half as unknown as [string, string, string];
  const stage = /^(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)\.(.+)|(downsample|upsample)rs\.0\.conv\.(.+))$/.exec(
    inner,
  );
  if (stage) {
    const [, way, level, block, leaf, change, last] = stage;
    const index = way === "up" ? levels - 1 - Number(level) : Number(level);
    const place = `${side}.${way}.${index}`;
    return change
      ? `${place}.${change}.conv.${last}`
      : `${place}.block.${block}.${leaf!.replace(/^conv_shortcut\./, "nin_shortcut.")}`;
  }
  for (const [original, diffusers] of WORDS) {
    if (inner.startsWith(diffusers)) return `${side}.${original}${inner.slice(diffusers.length)}`;
  }
  return name;
}
