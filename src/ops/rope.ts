// Rotary position embedding on [B, L, H * hd]; its gradient is the rotation back. Tables come from the host, because the
// device's sine and cosine are accurate only near zero.

import source from "../../shaders/rope.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, laneGrid } from "../tensor/lower.ts";

const ropeOperation: Operation = {
  name: "rope",
  infer([x, cosine], attributes) {
    const [, tokens, width] = x!.shape;
    const headSize = width! / (attributes["heads"] as number);
    if (cosine!.shape[0] !== tokens || cosine!.shape[1]! * 2 !== headSize) {
      throw new Error(`tables [${cosine!.shape}] do not fit [${x!.shape}] with heads of ${headSize}`);
    }
    return [{ shape: x!.shape, dtype: x!.dtype }];
  },
  lower(lowering, node) {
    const [x, cosine, sine] = node.inputs as [Tensor, Tensor, Tensor];
    const heads = node.attributes["heads"] as number;
    const pairs = x.size / 2;
    const { grid, lanes } = laneGrid(pairs, lowering.target);
    const half = cosine.dim(1);
    const { LANES } = lanes;
    const ALIGNED = (heads * half) % LANES === 0 && (LANES % half === 0 || half % LANES === 0);
    lowering.call({
      label: "rope",
      source,
      constants: { T: x.dtype, ...lanes, ALIGNED },
      inputs: [lowering.slot(x), lowering.slot(cosine), lowering.slot(sine)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [pairs, x.dim(1), heads, half, grid[0], f32Bits(node.attributes["back"] ? -1 : 1)],
      grid,
      flops: 3 * x.size,
    });
  },
  gradient(node, [dy]) {
    const [, cosine, sine] = node.inputs as [Tensor, Tensor, Tensor];
    return [
      apply1(ropeOperation, [dy!, cosine, sine], { ...node.attributes, back: !node.attributes["back"] }),
      null,
      null,
    ];
  },
};

/** Rotates queries or keys; cosine and sine are [L, hd / 2]. */
export function rope(x: Tensor, cosine: Tensor, sine: Tensor, heads: number): Tensor {
  return apply1(ropeOperation, [x, cosine, sine], { heads, back: false });
}
