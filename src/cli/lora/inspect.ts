// What an adapter file is: style, kind, its layers with rank, alpha and size of the change, and what it says about itself.

import type { FileStore } from "../../base/files.ts";
import { isLokr } from "../../formats/adapter_layers.ts";
import { type LoraFile, readAdapter } from "../../formats/lora.ts";
import { tidy } from "../../formats/lora_metadata.ts";
import { type AnyLayer, changeNorm } from "./low_rank.ts";

export interface LayerFacts {
  module: string;
  outputs: number;
  inputs: number;
  /** Of a LoKr, the rank of its factored matrix; null where both are whole. */
  rank: number | null;
  alpha: number | null;
  scale: number;
  /** ‖ΔW‖, Frobenius. */
  norm: number;
}

export interface Inspection {
  path: string;
  style: LoraFile["style"];
  kind: LoraFile["kind"];
  dtype: string;
  bytes: number;
  parameters: number;
  layers: LayerFacts[];
  metadata: Record<string, string>;
}

/** @throws what reading the file throws; values that are not finite are let through and show as norms that are none */
export async function inspectLora(files: FileStore, path: string): Promise<Inspection> {
  const file = await readAdapter(files, path, { allowNonFinite: true });
  const handle = await files.open(path);
  const bytes = handle.size;
  await handle.close();
  const all: [string, AnyLayer][] = [...file.layers, ...file.lokr];
  return {
    path,
    style: file.style,
    kind: file.kind,
    dtype: file.dtype,
    bytes,
    parameters: all.reduce((sum, [, layer]) => sum + parametersOf(layer), 0),
    layers: all.map(([module, layer]) => factsOf(module, layer)),
    metadata: Object.fromEntries(file.metadata),
  };
}

function factsOf(module: string, layer: AnyLayer): LayerFacts {
  const rank = isLokr(layer)
    ? "rank" in layer.second
      ? layer.second.rank
      : "rank" in layer.first
        ? layer.first.rank
        : null
    : layer.rank;
  const { outputs, inputs, scale } = layer;
  return { module, outputs, inputs, rank, alpha: rank && tidy(scale * rank), scale, norm: changeNorm(layer) };
}

function parametersOf(layer: AnyLayer): number {
  if (!isLokr(layer)) return layer.down.length + layer.up.length + (layer.magnitude?.length ?? 0);
  return [layer.first, layer.second].reduce(
    (sum, factor) => sum + ("whole" in factor ? factor.whole.length : factor.left.length + factor.right.length),
    0,
  );
}
