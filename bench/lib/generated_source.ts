// Weights of a convolutional model from a counter, as a source of f32 tensors: normals scaled by the square root of the inputs
// of a value, so that magnitudes stay as they are through many layers; weights of norms are 1, biases 0.

import { RandomStream } from "../../src/base/random.ts";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import { elements } from "../../src/tensor/shape.ts";

/** Distinct numbers; a larger tensor repeats them. */
const DISTINCT = 2 ** 20;

export function generatedSource(
  shapes: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  seed: number,
): TensorSource {
  const numbers = new RandomStream(seed, "generated").normals(0, DISTINCT);
  const shape = (name: string) => shapes.get(name)!.shape;
  return {
    name: "generated weights",
    names: () => shapes.keys(),
    has: (name) => shapes.has(name),
    shape,
    load(name) {
      const own = shape(name);
      const values = new Float32Array(elements(own));
      if (own.length === 1) return Promise.resolve(values.fill(name.endsWith(".weight") ? 1 : 0));
      const scale = 1 / Math.sqrt(elements(own.slice(1)));
      for (let i = 0; i < values.length; i++) values[i] = numbers[i % DISTINCT]! * scale;
      return Promise.resolve(values);
    },
  };
}
