// Weights files of real size that take no space: headers are written, the data is a hole of the file system. Two public
// models are copied in names and shapes: the ViT-H/14 of HPSv2.1 as a .pt file and FLUX.1 as sharded safetensors.

import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Crc32 } from "../../src/formats/crc32.ts";
import { layoutZip, Ordered, pickleOf, Storage, Tensor, torchParts } from "../../tests/helpers/torch_writer.ts";

export type Shapes = [name: string, shape: number[]][];

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
/** Blocks of a model whose depth is scaled. */
const blocks = (depth: number, scale: number) =>
  Array.from({ length: Math.max(1, Math.round(depth * scale)) }, (_, i) => i);

/** CLIP ViT-H/14 in the layout of open_clip. */
export function clipShapes(scale: number): Shapes {
  const shapes: Shapes = [
    ["logit_scale", []],
    ["positional_embedding", [77, 1024]],
    ["text_projection", [1024, 1024]],
    ["visual.class_embedding", [1280]],
    ["visual.positional_embedding", [257, 1280]],
    ["visual.proj", [1280, 1024]],
    ["visual.conv1.weight", [1280, 3, 14, 14]],
    ["token_embedding.weight", [49_408, 1024]],
  ];
  for (const [prefix, depth, width] of [
    ["visual.transformer", 32, 1280],
    ["transformer", 24, 1024],
  ] as const)
    for (const i of blocks(depth, scale)) {
      const block = `${prefix}.resblocks.${i}`;
      for (const norm of ["ln_1", "ln_2"])
        shapes.push([`${block}.${norm}.weight`, [width]], [`${block}.${norm}.bias`, [width]]);
      shapes.push([`${block}.attn.in_proj_weight`, [3 * width, width]], [`${block}.attn.in_proj_bias`, [3 * width]]);
      for (const [layer, out, into] of [
        ["attn.out_proj", width, width],
        ["mlp.c_fc", 4 * width, width],
        ["mlp.c_proj", width, 4 * width],
      ] as const)
        shapes.push([`${block}.${layer}.weight`, [out, into]], [`${block}.${layer}.bias`, [out]]);
    }
  return shapes;
}

/** The transformer of FLUX.1 in the layout of diffusers. */
export function fluxShapes(scale: number): Shapes {
  const D = 3072;
  const shapes: Shapes = [];
  const layer = (name: string, out: number, into: number) =>
    shapes.push([`${name}.weight`, [out, into]], [`${name}.bias`, [out]]);
  layer("x_embedder", D, 64);
  layer("context_embedder", D, 4096);
  for (const i of blocks(19, scale)) {
    const block = `transformer_blocks.${i}`;
    for (const name of ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"])
      layer(`${block}.attn.${name}`, D, D);
    for (const name of ["norm_q", "norm_k", "norm_added_q", "norm_added_k"])
      shapes.push([`${block}.attn.${name}.weight`, [128]]);
    for (const name of ["ff", "ff_context"]) {
      layer(`${block}.${name}.net.0.proj`, 4 * D, D);
      layer(`${block}.${name}.net.2`, D, 4 * D);
    }
    for (const name of ["norm1", "norm1_context"]) layer(`${block}.${name}.linear`, 6 * D, D);
  }
  for (const i of blocks(38, scale)) {
    const block = `single_transformer_blocks.${i}`;
    for (const name of ["to_q", "to_k", "to_v"]) layer(`${block}.attn.${name}`, D, D);
    for (const name of ["norm_q", "norm_k"]) shapes.push([`${block}.attn.${name}.weight`, [128]]);
    layer(`${block}.proj_mlp`, 4 * D, D);
    layer(`${block}.proj_out`, D, 5 * D);
    layer(`${block}.norm.linear`, 3 * D, D);
  }
  layer("norm_out.linear", 2 * D, D);
  layer("proj_out", 64, D);
  return shapes;
}

async function writeSparse(
  path: string,
  size: number,
  pieces: readonly (readonly [number, Uint8Array])[],
): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.truncate(size);
    for (const [at, bytes] of pieces) await file.write(bytes, 0, bytes.length, at);
  } finally {
    await file.close();
  }
}

/** Checksum of `length` zero bytes. */
function zeroSum(length: number): number {
  const sum = new Crc32();
  const piece = new Uint8Array(1024 * 1024);
  for (let left = length; left > 0; left -= piece.length)
    sum.add(left < piece.length ? piece.subarray(0, left) : piece);
  return sum.value;
}

/** Writes a .pt file with a float16 `state_dict`; returns its path. */
export async function writeSparseTorch(folder: string, shapes: Shapes): Promise<string> {
  const path = join(folder, "HPS_v2.1.pt");
  const sums = new Map<number, number>();
  const tensors = new Map<string, Tensor>();
  const storages: [string, number][] = [];
  for (const [i, [name, shape]] of shapes.entries()) {
    const strides = shape.map((_, d) => count(shape.slice(d + 1)));
    tensors.set(name, new Tensor(new Storage(String(i), "HalfStorage", count(shape)), 0, shape, strides));
    storages.push([String(i), 2 * count(shape)]);
  }
  const value = new Map([["state_dict", new Ordered(tensors)]]);
  const parts = torchParts(pickleOf(value), storages, "HPS_v2.1").map((part) => {
    if (typeof part.content !== "number") return part;
    const size = part.content;
    if (!sums.has(size)) sums.set(size, zeroSum(size));
    return { ...part, crc: sums.get(size)! };
  });
  const { size, pieces } = layoutZip(parts);
  await writeSparse(path, size, pieces);
  return path;
}

/** Writes bfloat16 shards of at most `shardBytes` with their index; returns the name that they share. */
export async function writeSparseShards(folder: string, shapes: Shapes, shardBytes: number): Promise<string> {
  await mkdir(folder, { recursive: true });
  const shards: Shapes[] = [[]];
  let filled = 0;
  for (const [name, shape] of shapes) {
    const bytes = 2 * count(shape);
    if (filled + bytes > shardBytes && shards.at(-1)!.length > 0) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push([name, shape]);
    filled += bytes;
  }
  const base = join(folder, "diffusion_pytorch_model");
  const map: Record<string, string> = {};
  for (const [i, shard] of shards.entries()) {
    const number = (n: number) => String(n).padStart(5, "0");
    const name = `diffusion_pytorch_model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    let at = 0;
    const header: Record<string, unknown> = {};
    for (const [tensor, shape] of shard) {
      header[tensor] = { dtype: "BF16", shape, data_offsets: [at, at + 2 * count(shape)] };
      at += 2 * count(shape);
      map[tensor] = name;
    }
    const text = JSON.stringify(header);
    const bytes = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(bytes.length), true);
    await writeSparse(join(folder, name), 8 + bytes.length + at, [
      [0, length],
      [8, bytes],
    ]);
  }
  await writeFile(`${base}.safetensors.index.json`, JSON.stringify({ weight_map: map }));
  return `${base}.safetensors`;
}
