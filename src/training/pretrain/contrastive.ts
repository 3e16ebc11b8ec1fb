// InfoNCE between captions and pictures (van den Oord et al. 2018; Radford et al. 2021) where several pictures may fit a
// caption: cross-entropy of the softmax over rows and over columns against targets that share evenly among what fits.

import { matmul } from "../../ops/matmul.ts";
import { add, affine, clamp, exp, log, mul, sub } from "../../ops/pointwise.ts";
import { meanAll, sum, sumAll } from "../../ops/reduce.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

/** Logits stay below this, so that sums of their exponentials are f32 numbers without a maximum being subtracted. */
export const LARGEST_SCALE = 60;

/**
 * (mean lse over rows + mean lse over columns) / 2 - sum of weights · logits, [1], with logits = scale · texts picturesᵀ.
 * @param texts unit features [B, E]
 * @param pictures unit features [B, E]
 * @param logScale logarithm of the scale, [1]; the scale itself is clamped to 60
 * @param weights [B, B] by `contrastiveWeights`
 */
export function contrastiveLoss(
  graph: Graph,
  texts: Tensor,
  pictures: Tensor,
  logScale: Tensor,
  weights: Tensor,
): Tensor {
  return graph.scope("contrastive loss", () => {
    const scale = clamp(exp(logScale), 0, LARGEST_SCALE);
    const logits = mul(matmul(texts, pictures, { transposeB: true }), scale);
    const powers = exp(logits);
    const ofRows = meanAll(log(sum(powers, 1)));
    const ofColumns = meanAll(log(sum(powers, 0)));
    return sub(affine(add(ofRows, ofColumns), 0.5, 0), sumAll(mul(logits, weights)));
  });
}
