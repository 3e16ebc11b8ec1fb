// Matrices that a checkpoint stores in eight bits. Plain casts to float8 are read as they are; "scaled fp8" files (ComfyUI)
// keep a factor beside each matrix, `<module>.scale_weight` or `.weight_scale`, that its values are multiplied with.
// Whatever needs a decoder of its own is refused by name, because read as plain numbers it would be noise.

import { LongtailError } from "../base/errors.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { elementCount } from "../formats/safetensors.ts";
import { bytesOf, mappedSource, shapesOf, wholeTensor } from "./mapped_source.ts";

/** Factors of a matrix, and what accompanies them without changing a weight: factors of activations, markers. */
const FACTOR = /\.(?:scale_weight|weight_scale)$/;
const SILENT = /(?:^|\.)(?:scale_input|input_scale|scaled_fp8|comfy_quant)$/;

/** Names that only files of other quantisations have. */
const FOREIGN: readonly (readonly [RegExp, string])[] = [
  [/\.quant_state\.bitsandbytes__(\w+)$|\.(?:nested_)?(?:absmax|quant_map)$/, "bitsandbytes' 4-bit codes"],
  [/\.(?:SCB|weight_format)$/, "bitsandbytes' 8-bit codes"],
  [/\.weight_scale_2$/, "NVIDIA's 4-bit codes (NVFP4)"],
  [/\.(?:qweight|qzeros|wscales|smooth_factor)$/, "packed integers (GPTQ, AWQ or SVDQuant)"],
  [/\._(?:data|scale|shift)$/, "quanto's codes"],
];

const FLOATS = new Set(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"]);

/**
 * `source` with the factors multiplied in and without their tensors.
 * @throws LongtailError E-FILE-122 where weights are stored in codes that are not read here
 */
export function scaledSource(source: RangedSource): RangedSource {
  const shapes = shapesOf(source);
  const refuse = (kind: string, name: string): never => {
    throw new LongtailError("E-FILE-122", {
      what: `the weights are stored as ${kind}`,
      where: `${source.name}, ${name}`,
      why: "read are f32, f16, bf16 and float8, with one factor a matrix or a row",
      fix: "take the same model in bf16 or fp8; frozen weights can be quantised while they are loaded (model.storage)",
    });
  };
  for (const name of shapes.keys()) {
    for (const [pattern, kind] of FOREIGN) if (pattern.test(name)) refuse(kind, name);
  }
  const factors = new Map<string, { tensor: string; rowSize: number }>();
  for (const [tensor, shape] of shapes) {
    if (!FACTOR.test(tensor)) continue;
    const weight = tensor.replace(FACTOR, ".weight");
    const matrix = shapes.get(weight);
    if (!matrix) continue;
    const count = elementCount(shape);
    if (count !== 1 && count !== matrix[0]) refuse(`blocks with factors of shape [${shape.join(", ")}]`, weight);
    factors.set(weight, { tensor, rowSize: elementCount(matrix) / count });
  }
  const kept = [...shapes].filter(([name]) => !FACTOR.test(name) && !SILENT.test(name));
  for (const [name] of kept) {
    if (name.endsWith(".weight") && !FLOATS.has(source.dtype(name)))
      refuse(`numbers of type ${source.dtype(name)}`, name);
  }
  if (factors.size === 0 && kept.length === shapes.size) return source;

  const plain = mappedSource(source, new Map(kept.map(([name, shape]) => [name, wholeTensor(name, shape)])));
  const loadRange = async (name: string, first: number, count?: number): Promise<Float32Array> => {
    const values = await plain.loadRange(name, first, count);
    const factor = factors.get(name);
    if (!factor) return values;
    const scales = await source.load(factor.tensor);
    for (let i = 0; i < values.length; i++) values[i]! *= scales[Math.floor((first + i) / factor.rowSize)]!;
    return values;
  };
  return {
    ...plain,
    dtype: (name) => (factors.has(name) ? "F32" : plain.dtype(name)),
    load: (name) => loadRange(name, 0),
    loadRange,
    loadBytes: async (name, first, count) =>
      factors.has(name) ? bytesOf(await loadRange(name, first, count)) : plain.loadBytes(name, first, count),
  };
}
