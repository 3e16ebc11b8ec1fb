// A safetensors file or sharded set as the source that models load from.

import type { FileStore } from "../base/files.ts";
import type { RangedSource, TensorSource } from "../base/tensor_source.ts";
import { parseJson } from "../formats/jsonl.ts";
import type { Safetensors } from "../formats/safetensors.ts";
import type { Parameters } from "../nn/parameters.ts";

/** A tree of declared parameters and the open source that its values come from. */
export interface WeightsPart {
  parameters: Parameters;
  source: RangedSource;
  /** Name in the source of a declared name; identity where absent. */
  rename?: (name: string) => string;
}

export function tensorSource(file: Safetensors): TensorSource {
  return {
    name: file.path,
    names: () => file.names(),
    has: (name) => file.has(name),
    shape: (name) => file.info(name).shape,
    load: (name) => file.readF32(name),
  };
}

export async function readJson(files: FileStore, path: string): Promise<Record<string, unknown>> {
  return parseJson(await files.readText(path), path) as Record<string, unknown>;
}
