// A CLIP model as a differentiable reward: picture in [0, 1] -> resize (bicubic, antialias) to a square, normalisation ->
// unit feature f; the score of a text with unit feature t is f·t. HPS takes the bare cosine, PickScore and CLIP scale it by
// exp(logit_scale) / 20. SRPO and CLIP crop the long side, HPS's own library fills the short side up with black; a square
// picture is the same to both.

import type { OpenClip } from "../models/clip/open_clip.ts";
import { div, mul, sub } from "../ops/pointwise.ts";
import { sum } from "../ops/reduce.ts";
import { type Constant, longSideThenPad, resize, shortSideThenCrop } from "../ops/resample.ts";
import { pad } from "../ops/slab.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";

/** Divisor of scaled cosines in SRPO's PickScore and CLIP rewards. */
export const SCALED_REWARD_DIVISOR = 20;

/** How a picture that is no square becomes one: its middle is kept, or all of it with black beside. */
export type PictureFit = "crop" | "pad";

/** Pictures [B, 3, H, W] in [0, 1] -> normalised input of the model's picture tower. */
export function preprocessPictures(
  model: OpenClip,
  pictures: Tensor,
  constant: Constant,
  fit: PictureFit = "crop",
): Tensor {
  const { vision, mean, std } = model.config;
  const [, , h, w] = pictures.shape as [number, number, number, number];
  const side = vision.imageSize;
  let x = pictures;
  if (fit === "pad" && h !== w) {
    const { height, width, top, left } = longSideThenPad(h, w, side);
    x = resize(pictures, height, width, { filter: "bicubic", antialias: true, constant });
    x = height < side ? pad(x, 2, top, side) : pad(x, 3, left, side);
  } else if (h !== side || w !== side) {
    const { height, width, crop } = shortSideThenCrop(h, w, side);
    x = resize(pictures, height, width, { filter: "bicubic", antialias: true, constant, crop });
  }
  const perChannel = (name: string, values: readonly number[]) =>
    constant(`clip.${name}.${values.join(",")}`, Float32Array.from(values), [3, 1, 1]);
  return div(sub(x, perChannel("mean", mean)), perChannel("std", std));
}

/** Unit features [B, E] of pictures in [0, 1]. */
export function pictureFeatures(
  model: OpenClip,
  graph: Graph,
  pictures: Tensor,
  constant: Constant,
  fit: PictureFit = "crop",
): { input: Tensor; features: Tensor } {
  const input = preprocessPictures(model, pictures, constant, fit);
  return { input, features: model.imageFeatures(graph, input) };
}

/** Row-wise product of two [B, E] tensors: cosines of unit vectors, [B]. */
export function rowDot(a: Tensor, b: Tensor): Tensor {
  return sum(mul(a, b), 1);
}
