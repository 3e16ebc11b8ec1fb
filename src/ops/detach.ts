// The same value without a gradient: what is computed from it counts as constant in the backward pass.

import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";

const detachOperation: Operation = {
  name: "detach",
  view: true,
  infer: ([x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  lower() {},
};

/** `x` as a constant; no kernel runs. */
export function detach(x: Tensor): Tensor {
  if (!x.needsGradient) return x;
  const y = apply1(detachOperation, [x]);
  y.needsGradient = false;
  return y;
}
