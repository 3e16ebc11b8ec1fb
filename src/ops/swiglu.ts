// The gate of gated feed-forward layers (SwiGLU, Shazeer 2020, "GLU Variants Improve Transformer") on a product that holds
// both halves: one kernel forward and one backward, without copies of the halves.

import source from "../../shaders/swiglu.wgsl" with { type: "text" };
import gradSource from "../../shaders/swiglu_grad.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { laneGrid } from "../tensor/lower.ts";
import { mul, silu } from "./pointwise.ts";
import { split } from "./slab.ts";

const swigluOperation: Operation = {
  name: "swiglu",
  infer: ([x]) => [{ shape: [...x!.shape.slice(0, -1), x!.shape.at(-1)! / 2], dtype: "f32" }],
  lower(lowering, node) {
    const [x] = node.inputs as [Tensor];
    const out = node.outputs[0]!;
    const { grid, lanes } = laneGrid(out.size, lowering.target);
    lowering.call({
      label: "swiglu",
      source,
      constants: { X: x.dtype, ...lanes, ALIGNED: out.dim(-1) % lanes.LANES === 0 },
      inputs: [lowering.slot(x)],
      outputs: [lowering.slot(out)],
      params: [out.size, out.dim(-1), grid[0]],
      grid,
      flops: 5 * out.size,
    });
  },
  gradient(node, [dy]) {
    return [apply1(swigluGradOperation, [dy!, node.inputs[0]!])];
  },
};

const swigluGradOperation: Operation = {
  name: "swiglu_grad",
  infer: ([, x]) => [{ shape: x!.shape, dtype: "f32" }],
  lower(lowering, node) {
    const [dy, x] = node.inputs as [Tensor, Tensor];
    const { grid, lanes } = laneGrid(dy.size, lowering.target);
    lowering.call({
      label: "swiglu grad",
      source: gradSource,
      constants: { X: x.dtype, ...lanes, ALIGNED: dy.dim(-1) % lanes.LANES === 0 },
      inputs: [lowering.slot(dy), lowering.slot(x)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [dy.size, dy.dim(-1), grid[0]],
      grid,
      flops: 12 * dy.size,
    });
  },
};

/** silu(gate) * up of the two halves [gate, up] of the last dimension: [..., 2 F] becomes [..., F]. */
export function swiglu(x: Tensor): Tensor {
  const half = x.dim(-1) / 2;
  if (!Number.isInteger(half)) throw new Error(`[${x.shape}] has no two halves in its last dimension`);
  if (x.graph.fused) return apply1(swigluOperation, [x]);
  const [gate, up] = split(x, x.rank - 1, [half, half]) as [Tensor, Tensor];
  return mul(silu(gate), up);
}
