// Small adapters with whole numbers in them, and files made of tensors alone, for tests of the styles of adapter files.

import type { LongtailError } from "../../src/base/errors.ts";
import type { LoraLayer } from "../../src/formats/lora.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { MemoryFiles } from "./files.ts";

export type Tensors = Record<string, [number[], ArrayLike<number>]>;

export async function fileOf(tensors: Tensors, metadata?: Record<string, string>): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  const list = Object.entries(tensors).map(([name, [shape, values]]) => ({
    name,
    shape,
    dtype: "F32" as const,
    data: Float32Array.from(values),
  }));
  await writeSafetensors(files, "x", list, { metadata });
  return files;
}

export const failure = (promise: Promise<unknown>): Promise<LongtailError> =>
  promise.then(
    () => {
      throw new Error("nothing was thrown");
    },
    (error) => error,
  );

export const count = (n: number, from = 1) => Float32Array.from({ length: n }, (_, i) => from + i);

export const layer = (rank: number, outputs: number, inputs: number, alpha: number, from = 1): LoraLayer => ({
  rank,
  inputs,
  outputs,
  down: count(rank * inputs, from),
  up: count(outputs * rank, from + 100),
  scale: alpha / rank,
});

export const dora = (plain: LoraLayer): LoraLayer => ({ ...plain, magnitude: count(plain.outputs, 7) });

/** scale · up · down, row-major. */
export function change({ rank, inputs, outputs, down, up, scale }: LoraLayer): number[] {
  const out: number[] = [];
  for (let i = 0; i < outputs; i++) {
    for (let j = 0; j < inputs; j++) {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += up[i * rank + k]! * down[k * inputs + j]!;
      out.push(scale * sum);
    }
  }
  return out;
}

/** Every layer of a model of width 4 that a single and a double block have, with ranks and alphas of their own. */
export function blocks(): Map<string, LoraLayer> {
  const layers = new Map<string, LoraLayer>();
  for (const [i, name] of ["attn.to_q", "attn.to_k", "attn.to_v"].entries()) {
    layers.set(`transformer_blocks.0.${name}`, layer(2, 4, 4, 3, i));
    layers.set(`single_transformer_blocks.1.${name}`, layer(2, 4, 4, 3, 2 * i));
  }
  layers.set("single_transformer_blocks.1.proj_mlp", layer(2, 16, 4, 3, 9));
  layers.set("transformer_blocks.0.attn.to_out.0", layer(3, 4, 4, 1));
  layers.set("norm_out.linear", layer(1, 8, 4, 1));
  layers.set("proj_out", layer(1, 5, 4, 2));
  return layers;
}
