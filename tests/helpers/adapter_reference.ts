// A Linear layer with an adapter in float64, and its gradients. The output is linear in every single number of the adapter
// (DoRA's norm counts as constant), so a difference over ± 1 is the derivative itself and no step size has to be chosen.

import { isLokr, type KroneckerFactor, type LokrLayer, type LoraLayer } from "../../src/formats/adapter_layers.ts";
import { deltaWeight } from "./merged_weight.ts";

export interface ReferenceInputs {
  layer: LoraLayer | LokrLayer;
  /** [out, in] */
  weight: Float64Array;
  /** [out], or null. */
  bias: Float64Array | null;
  /** [rows, in] */
  x: Float64Array;
  /** What dropout multiplies the elements of x with. */
  mask: Float64Array;
  strength: number;
}

/** The arrays of a layer in the order in which an adapter declares its variables. */
export function arraysOf(layer: LoraLayer | LokrLayer): Float64Array[] {
  const factor = (f: KroneckerFactor) => ("whole" in f ? [f.whole] : [f.left, f.right]);
  const arrays = isLokr(layer)
    ? [...factor(layer.first), ...factor(layer.second)]
    : [layer.down, layer.up, ...(layer.magnitude ? [layer.magnitude] : [])];
  return arrays as unknown as Float64Array[];
}

/** A copy of the layer whose arrays are float64. */
export function widen<T extends LoraLayer | LokrLayer>(layer: T): T {
  const wide = (value: unknown): unknown => {
    if (value instanceof Float32Array) return Float64Array.from(value);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, wide(inner)]));
  };
  return wide(layer) as T;
}

/** Rows of x times the transpose of a matrix [out, in]. */
function product(x: Float64Array, matrix: ArrayLike<number>, inputs: number): Float64Array {
  const [rows, outputs] = [x.length / inputs, matrix.length / inputs];
  const y = new Float64Array(rows * outputs);
  for (let r = 0; r < rows; r++) {
    for (let o = 0; o < outputs; o++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x[r * inputs + i]! * matrix[o * inputs + i]!;
      y[r * outputs + o] = sum;
    }
  }
  return y;
}

/** ‖W + ΔW‖ of every row. */
export function rowNorms({ layer, weight }: ReferenceInputs): Float64Array {
  const delta = deltaWeight(layer);
  return Float64Array.from({ length: layer.outputs }, (_, o) => {
    let squares = 0;
    for (let i = o * layer.inputs; i < (o + 1) * layer.inputs; i++) squares += (weight[i]! + delta[i]!) ** 2;
    return Math.sqrt(squares);
  });
}

/** The output [rows, out]; `norms` are DoRA's. */
export function forward64(given: ReferenceInputs, norms: Float64Array): Float64Array {
  const { layer, weight, bias, x, mask, strength } = given;
  const { inputs, outputs } = layer;
  const thin = x.map((value, i) => value * mask[i]!);
  const y = product(x, weight, inputs);
  const update = product(thin, deltaWeight(layer), inputs);
  const base = product(thin, weight, inputs);
  const magnitude = isLokr(layer) ? undefined : layer.magnitude;
  return y.map((value, i) => {
    const o = i % outputs;
    const change = magnitude ? (magnitude[o]! / norms[o]!) * (base[i]! + update[i]!) - base[i]! : update[i]!;
    return value + (bias?.[o] ?? 0) + strength * change;
  });
}

/** Gradients of sum(seed · y) with respect to every array of the layer, and to x where it is asked for. */
export function gradients64(given: ReferenceInputs, seed: ArrayLike<number>, ofInput = true): Float64Array[] {
  const norms = rowNorms(given);
  const loss = () => forward64(given, norms).reduce((sum, value, i) => sum + value * seed[i]!, 0);
  return [...arraysOf(given.layer), ...(ofInput ? [given.x] : [])].map((array) =>
    Float64Array.from(array, (value, i) => {
      array[i] = value + 1;
      const above = loss();
      array[i] = value - 1;
      const below = loss();
      array[i] = value;
      return (above - below) / 2;
    }),
  );
}
