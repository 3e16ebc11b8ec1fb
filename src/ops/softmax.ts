// Softmax over the last dimension as an operation of its own; inside attention it never exists as a tensor.

import softmaxSource from "../../shaders/softmax.wgsl" with { type: "text" };
import { apply1, type Node, type Operation, type Tensor } from "../tensor/graph.ts";
import { foldGrid, type Lowering } from "../tensor/lower.ts";
import { mapping } from "./norm.ts";

/** With fewer rows than this, lanes of a CPU adapter would have nothing to do. */
const FEW_ROWS = 32;
/** Length from which a subgroup is better than a lane on a CPU adapter. */
const LONG_ROW = 512;

function lower(lowering: Lowering, node: Node, backward: boolean): void {
  const x = node.inputs[0]!;
  const length = x.dim(-1);
  const rows = x.size / length;
  // Barriers cost a CPU adapter more than uncoalesced loads, as long as there are rows for all of its lanes.
  const { target } = lowering;
  const isSpread = target.software && rows < FEW_ROWS;
  const rowMapping = mapping(isSpread ? { ...target, software: false } : target, length, LONG_ROW);
  const grid = foldGrid(rowMapping.LANE_ROWS ? Math.ceil(rows / rowMapping.LANES) : rows, target.maxWorkgroups);
  lowering.call({
    label: backward ? "softmax gradient" : "softmax",
    source: softmaxSource,
    constants: {
      X: x.dtype,
      DY: node.inputs[1]?.dtype ?? "f32",
      BACKWARD: backward,
      ...rowMapping,
    },
    inputs: node.inputs.map((t) => lowering.slot(t)),
    outputs: [lowering.slot(node.outputs[0]!)],
    params: [rows, length, grid[0]],
    grid,
    flops: 4 * x.size,
  });
}

const softmaxOperation: Operation = {
  name: "softmax",
  infer([x]) {
    if (x!.shape.length === 0 || x!.shape.at(-1) === 0) throw new Error("softmax needs a last dimension");
    return [{ shape: x!.shape, dtype: "f32" }];
  },
  lower: (lowering, node) => lower(lowering, node, false),
  gradient: (node, [dy]) => [apply1(softmaxGradientOperation, [node.outputs[0]!, dy!])],
};

/** Inputs y = softmax(x) and dy. */
const softmaxGradientOperation: Operation = {
  name: "softmax gradient",
  infer: ([y]) => [{ shape: y!.shape, dtype: "f32" }],
  lower: (lowering, node) => lower(lowering, node, true),
};

/** exp(x) / sum(exp(x)) over the last dimension of `x` [..., N], f32 or f16; the result is f32. Scores may be large. */
export function softmax(x: Tensor): Tensor {
  return apply1(softmaxOperation, [x]);
}
