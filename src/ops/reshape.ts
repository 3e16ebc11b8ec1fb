// The same memory under another shape: no kernel runs.

import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { elements, resolveShape, type Shape, sameShape } from "../tensor/shape.ts";

export const reshapeOperation: Operation = {
  name: "reshape",
  view: true,
  infer: ([x], attributes) => [
    { shape: resolveShape(elements(x!.shape), attributes["shape"] as Shape), dtype: x!.dtype },
  ],
  lower() {},
  gradient: (node, [dy]) => [reshape(dy!, node.inputs[0]!.shape)],
};

/** `shape` may hold one -1. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const target = resolveShape(elements(x.shape), shape);
  return sameShape(x.shape, target) ? x : apply1(reshapeOperation, [x], { shape: target });
}
