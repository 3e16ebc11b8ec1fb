// From a decoded picture to the numbers that a model takes: scaled so that it covers its bucket, cut, perhaps mirrored.

import { onBackground } from "../../formats/picture.ts";
import { type Picture, toPlanes } from "../../formats/png.ts";
import { type ResizeFilter, resizeBytes, resizePlanes, type Window } from "../../formats/resize.ts";
import type { Bucket } from "./buckets.ts";

export interface FitOptions {
  /** Where the bucket is cut out: 0 left or top … 1 right or bottom; the middle by default. */
  cropX?: number;
  cropY?: number;
  flip?: boolean;
  /** Lanczos by default; diffusers' trainers use bilinear. */
  filter?: ResizeFilter;
  /** Colour behind transparency, white by default. */
  background?: readonly [number, number, number];
}

/** Size of a picture that just covers a bucket, and the part of it that is kept, in its pixels. */
export function coverGeometry(
  width: number,
  height: number,
  bucket: Bucket,
  { cropX = 0.5, cropY = 0.5 }: FitOptions = {},
) {
  const scale = Math.max(bucket.width / width, bucket.height / height);
  const toWidth = Math.max(bucket.width, Math.round(width * scale));
  const toHeight = Math.max(bucket.height, Math.round(height * scale));
  const window: Window = {
    left: Math.round((toWidth - bucket.width) * cropX),
    top: Math.round((toHeight - bucket.height) * cropY),
    width: bucket.width,
    height: bucket.height,
  };
  return { width: toWidth, height: toHeight, window };
}

/**
 * A picture as planes of its bucket's size, float32 [3, height, width] in [0, 1]. 8-bit pictures are resized with Pillow's
 * arithmetic, those of 16 bits in float32.
 */
export function fitPicture(picture: Picture, bucket: Bucket, options: FitOptions = {}): Float32Array {
  const opaque = onBackground(picture, options.background);
  const { width, height, data } = opaque;
  const { filter = "lanczos" } = options;
  const fit = coverGeometry(width, height, bucket, options);
  let planes: Float32Array;
  if (data instanceof Uint8Array) {
    const isSame =
      fit.width === width && fit.height === height && fit.window.width === width && fit.window.height === height;
    const bytes = isSame
      ? data
      : resizeBytes(data, width, height, 3, fit.width, fit.height, { filter, window: fit.window });
    planes = toPlanes({ ...opaque, width: bucket.width, height: bucket.height, data: bytes });
  } else {
    planes = resizePlanes(toPlanes(opaque), width, height, fit.width, fit.height, { filter, window: fit.window });
    for (let i = 0; i < planes.length; i++) planes[i] = Math.min(1, Math.max(0, planes[i]!));
  }
  if (options.flip)
    for (let row = 0; row < planes.length; row += bucket.width) planes.subarray(row, row + bucket.width).reverse();
  return planes;
}
