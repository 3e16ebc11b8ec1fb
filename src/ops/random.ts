// Random tensors made on the device from counters, so that nothing has to be uploaded or carried along: the numbers
// depend on seed, stream, step and element alone. The words equal those of src/base/random.ts bit for bit; normal
// numbers agree to 1e-6. Seed, stream and step are data: one plan draws anew at each step.

import randomSource from "../../shaders/random.wgsl" with { type: "text" };
import type { RandomStream } from "../base/random.ts";
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { grid1d } from "../tensor/lower.ts";
import type { Shape } from "../tensor/shape.ts";

/** Words in the tensor that names a draw; see `randomKey`. */
export const RANDOM_KEY_WORDS = 4;

/** Contents of the u32 key tensor [4] for one step of a stream: seed mod 2^32, stream, step, seed >> 32. */
export function randomKey(stream: RandomStream, step: number): Uint32Array {
  return Uint32Array.of(stream.key[0], stream.key[1], step >>> 0, stream.seedHigh);
}

type Kind = "words" | "uniform" | "normal";

function make(kind: Kind): Operation {
  return {
    name: `random_${kind}`,
    takesEpilogue: kind !== "words",
    infer([key], attributes) {
      if (key!.dtype !== "u32" || key!.shape.reduce((a, b) => a * b, 1) !== RANDOM_KEY_WORDS) {
        throw new Error("the key must be u32 [4]");
      }
      const first = attributes["first"] as number;
      if (!Number.isInteger(first / 4) || first < 0) throw new Error(`first element ${first} is not a multiple of 4`);
      return [{ shape: attributes["shape"] as Shape, dtype: kind === "words" ? "u32" : "f32" }];
    },
    lower(lowering, node) {
      const out = node.outputs[0]!;
      const grid = grid1d(out.size, 256, lowering.target);
      lowering.call({
        label: node.operation.name,
        source: randomSource,
        constants: { OUT: out.dtype, WORDS: kind === "words", NORMAL: kind === "normal" },
        inputs: [lowering.slot(node.inputs[0]!)],
        outputs: [lowering.slot(out)],
        params: [out.size, (node.attributes["first"] as number) / 4, grid[0]],
        grid,
        flops: 40 * out.size,
        epilogueOf: node,
      });
    },
  };
}

const OPERATIONS: Readonly<Record<Kind, Operation>> = {
  words: make("words"),
  uniform: make("uniform"),
  normal: make("normal"),
};

/**
 * 32-bit words, u32.
 * @param key u32 [4], contents by `randomKey`; several draws of one step need several streams
 * @param first element of the stream that the tensor starts at, a multiple of 4
 */
export function randomWords(key: Tensor, shape: Shape, first = 0): Tensor {
  return apply1(OPERATIONS.words, [key], { shape, first });
}

/** Uniform numbers in [0, 1), multiples of 2^-24. */
export function randomUniform(key: Tensor, shape: Shape, first = 0): Tensor {
  return apply1(OPERATIONS.uniform, [key], { shape, first });
}

/** Standard normal numbers. */
export function randomNormal(key: Tensor, shape: Shape, first = 0): Tensor {
  return apply1(OPERATIONS.normal, [key], { shape, first });
}
