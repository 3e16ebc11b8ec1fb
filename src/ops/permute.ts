// Reordering of up to six dimensions.

import source from "../../shaders/permute.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { laneGrid } from "../tensor/lower.ts";

const permuteOperation: Operation = {
  name: "permute",
  infer([x], attributes) {
    const order = attributes["order"] as number[];
    if (
      order.length !== x!.shape.length ||
      [...order].sort((a, b) => a - b).some((d, i) => d !== i) ||
      order.length > 6
    ) {
      throw new Error(`order [${order}] does not permute [${x!.shape}]`);
    }
    return [{ shape: order.map((d) => x!.shape[d]!), dtype: x!.dtype }];
  },
  lower(lowering, node) {
    const order = node.attributes["order"] as number[];
    const x = node.inputs[0]!;
    const strides = x.shape.map((_, d) => x.shape.slice(d + 1).reduce((a, b) => a * b, 1));
    const sizes = [1, 1, 1, 1, 1, 1, ...order.map((d) => x.shape[d]!)].slice(-6);
    const steps = [0, 0, 0, 0, 0, 0, ...order.map((d) => strides[d]!)].slice(-6);
    const { grid, lanes } = laneGrid(x.size, lowering.target);
    lowering.call({
      label: "permute",
      source,
      constants: { T: x.dtype, ...lanes },
      inputs: [lowering.slot(x)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [x.size, grid[0], ...sizes.slice(1), ...steps],
      grid,
    });
  },
  gradient(node, [dy]) {
    const order = node.attributes["order"] as number[];
    return [
      permute(
        dy!,
        order.map((_, i) => order.indexOf(i)),
      ),
    ];
  },
};

/** out[i_0, ...] has dimension k of the output equal to dimension order[k] of `x`. */
export function permute(x: Tensor, order: number[]): Tensor {
  if (order.every((d, i) => d === i)) return x;
  return apply1(permuteOperation, [x], { order });
}

/** The last two dimensions swapped. */
export function transpose(x: Tensor): Tensor {
  const order = x.shape.map((_, i) => i);
  [order[x.rank - 1], order[x.rank - 2]] = [order[x.rank - 2]!, order[x.rank - 1]!];
  return permute(x, order);
}
