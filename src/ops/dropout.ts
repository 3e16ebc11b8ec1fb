// Inverted dropout (Srivastava et al. 2014) by counter-based random numbers: which elements fall depends on the key and
// the element alone, so the backward pass and a checkpointed second trace draw the same mask again and none is stored. The
// kernel is the one of random numbers; comparing, multiplying and scaling are steps before its store.

import randomSource from "../../shaders/random.wgsl" with { type: "text" };
import type { PointwiseStep } from "../tensor/epilogue.ts";
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { grid1d } from "../tensor/lower.ts";
import { RANDOM_KEY_WORDS } from "./random.ts";

/** Uniform numbers are multiples of 1 / STEPS. */
const STEPS = 2 ** 24;

export interface DropoutOptions {
  /** Share of elements that become zero, in [0, 1); the others are divided by 1 - rate. */
  rate: number;
  /** Element of the key's stream that decides about element 0, a multiple of 4; counted modulo 2^34. */
  first?: number;
}

const dropoutOperation: Operation = {
  name: "dropout",
  takesEpilogue: true,
  infer([key, x], attributes) {
    const { rate, first } = attributes as unknown as Required<DropoutOptions>;
    if (key!.dtype !== "u32" || key!.shape.reduce((a, b) => a * b, 1) !== RANDOM_KEY_WORDS) {
      throw new Error("the key must be u32 [4]");
    }
    if (!(rate >= 0 && rate < 1)) throw new Error(`rate ${rate} is not in [0, 1)`);
    if (!Number.isInteger(first / 4) || first < 0) throw new Error(`first element ${first} is not a multiple of 4`);
    return [{ shape: x!.shape, dtype: "f32" }];
  },
  lower(lowering, node) {
    const out = node.outputs[0]!;
    const grid = grid1d(out.size, 256, lowering.target);
    lowering.call({
      label: "dropout",
      source: randomSource,
      constants: { OUT: out.dtype, WORDS: false, NORMAL: false },
      inputs: [lowering.slot(node.inputs[0]!)],
      outputs: [lowering.slot(out)],
      params: [out.size, ((node.attributes["first"] as number) / 4) % 2 ** 32, grid[0]],
      grid,
      flops: 40 * out.size,
      epilogueOf: node,
    });
  },
  gradient(node, [dy]) {
    const { rate, first } = node.attributes as unknown as Required<DropoutOptions>;
    return [null, dropout(dy!, node.inputs[0]!, { rate, first })];
  },
};

/**
 * x with a share `rate` of its elements set to zero and the others divided by 1 - rate; element i stays where uniform
 * number `first + i` of the key's stream (src/base/random.ts) is at least `rate`.
 * @param key u32 [4], contents by `randomKey`
 */
export function dropout(x: Tensor, key: Tensor, { rate, first = 0 }: DropoutOptions): Tensor {
  // u · STEPS and the bound are whole numbers, so the difference is exact and clamping it makes 0 or 1.
  const bound = Math.round(rate * STEPS);
  const epilogue: PointwiseStep[] = [
    { name: "multiply_add", numbers: [STEPS, 1 - bound] },
    { name: "clamp_between", numbers: [0, 1] },
    { name: "mul", operand: 1 },
    { name: "multiply_add", numbers: [1 / (1 - rate), 0] },
  ];
  // The value to thin out is an operand of the steps: the kernel itself binds the key alone.
  return apply1(dropoutOperation, [key, x], { rate, first, epilogue, mainInputs: 1 });
}
