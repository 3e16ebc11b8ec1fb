// From convolution nodes to calls of the product's kernel on subgroup matrices: which variants a node may take, which is its
// default, and what of its inputs is rounded to f16 beforehand.

import type { Node, Tensor } from "../tensor/graph.ts";
import type { Lowering, Target } from "../tensor/lower.ts";
import type { ConvShape } from "./conv_choice.ts";
import {
  type ConvPass,
  chooseConvMatrix,
  convMatrixReads,
  convMatrixVariants,
  defaultConvMatrix,
  hasAlignedPixels,
} from "./conv_matrix.ts";
import { COPY_FROM_READS, roundedCopy } from "./halves.ts";
import { callMatrix, matricesFor, takesMatrices } from "./matmul.ts";

/** Names of the variants that a node with these factors may take; none where they have to stay f32. */
export function matrixChoices(target: Target, a: Tensor, b: Tensor): string[] {
  return matricesFor(target, a.dtype, b.dtype) ? convMatrixVariants(target.kernels) : [];
}

/** The default among `choices`, or null where other kernels are better. */
export function matrixDefault(target: Target, choices: readonly string[], pass: ConvPass, s: ConvShape): string | null {
  return choices.length > 0 && takesMatrices(target) ? defaultConvMatrix(pass, s, target.kernels) : null;
}

/**
 * Calls the kernels that make output 0 of `node` with the variant `name`.
 * @param a weights, or dY for the weight gradient
 * @param b X, or dY for the input gradient
 * @param s as in `chooseConvMatrix`
 */
export function lowerConvOnMatrices(
  lowering: Lowering,
  node: Node,
  [a, b]: readonly [Tensor, Tensor],
  { pass, s, name, label }: { pass: ConvPass; s: ConvShape; name: string; label: string },
): void {
  const { kernels } = lowering.target;
  const reads = convMatrixReads(pass, s, name, kernels);
  const factor = (t: Tensor, isRead: boolean) => {
    const slot = lowering.slot(t);
    return t.dtype === "f32" && isRead
      ? { slot: roundedCopy(lowering, slot, t.size), dtype: "f16" as const }
      : { slot, dtype: t.dtype as "f32" };
  };
  const left = factor(a, reads.A >= COPY_FROM_READS);
  // Halves are read by groups of eight where that is possible, and for every place of the kernel again.
  const right = factor(b, reads.B >= COPY_FROM_READS || hasAlignedPixels(s));
  const hasEpilogue = node.attributes["epilogue"] !== undefined;
  const choice = chooseConvMatrix(pass, s, name, kernels, { A: left.dtype, B: right.dtype, hasEpilogue });
  callMatrix(lowering, label, choice, {
    inputs: [left.slot, right.slot],
    result: { outputs: [lowering.slot(node.outputs[0]!)] },
    flops: 2 * s.N * s.OC * s.OH * s.OW * s.IC * s.KH * s.KW,
    node,
  });
}
