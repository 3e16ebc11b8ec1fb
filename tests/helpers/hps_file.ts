// A small CLIP in HPS's own kind of file: halves in a torch archive under `state_dict`, without a configuration.

import { f32ToF16 } from "../../src/base/halves.ts";
import { noise } from "./gpu.ts";
import { Ordered, Storage, Tensor, torchZip } from "./torch_writer.ts";

const WIDTH = 64;

/** A CLIP of one block a tower as torch.save writes it, every tensor a storage of halves. @param rows of the token table */
export function hpsFile(rows = 600): Uint8Array {
  const entries = new Map<string, Tensor>();
  const storages = new Map<string, Uint8Array>();
  const add = (name: string, shape: number[], scale = 0.1, offset = 0) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from(noise(count, entries.size + 1), (value) => scale * value + offset);
    const key = String(entries.size);
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1));
    entries.set(name, new Tensor(new Storage(key, "HalfStorage", count), 0, shape, strides));
    storages.set(key, new Uint8Array(f32ToF16(values).buffer));
  };
  const norm = (name: string) => {
    add(`${name}.weight`, [WIDTH], 0.1, 1);
    add(`${name}.bias`, [WIDTH]);
  };
  for (const tower of ["visual.transformer", "transformer"]) {
    const block = `${tower}.resblocks.0`;
    norm(`${block}.ln_1`);
    norm(`${block}.ln_2`);
    for (const [name, out, inner] of [
      ["attn.out_proj", WIDTH, WIDTH],
      ["mlp.c_fc", 4 * WIDTH, WIDTH],
      ["mlp.c_proj", WIDTH, 4 * WIDTH],
    ] as const) {
      add(`${block}.${name}.weight`, [out, inner]);
      add(`${block}.${name}.bias`, [out]);
    }
    add(`${block}.attn.in_proj_weight`, [3 * WIDTH, WIDTH]);
    add(`${block}.attn.in_proj_bias`, [3 * WIDTH]);
  }
  for (const name of ["visual.ln_pre", "visual.ln_post", "ln_final"]) norm(name);
  add("visual.conv1.weight", [WIDTH, 3, 8, 8]);
  add("visual.class_embedding", [WIDTH]);
  add("visual.positional_embedding", [5, WIDTH]);
  add("visual.proj", [WIDTH, 32]);
  add("positional_embedding", [77, WIDTH]);
  add("token_embedding.weight", [rows, WIDTH], 1);
  add("text_projection", [WIDTH, 32]);
  add("logit_scale", [], 0, Math.log(100));
  return torchZip(
    new Map<string, Ordered | number>([
      ["epoch", 3],
      ["state_dict", new Ordered(entries)],
    ]),
    storages,
  );
}
