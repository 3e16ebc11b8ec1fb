// One way into pictures of any format: what a file is by its first bytes (never by its name), its size without decoding,
// and its pixels, upright. PNG and JPEG are decoded here; other formats only where the platform lends a decoder, and else
// they are refused with what to do.

import { LongtailError } from "../base/errors.ts";
import { exifOrientation, orientPicture, turnsSides } from "./exif.ts";
import { decodeJpegBytes, JpegError, type JpegFacts, readJpegStructure } from "./jpeg.ts";
import { damagedPicture, LARGEST_PICTURE, type Picture, tooManyPixels } from "./png.ts";
import { decodePngBytes, PngError, readPngChunks, readPngHeader } from "./png_decode.ts";

export type PictureKind =
  | "PNG"
  | "JPEG"
  | "WebP"
  | "AVIF"
  | "HEIC"
  | "JPEG XL"
  | "JPEG 2000"
  | "GIF"
  | "BMP"
  | "TIFF"
  | "SVG"
  | "unknown";

/** Decodes what this code does not: a browser's or a library's decoder, upright, 8 bits. */
export type ForeignDecoder = (bytes: Uint8Array, kind: PictureKind, where: string) => Promise<Picture>;

export interface PictureLimits {
  /** Pixels of the largest picture that is decoded; 50 million by default. */
  maxPixels?: number;
  /** Bytes of the largest file; 256 MB by default. */
  maxBytes?: number;
  decoder?: ForeignDecoder | undefined;
}

export const MOST_PIXELS = 50_000_000;
export const MOST_BYTES = 256 * 1024 * 1024;

export interface PictureFacts {
  kind: PictureKind;
  /** As it is to be looked at, the orientation applied. */
  width: number;
  height: number;
  orientation: number;
}

const starts = (bytes: Uint8Array, offset: number, text: string) => {
  for (let i = 0; i < text.length; i++) if (bytes[offset + i] !== text.charCodeAt(i)) return false;
  return true;
};

/** What a file is by its first bytes. */
export function pictureKind(bytes: Uint8Array): PictureKind {
  if (starts(bytes, 0, "\x89PNG\r\n\x1a\n")) return "PNG";
  if (starts(bytes, 0, "\xff\xd8\xff")) return "JPEG";
  if (starts(bytes, 0, "RIFF") && starts(bytes, 8, "WEBP")) return "WebP";
  if (starts(bytes, 0, "GIF87a") || starts(bytes, 0, "GIF89a")) return "GIF";
  if (starts(bytes, 0, "II*\0") || starts(bytes, 0, "MM\0*")) return "TIFF";
  if (starts(bytes, 4, "ftypavi")) return "AVIF";
  if (["heic", "heix", "hevc", "mif1", "msf1"].some((brand) => starts(bytes, 4, `ftyp${brand}`))) return "HEIC";
  if (starts(bytes, 0, "\xff\x0a") || starts(bytes, 4, "JXL \r\n")) return "JPEG XL";
  if (starts(bytes, 4, "jP  \r\n")) return "JPEG 2000";
  if (starts(bytes, 0, "BM") && bytes.length >= 26) return "BMP";
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, 256)).trimStart();
  return /^(\xef\xbb\xbf)?\s*<(\?xml|svg|!DOCTYPE svg)/i.test(head) ? "SVG" : "unknown";
}

/**
 * Size and orientation of a picture. The whole structure is checked (chunks and their checksums, segments, end), so that
 * cut and altered files are found without decoding; a file whose format only the lent decoder knows is decoded.
 * @throws E-DATA-020 damaged, E-DATA-021 a format that is not read, E-DATA-022 CMYK, E-DATA-023 too large, E-DATA-024 empty
 */
export async function inspectPicture(
  bytes: Uint8Array,
  where: string,
  limits: PictureLimits = {},
): Promise<PictureFacts> {
  const kind = admit(bytes, where, limits);
  if (kind === "PNG" || kind === "JPEG") {
    return coded(where, () => {
      if (kind === "JPEG") return upright(kind, jpegFacts(bytes, where, limits));
      const { width, height } = readPngHeader(bytes);
      guardSize(where, width, height, limits);
      return upright(kind, { width, height, orientation: pngOrientation(bytes) });
    });
  }
  const { width, height } = await foreign(bytes, kind, where, limits);
  return { kind, width, height, orientation: 1 };
}

/**
 * Decodes a picture, upright: RGB or RGBA, 8 or 16 bits.
 * @throws as `inspectPicture`
 */
export async function decodePicture(bytes: Uint8Array, where: string, limits: PictureLimits = {}): Promise<Picture> {
  const kind = admit(bytes, where, limits);
  if (kind !== "PNG" && kind !== "JPEG") return foreign(bytes, kind, where, limits);
  return coded(where, () => {
    if (kind === "PNG") {
      const { width, height } = readPngHeader(bytes);
      guardSize(where, width, height, limits);
      return orientPicture(decodePngBytes(bytes), pngOrientation(bytes));
    }
    const { orientation } = jpegFacts(bytes, where, limits);
    const { width, height, data } = decodeJpegBytes(bytes);
    return orientPicture({ width, height, channels: 3, depth: 8, data, text: {} }, orientation);
  });
}

function admit(bytes: Uint8Array, where: string, { maxBytes = MOST_BYTES, decoder }: PictureLimits): PictureKind {
  if (bytes.length === 0) {
    throw new LongtailError("E-DATA-024", {
      what: "the file is empty",
      where,
      why: "it has 0 bytes, perhaps of a copy that was interrupted",
      fix: "copy it again, or take it out of the data set",
    });
  }
  if (bytes.length > maxBytes) throw tooManyBytes(where, bytes.length, maxBytes);
  const kind = pictureKind(bytes);
  if (kind !== "PNG" && kind !== "JPEG" && (kind === "unknown" || decoder === undefined)) throw notRead(where, kind);
  return kind;
}

export function tooManyBytes(where: string, bytes: number, most: number): LongtailError {
  return new LongtailError("E-DATA-023", {
    what: "the picture is too large",
    where,
    why: `the file has ${Math.ceil(bytes / 1e6)} MB, more than ${Math.floor(most / 1e6)} MB`,
    fix: "save the picture smaller",
  });
}

function notRead(where: string, kind: PictureKind): LongtailError {
  return new LongtailError("E-DATA-021", {
    what:
      kind === "unknown"
        ? "the file is not a picture"
        : `the picture is ${/^(AVIF|SVG)$/.test(kind) ? "an" : "a"} ${kind}`,
    where,
    why: kind === "unknown" ? "it begins like no known format" : "only PNG and JPEG are read here",
    fix: "convert to PNG or JPEG, for example with: magick mogrify -format png *",
  });
}

function guardSize(where: string, width: number, height: number, { maxPixels = MOST_PIXELS }: PictureLimits): void {
  const most = Math.min(maxPixels, LARGEST_PICTURE);
  if (width * height > most) throw tooManyPixels(where, width, height, most);
}

function jpegFacts(bytes: Uint8Array, where: string, limits: PictureLimits): JpegFacts {
  const facts = readJpegStructure(bytes);
  guardSize(where, facts.width, facts.height, limits);
  return facts;
}

function upright(
  kind: PictureKind,
  { width, height, orientation }: Pick<JpegFacts, "width" | "height" | "orientation">,
) {
  const [wide, high] = turnsSides(orientation) ? [height, width] : [width, height];
  return { kind, width: wide, height: high, orientation };
}

function pngOrientation(bytes: Uint8Array): number {
  const exif = readPngChunks(bytes).find((chunk) => chunk.type === "eXIf");
  return exif ? exifOrientation(exif.data) : 1;
}

function coded<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof JpegError && error.isCmyk) {
      throw new LongtailError("E-DATA-022", {
        what: "the picture has CMYK colours",
        where,
        why: "they are for print and mean nothing without the printer's profile",
        fix: "convert to RGB, for example with: magick in.jpg -colorspace sRGB out.png",
        cause: error,
      });
    }
    if (error instanceof JpegError || error instanceof PngError) throw damagedPicture(where, error.message, error);
    throw error;
  }
}

async function foreign(bytes: Uint8Array, kind: PictureKind, where: string, limits: PictureLimits): Promise<Picture> {
  let picture: Picture;
  try {
    picture = await limits.decoder!(bytes, kind, where);
  } catch (error) {
    if (error instanceof LongtailError) throw error;
    throw damagedPicture(where, `the platform does not decode this ${kind} (${(error as Error).message})`, error);
  }
  guardSize(where, picture.width, picture.height, limits);
  return picture;
}

/** RGB on an opaque background (red, green, blue in [0, 1], white by default); pictures without alpha come back as they are. */
export function onBackground(picture: Picture, background: readonly [number, number, number] = [1, 1, 1]): Picture {
  if (picture.channels === 3) return picture;
  const { width, height, depth, data } = picture;
  const largest = depth === 16 ? 65535 : 255;
  const behind = background.map((value) => Math.min(1, Math.max(0, value)) * largest);
  const pixels = width * height;
  const out = depth === 16 ? new Uint16Array(pixels * 3) : new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const alpha = data[4 * i + 3]! / largest;
    for (let c = 0; c < 3; c++) out[3 * i + c] = data[4 * i + c]! * alpha + behind[c]! * (1 - alpha) + 0.5;
  }
  return { ...picture, channels: 3, data: out };
}
