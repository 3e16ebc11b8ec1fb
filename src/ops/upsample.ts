// Nearest upsampling by two, as decoders of latents use it between their stages, and its gradient: each input pixel
// collects the four pixels that it was copied to.

import upsampleSource from "../../shaders/upsample.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, type Lowering, laneGrid } from "../tensor/lower.ts";

/** Up to this many items a quotient is one multiplication. */
const SMALL = 2 ** 22;

/** What depends on how many values an item has: 1, or 4, and upwards two rows of 4. */
function shared(lowering: Lowering, out: Tensor, values: 1 | 4, items: number) {
  const { grid, lanes } = laneGrid(items, lowering.target, values === 4);
  const params = [items, out.dim(-1), grid[0], f32Bits(values / out.dim(-1))];
  return { grid, params, lanes: { ...lanes, WIDE: values === 4, SMALL: items < SMALL } };
}

function make(backward: boolean): Operation {
  return {
    name: backward ? "downsample_sum" : "upsample_nearest",
    takesEpilogue: true,
    infer([x]) {
      if (x!.shape.length !== 4) throw new Error("pictures [N, C, H, W] expected");
      const [n, c, h, w] = x!.shape as [number, number, number, number];
      if (!backward) return [{ shape: [n, c, 2 * h, 2 * w], dtype: x!.dtype }];
      if (h % 2 || w % 2) throw new Error(`height ${h} and width ${w} must be even`);
      return [{ shape: [n, c, h / 2, w / 2], dtype: x!.dtype }];
    },
    lower(lowering, node) {
      const x = node.inputs[0]!;
      const out = node.outputs[0]!;
      const one = shared(lowering, out, 1, out.size);
      const four = shared(lowering, out, 4, out.size / (backward ? 4 : 8));
      lowering.call({
        label: node.operation.name,
        source: upsampleSource,
        constants: { A: x.dtype, OUT: out.dtype, BACKWARD: backward, ...one.lanes },
        wide:
          out.dim(-1) % 4 === 0
            ? {
                constants: { A: `vec${backward ? 4 : 2}<${x.dtype}>`, OUT: `vec4<${out.dtype}>`, ...four.lanes },
                params: four.params,
                grid: four.grid,
              }
            : null,
        inputs: [lowering.slot(x)],
        outputs: [lowering.slot(out)],
        params: one.params,
        grid: one.grid,
        flops: backward ? 3 * out.size : 0,
        epilogueOf: node,
      });
    },
    gradient: (_node, [dy]) => [apply1(backward ? upsampleOperation : downsampleOperation, [dy!])],
  };
}

const upsampleOperation: Operation = make(false);
const downsampleOperation: Operation = make(true);

/** [N, C, H, W] to [N, C, 2H, 2W]; each pixel becomes a square of four. */
export function upsampleNearest2x(x: Tensor): Tensor {
  return apply1(upsampleOperation, [x]);
}

/** The transpose: [N, C, 2H, 2W] to [N, C, H, W], sums over squares of four. */
export function downsampleSum(x: Tensor): Tensor {
  return apply1(downsampleOperation, [x]);
}
