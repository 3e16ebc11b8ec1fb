// The part of a picture that is trained on: the largest square in its middle, as `data.buckets = false` cuts it. The parts
// beside it are shown dimmed.

/** Shares of the picture's width and height, 0 to 1. */
export interface CropBox {
  left: number;
  top: number;
  width: number;
  height: number;
}

export function squareCrop(width: number, height: number): CropBox {
  const side = Math.min(width, height);
  const [wide, high] = [side / width, side / height];
  return { left: (1 - wide) / 2, top: (1 - high) / 2, width: wide, height: high };
}

/** What the crop leaves out, as a share of the picture's area. */
export function cutAway(width: number, height: number): number {
  const side = Math.min(width, height);
  return 1 - (side * side) / (width * height);
}
