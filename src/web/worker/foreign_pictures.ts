// Pictures that only the browser decodes: WebP, AVIF and BMP. Their size is read from the header first, so that a small file
// that announces a giant picture is refused before the browser takes memory for it; of moving pictures nobody said which
// frame is meant, so they are refused too.

import { LongtailError } from "../../base/errors.ts";
import type { ForeignDecoder, PictureKind } from "../../formats/picture.ts";
import { damagedPicture, tooManyPixels } from "../../formats/png.ts";

export interface ForeignHeader {
  width: number;
  height: number;
  moves: boolean;
}

/** Bytes of an AVIF in which its properties must come. */
const AVIF_HEAD = 65_536;
/** Longest side that is kept of a converted picture: no model here takes more. */
const LONGEST_SIDE = 4096;

const ascii = (bytes: Uint8Array, from: number, length: number) =>
  new TextDecoder("latin1").decode(bytes.subarray(from, from + length));

/** Size of a WebP, AVIF or BMP by its header; null where the header does not say it. */
export function foreignHeader(bytes: Uint8Array, kind: PictureKind): ForeignHeader | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (kind === "WebP") return bytes.length >= 30 ? webpHeader(bytes, view) : null;
  if (kind === "BMP") {
    if (bytes.length < 26) return null;
    // A header of 12 bytes is OS/2's, with sizes of 16 bits.
    if (view.getUint32(14, true) === 12)
      return { width: view.getUint16(18, true), height: view.getUint16(20, true), moves: false };
    return { width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)), moves: false };
  }
  return kind === "AVIF" ? avifHeader(bytes, view) : null;
}

function webpHeader(bytes: Uint8Array, view: DataView): ForeignHeader | null {
  const chunk = ascii(bytes, 12, 4);
  const wide = (at: number) => 1 + (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16));
  if (chunk === "VP8X") return { width: wide(24), height: wide(27), moves: (bytes[20]! & 2) !== 0 };
  if (chunk === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff), moves: false };
  }
  if (chunk !== "VP8 ") return null;
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff, moves: false };
}

/** Every size property counts, the largest decides: a grid of tiles has one for the whole and one for a tile. */
function avifHeader(bytes: Uint8Array, view: DataView): ForeignHeader | null {
  let [width, height] = [0, 0];
  const end = Math.min(bytes.length, AVIF_HEAD) - 16;
  for (let at = 12; at <= end; at++) {
    if (bytes[at] !== 0x69 || ascii(bytes, at, 4) !== "ispe") continue;
    width = Math.max(width, view.getUint32(at + 8));
    height = Math.max(height, view.getUint32(at + 12));
  }
  return width > 0 && height > 0 ? { width, height, moves: ascii(bytes, 8, 4) === "avis" } : null;
}

/**
 * Refuses a picture that must not reach the browser's decoder.
 * @throws E-DATA-020 no header, E-DATA-056 a kind or a moving picture that is not read, E-DATA-023 too large
 */
export function admitForeign(bytes: Uint8Array, kind: PictureKind, where: string, maxPixels: number): void {
  const header = foreignHeader(bytes, kind);
  if (kind !== "WebP" && kind !== "AVIF" && kind !== "BMP") {
    throw new LongtailError("E-DATA-056", {
      what: `pictures of the kind ${kind} are not read`,
      where,
      why: "PNG, JPEG, WebP, AVIF and BMP are read here",
      fix: "save it as PNG or JPEG",
    });
  }
  if (header === null || header.width === 0 || header.height === 0)
    throw damagedPicture(where, `its header is not that of a ${kind}`);
  if (header.width * header.height > maxPixels) throw tooManyPixels(where, header.width, header.height, maxPixels);
  if (header.moves) {
    throw new LongtailError("E-DATA-056", {
      what: `the picture is an animated ${kind}`,
      where,
      why: "a moving picture has many frames, and nothing says which one is meant",
      fix: "save the frame that you mean as PNG",
    });
  }
}

/** A decoder that asks the browser, upright; pictures beyond 4096 pixels on a side come back smaller. */
export const browserDecoder: ForeignDecoder = async (bytes, _kind, where) => {
  const bitmap = await createImageBitmap(new Blob([bytes.slice()]));
  try {
    const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (context === null) throw damagedPicture(where, "the browser gives no canvas of this size");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, channels: 4, depth: 8, data: new Uint8Array(data.buffer), text: {} };
  } finally {
    bitmap.close();
  }
};
