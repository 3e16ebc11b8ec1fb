// Pictures of any size as the square that a CLIP model takes, on the host: the same geometry and the same weights as the
// differentiable preprocessing of clip_reward.ts, for evaluations, where every picture may have a size of its own.

import { resizePlanes } from "../formats/resize.ts";
import { longSideThenPad, shortSideThenCrop } from "../ops/resample.ts";
import type { PictureFit } from "./clip_reward.ts";

/** Planes [3, height, width] in [0, 1] -> [3, side, side], not normalised. */
export function fitPlanes(
  planes: Float32Array,
  width: number,
  height: number,
  side: number,
  fit: PictureFit,
): Float32Array {
  if (width === side && height === side) return planes;
  if (fit === "crop" || width === height) {
    const to = shortSideThenCrop(height, width, side);
    return resizePlanes(planes, width, height, to.width, to.height, { window: to.crop });
  }
  const to = longSideThenPad(height, width, side);
  const small = resizePlanes(planes, width, height, to.width, to.height);
  const out = new Float32Array(3 * side * side);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < to.height; y++) {
      const from = (c * to.height + y) * to.width;
      out.set(small.subarray(from, from + to.width), (c * side + to.top + y) * side + to.left);
    }
  return out;
}
