// How a camera was held: the orientation in Exif data (CIPA DC-008, tag 0x0112), and turning a picture accordingly. Exif is
// a small TIFF file with offsets chosen by whoever wrote it, so every read is checked against its length; data that does
// not make sense means «upright», as other readers take it.

import type { Picture } from "./png.ts";

const ORIENTATION = 0x0112;
const SHORT = 3;

/**
 * The orientation 1 … 8 that a TIFF block names (what follows «Exif\0\0» in a JPEG, or a PNG's eXIf chunk); 1 where it
 * names none.
 */
export function exifOrientation(tiff: Uint8Array): number {
  if (tiff.length < 14) return 1;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const order = view.getUint16(0);
  if (order !== 0x4949 && order !== 0x4d4d) return 1;
  const little = order === 0x4949;
  if (view.getUint16(2, little) !== 42) return 1;
  const folder = view.getUint32(4, little);
  if (folder + 2 > tiff.length) return 1;
  const entries = Math.min(view.getUint16(folder, little), Math.floor((tiff.length - folder - 2) / 12));
  for (let i = 0; i < entries; i++) {
    const at = folder + 2 + 12 * i;
    if (view.getUint16(at, little) !== ORIENTATION) continue;
    const isOne = view.getUint16(at + 2, little) === SHORT && view.getUint32(at + 4, little) === 1;
    const value = isOne ? view.getUint16(at + 8, little) : 1;
    return value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

/** Orientations 5 … 8 exchange width and height. */
export const turnsSides = (orientation: number) => orientation >= 5 && orientation <= 8;

/** The picture as it is to be looked at. 2 mirrors, 3 turns by 180°, 6 by 90° clockwise, 8 by 90° anticlockwise. */
export function orientPicture(picture: Picture, orientation: number): Picture {
  if (orientation < 2 || orientation > 8) return picture;
  const { width, height, channels, data } = picture;
  const turned = turnsSides(orientation);
  const [wide, high] = turned ? [height, width] : [width, height];
  // A pixel of the result at (x, y) comes from `start + x * alongX + y * alongY`, counted in pixels.
  const right = width - 1;
  const bottom = (height - 1) * width;
  const [start, alongX, alongY] = (
    {
      2: [right, -1, width],
      3: [right + bottom, -1, -width],
      4: [bottom, 1, -width],
      5: [0, width, 1],
      6: [bottom, -width, 1],
      7: [right + bottom, -width, -1],
      8: [right, width, -1],
    } as Record<number, [number, number, number]>
  )[orientation]!;
  const out = data instanceof Uint16Array ? new Uint16Array(data.length) : new Uint8Array(data.length);
  let to = 0;
  for (let y = 0; y < high; y++) {
    let from = (start + y * alongY) * channels;
    for (let x = 0; x < wide; x++) {
      for (let c = 0; c < channels; c++) out[to + c] = data[from + c]!;
      to += channels;
      from += alongX * channels;
    }
  }
  return { ...picture, width: wide, height: high, data: out };
}
