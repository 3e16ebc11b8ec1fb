// Random similarity transforms of training pictures, as one kernel: augmentation on the device, so that a step uploads
// plain pictures and a few numbers.

import source from "../../shaders/affine_sample.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, foldGrid } from "../tensor/lower.ts";
import { showShape } from "../tensor/shape.ts";

const affineSampleOperation: Operation = {
  name: "affine sample",
  takesEpilogue: true,
  infer([x, maps]) {
    if (x!.shape.length !== 4) throw new Error(`pictures ${showShape(x!.shape)} must be [N, C, H, W]`);
    if (maps!.shape.length !== 2 || maps!.shape[0] !== x!.shape[0] || maps!.shape[1] !== 6)
      throw new Error(`maps ${showShape(maps!.shape)} must be [${x!.shape[0]}, 6]`);
    return [{ shape: x!.shape, dtype: "f32" }];
  },
  lower(lowering, node) {
    const [x, maps] = node.inputs as [Tensor, Tensor];
    const out = node.outputs[0]!;
    const grid = foldGrid(Math.ceil(out.size / 64), lowering.target.maxWorkgroups);
    lowering.call({
      label: "affine sample",
      source,
      constants: { X: x.dtype },
      inputs: [lowering.slot(x), lowering.slot(maps)],
      outputs: [lowering.slot(out)],
      params: [out.size, x.dim(1), x.dim(2), x.dim(3), grid[0], f32Bits(node.attributes["fill"] as number)],
      grid,
      flops: 40 * out.size,
      epilogueOf: node,
    });
  },
};

/**
 * Pictures [N, C, H, W] through affine maps [N, 6], as torch's affine_grid and grid_sample (bilinear, align_corners
 * false); what comes in from outside is `fill`. The result is f32 and has no gradient.
 * @throws Error where shapes do not fit
 */
export function affineSample(x: Tensor, maps: Tensor, fill: number): Tensor {
  return apply1(affineSampleOperation, [x, maps], { fill });
}
