// Classifier-free guidance (Ho & Salimans 2022): models that take no guidance scale as an input are asked twice, with the prompt
// and with an empty one, and the difference is extended. FLUX.2 klein's base models are drawn so; its distilled ones are not.

import { add, affine, sub } from "../ops/pointwise.ts";
import type { Tensor } from "../tensor/graph.ts";

/** empty + scale * (prompted - empty), all [B, L, C]; a scale of 1 gives the prompted velocity. */
export function guidedVelocity(prompted: Tensor, empty: Tensor, scale: number): Tensor {
  return add(empty, affine(sub(prompted, empty), scale, 0));
}
