// Weights that are a hash of their names (generated_weights.ts) as a source that models load from.

import { memorySource, type TensorSource } from "../../src/base/tensor_source.ts";
import { generated } from "./generated_weights.ts";

/** @param shapes of the tensors by name, as a dump's config.json lists them */
export function generatedSource(part: string, shapes: Readonly<Record<string, number[]>>): TensorSource {
  const tensors = Object.entries(shapes).map(
    ([name, shape]) => [name, { shape, data: generated(`${part}/${name}`, shape) }] as const,
  );
  return memorySource(part, new Map(tensors));
}
