// Picks one row per batch element at a place that is data: the end-of-text token of CLIP's text tower.

import gatherSource from "../../shaders/gather_rows.wgsl" with { type: "text" };
import { apply1, type Node, type Operation, type Tensor } from "../tensor/graph.ts";
import { grid1d, type Lowering } from "../tensor/lower.ts";
import { showShape } from "../tensor/shape.ts";

function lower(lowering: Lowering, node: Node, length: number, backward: boolean): void {
  const out = node.outputs[0]!;
  const grid = grid1d(out.size, 256, lowering.target);
  lowering.call({
    label: backward ? "gather rows gradient" : "gather rows",
    source: gatherSource,
    constants: { X: node.inputs[0]!.dtype, BACKWARD: backward },
    inputs: node.inputs.map((t) => lowering.slot(t)),
    outputs: [lowering.slot(out)],
    params: [out.size, length, out.dim(-1), grid[0]],
    grid,
  });
}

const gatherOperation: Operation = {
  name: "gather rows",
  infer([x, index]) {
    if (x!.shape.length !== 3) throw new Error(`x ${showShape(x!.shape)} must be [B, L, D]`);
    const [batch, , width] = x!.shape as [number, number, number];
    if (index!.dtype !== "u32" || index!.shape.length !== 1 || index!.shape[0] !== batch) {
      throw new Error(`the index is ${index!.dtype}${showShape(index!.shape)}, not u32[${batch}]`);
    }
    return [{ shape: [batch, width], dtype: "f32" }];
  },
  lower: (lowering, node) => lower(lowering, node, node.inputs[0]!.dim(1), false),
  gradient(node, [dy]) {
    const [x, index] = node.inputs as [Tensor, Tensor];
    return [apply1(gatherGradientOperation, [dy!, index], { length: x.dim(1) }), null];
  },
};

/** Inputs dy [B, D] and index [B]; output [B, length, D]. */
const gatherGradientOperation: Operation = {
  name: "gather rows gradient",
  infer: ([dy], attributes) => [
    { shape: [dy!.shape[0]!, attributes["length"] as number, dy!.shape[1]!], dtype: "f32" },
  ],
  lower: (lowering, node) => lower(lowering, node, node.attributes["length"] as number, true),
};

/**
 * x [B, L, D] (f32 or f16) and index [B] (u32) → the rows x[b, index[b]] as [B, D] in f32; an index of L or more gives
 * zeros.
 * @throws Error where x has no three dimensions or the index is not u32 [B]
 */
export function gatherRows(x: Tensor, index: Tensor): Tensor {
  return apply1(gatherOperation, [x, index]);
}
