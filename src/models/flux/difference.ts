// A LoRA of the difference between tuned and original weights: every matrix's change is cut to its leading singular
// triples, the best approximation of that rank (Eckart & Young 1936). What is lost is measured and reported, because
// changes of biases and norms, and whatever lies beyond the rank, do not fit into such a file.

import type { TensorSource } from "../../base/tensor_source.ts";
import type { LoraLayer } from "../../formats/lora.ts";
import { energyOf, truncatedSvd } from "./svd.ts";

export interface LayerEnergy {
  /** ‖Δ‖² of the layer's weight. */
  total: number;
  /** Sum of the squares of the singular values that were kept. */
  kept: number;
}

export interface DifferenceLora {
  /** By module path; up and down both carry √σ, scale 1. All have the same rank, with zeros where a matrix has less. */
  layers: Map<string, LoraLayer>;
  energy: {
    /** Kept share of ‖Δ‖² over the matrices, 0 … 1; 1 where nothing changed. */
    kept: number;
    /** Share of ‖Δ‖² over all tensors that lies in biases, norms and other vectors, which a LoRA cannot hold. */
    unstorable: number;
    /** ‖Δ‖² over all tensors, and over the matrices alone. */
    total: number;
    matrices: number;
    layers: Map<string, LayerEnergy>;
  };
}

export interface DifferenceOptions {
  /** Rank of every layer. */
  rank: number;
  /** Weights in matrix form that belong to no Linear layer are left out; by default every `<module>.weight` counts. */
  modules?: Iterable<string>;
  /** Called after every matrix. */
  onLayer?: (done: number, total: number, module: string) => void;
}

const SUFFIX = ".weight";

/**
 * Makes a LoRA of `tuned` − `original`. Everything is computed in double precision from fixed random starts: the same
 * weights give the same bits.
 * @param original, tuned sources with the same tensors; throws a plain Error where they differ in names or shapes
 */
export async function differenceLora(
  original: TensorSource,
  tuned: TensorSource,
  options: DifferenceOptions,
): Promise<DifferenceLora> {
  const { rank } = options;
  if (!Number.isInteger(rank) || rank < 1) throw new RangeError(`rank ${rank} is not a whole number above 0`);
  const names = [...original.names()];
  const wanted = options.modules ? new Set(options.modules) : null;
  const isLayer = (name: string) =>
    name.endsWith(SUFFIX) &&
    original.shape(name).length === 2 &&
    (!wanted || wanted.has(name.slice(0, -SUFFIX.length)));
  const count = names.filter(isLayer).length;
  const layers = new Map<string, LoraLayer>();
  const energies = new Map<string, LayerEnergy>();
  let total = 0;
  let matrices = 0;
  let kept = 0;
  for (const name of names) {
    const shape = original.shape(name);
    if (!tuned.has(name) || tuned.shape(name).join() !== shape.join()) {
      throw new Error(`${name}: ${tuned.name} does not have it in the shape [${shape.join(", ")}] of ${original.name}`);
    }
    const [before, after] = [await original.load(name), await tuned.load(name)];
    const delta = new Float64Array(before.length);
    for (let i = 0; i < delta.length; i++) delta[i] = after[i]! - before[i]!;
    const energy = energyOf(delta);
    total += energy;
    if (!isLayer(name)) continue;
    matrices += energy;
    const [outputs, inputs] = shape as [number, number];
    const { left, values, right } = truncatedSvd(delta, outputs, inputs, rank, name);
    const up = new Float32Array(outputs * rank);
    const down = new Float32Array(rank * inputs);
    let own = 0;
    for (let k = 0; k < values.length; k++) {
      const root = Math.sqrt(values[k]!);
      own += values[k]! ** 2;
      for (let i = 0; i < outputs; i++) up[i * rank + k] = root * left[i * values.length + k]!;
      for (let j = 0; j < inputs; j++) down[k * inputs + j] = root * right[j * values.length + k]!;
    }
    const module = name.slice(0, -SUFFIX.length);
    layers.set(module, { rank, inputs, outputs, down, up, scale: 1 });
    energies.set(module, { total: energy, kept: Math.min(own, energy) });
    kept += Math.min(own, energy);
    options.onLayer?.(layers.size, count, module);
  }
  return {
    layers,
    energy: {
      kept: matrices > 0 ? kept / matrices : 1,
      unstorable: total > 0 ? (total - matrices) / total : 0,
      total,
      matrices,
      layers: energies,
    },
  };
}
