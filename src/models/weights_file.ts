// A safetensors file or sharded set as the source that models load from.

import type { FileStore } from "../base/files.ts";
import type { TensorSource } from "../base/tensor_source.ts";
import { parseJson } from "../formats/jsonl.ts";
import type { Safetensors } from "../formats/safetensors.ts";

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
