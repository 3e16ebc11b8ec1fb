// What an adapter makes of a weight, worked out on the host in float64, as a reference that the device's arithmetic and the
// merged weights of other programs are compared with.

import { isLokr, type LokrLayer, type LoraLayer } from "../../src/formats/adapter_layers.ts";
import { wholeFactor } from "../../src/formats/lokr.ts";

/** ΔW [outputs, inputs] of a layer: s · B A, or s · (F ⊗ G); a magnitude is left out, for it is no sum. */
export function deltaWeight(layer: LoraLayer | LokrLayer): Float64Array {
  const delta = new Float64Array(layer.outputs * layer.inputs);
  if (isLokr(layer)) addKronecker(delta, layer);
  else addProduct(delta, layer.up, layer.down, layer, layer.scale);
  return delta;
}

/**
 * The weight that a layer with this adapter acts with: W + ΔW, for DoRA m / ‖W + ΔW‖ · (W + ΔW) row by row. A strength
 * other than 1 lies on the line from W to that weight, as on the device.
 * @param base W [outputs, inputs]
 * @throws Error where `base` has another size than the layer
 */
export function mergedWeight(
  layer: LoraLayer | LokrLayer,
  base: ArrayLike<number>,
  strength = 1,
): Float64Array<ArrayBuffer> {
  const { inputs, outputs } = layer;
  if (base.length !== inputs * outputs) {
    throw new Error(`a weight of ${base.length} elements is not ${outputs} × ${inputs}`);
  }
  const merged = Float64Array.from(base);
  const magnitude = isLokr(layer) ? undefined : layer.magnitude;
  const delta = deltaWeight(layer);
  if (!magnitude) {
    for (let i = 0; i < merged.length; i++) merged[i]! += strength * delta[i]!;
    return merged;
  }
  for (let o = 0; o < outputs; o++) {
    let squares = 0;
    for (let i = o * inputs; i < (o + 1) * inputs; i++) squares += (base[i]! + delta[i]!) ** 2;
    // A row of zeros has no direction and stays zero.
    const factor = squares > 0 ? magnitude[o]! / Math.sqrt(squares) : 0;
    for (let i = o * inputs; i < (o + 1) * inputs; i++) {
      merged[i] = base[i]! + strength * (factor * (base[i]! + delta[i]!) - base[i]!);
    }
  }
  return merged;
}

/** into [rows, columns] += scale · left [rows, rank] · right [rank, columns]. */
function addProduct(
  into: Float64Array,
  left: ArrayLike<number>,
  right: ArrayLike<number>,
  sizes: { rank: number; outputs: number; inputs: number },
  scale: number,
): void {
  const { rank, outputs, inputs } = sizes;
  for (let o = 0; o < outputs; o++) {
    for (let k = 0; k < rank; k++) {
      const factor = scale * left[o * rank + k]!;
      if (factor === 0) continue;
      for (let i = 0; i < inputs; i++) into[o * inputs + i]! += factor * right[k * inputs + i]!;
    }
  }
}

function addKronecker(into: Float64Array, { first, second, inputs, scale }: LokrLayer): void {
  const [f, g] = [wholeFactor(first), wholeFactor(second)];
  for (let o = 0; o < first.rows; o++) {
    for (let i = 0; i < first.columns; i++) {
      const factor = scale * f[o * first.columns + i]!;
      if (factor === 0) continue;
      for (let p = 0; p < second.rows; p++) {
        const at = (o * second.rows + p) * inputs + i * second.columns;
        for (let q = 0; q < second.columns; q++) into[at + q]! += factor * g[p * second.columns + q]!;
      }
    }
  }
}
