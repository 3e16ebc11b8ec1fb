// Checkpoints in Black Forest Labs' layout for tests, made from dumps in diffusers' layout.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { fluxOriginalMap } from "../../src/models/flux/bfl_keys.ts";
import {
  mappedSource,
  safetensorsSource,
  shapesOf,
  type TensorMap,
  tensorsToWrite,
  wholeTensor,
} from "../../src/models/mapped_source.ts";
import { vaeOriginalMap } from "../../src/models/vae/bfl_keys.ts";
import { type MemoryFiles, NodeFiles, OWN_FIXTURES } from "./files.ts";

type Shapes = Map<string, readonly number[]>;

/** Names and shapes of FLUX.1-dev in both layouts. */
export function devShapes(): { diffusers: Shapes; original: Shapes } {
  const stored = JSON.parse(readFileSync(join(OWN_FIXTURES, "flux_keys.json"), "utf8"));
  const expand = (layout: "diffusers" | "original", double: string, single: string): Shapes => {
    const { outer, ...blocks } = stored[layout] as Record<"outer" | "double" | "single", Record<string, number[]>>;
    const shapes: Shapes = new Map(Object.entries(outer));
    for (const [kind, prefix] of [["double", double] as const, ["single", single] as const]) {
      for (let i = 0; i < stored.blocks[kind]; i++) {
        for (const [name, shape] of Object.entries(blocks[kind])) shapes.set(`${prefix}.${i}.${name}`, shape);
      }
    }
    return shapes;
  };
  return {
    diffusers: expand("diffusers", "transformer_blocks", "single_transformer_blocks"),
    original: expand("original", "double_blocks", "single_blocks"),
  };
}

export async function dumpSource(subject: string): Promise<RangedSource> {
  return safetensorsSource(await Safetensors.open(new NodeFiles(), join(OWN_FIXTURES, subject, "weights.safetensors")));
}

/** A source under other names: what a file with this prefix holds. */
export function withPrefix(source: RangedSource, prefix: string): RangedSource {
  const map = new Map([...shapesOf(source)].map(([name, shape]) => [prefix + name, wholeTensor(name, shape)]));
  return mappedSource(source, map as TensorMap);
}

/** A dump's tensors in the original layout. */
export async function originalOf(subject: "flux1" | "flux1_small" | "vae_kl"): Promise<RangedSource> {
  const source = await dumpSource(subject);
  const shapes = shapesOf(source);
  return mappedSource(source, subject === "vae_kl" ? vaeOriginalMap(shapes) : fluxOriginalMap(shapes, subject));
}

/** Writes sources into one file of a store in memory. */
export async function writeTogether(files: MemoryFiles, path: string, ...sources: RangedSource[]): Promise<void> {
  await writeSafetensors(files, path, sources.flatMap(tensorsToWrite));
}
