// Pictures and archives for tests, made in memory: PNG and JPEG with any Exif orientation, zip and parquet files.

import { brotliCompressSync, gzipSync } from "node:zlib";
import { strToU8, zipSync } from "fflate";
import { parquetWriteBuffer } from "hyparquet-writer";
import { encode } from "jpeg-js";
import { encodePng, type Picture } from "../../src/formats/png.ts";

/** A picture whose pixels differ from their neighbours smoothly: red grows to the right, green downwards. */
export function gradient(width: number, height: number, blue = 60): Picture {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      data[at] = Math.round((255 * x) / Math.max(1, width - 1));
      data[at + 1] = Math.round((255 * y) / Math.max(1, height - 1));
      data[at + 2] = blue;
    }
  }
  return { width, height, channels: 3, depth: 8, data, text: {} };
}

export const pngOf = (width: number, height: number, blue = 60) => encodePng(gradient(width, height, blue));

export function jpegOf(picture: Picture, quality = 95): Uint8Array {
  const { width, height, data } = picture;
  const rgba = new Uint8Array(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgba[4 * i + c] = data[3 * i + c]!;
  return new Uint8Array(encode({ width, height, data: rgba }, quality).data);
}

/** The TIFF block of Exif data with one entry, the orientation. */
export function tiffOrientation(orientation: number, little = true): Uint8Array {
  const tiff = new Uint8Array(26);
  const view = new DataView(tiff.buffer);
  view.setUint16(0, little ? 0x4949 : 0x4d4d);
  view.setUint16(2, 42, little);
  view.setUint32(4, 8, little);
  view.setUint16(8, 1, little);
  view.setUint16(10, 0x0112, little);
  view.setUint16(12, 3, little);
  view.setUint32(14, 1, little);
  view.setUint16(18, orientation, little);
  return tiff;
}

/** Puts a segment behind the start marker of a JPEG. */
export function withSegment(jpeg: Uint8Array, marker: number, content: Uint8Array): Uint8Array {
  const out = new Uint8Array(jpeg.length + content.length + 4);
  out.set(jpeg.subarray(0, 2));
  out.set([0xff, marker, (content.length + 2) >> 8, (content.length + 2) & 255], 2);
  out.set(content, 6);
  out.set(jpeg.subarray(2), 6 + content.length);
  return out;
}

export const withOrientation = (jpeg: Uint8Array, orientation: number, little = true) =>
  withSegment(jpeg, 0xe1, Uint8Array.from([...strToU8("Exif\0\0"), ...tiffOrientation(orientation, little)]));

export function zipOf(content: Record<string, Uint8Array | string>, level: 0 | 6 = 6): Uint8Array {
  const entries = Object.entries(content).map(([name, data]) => [
    name,
    typeof data === "string" ? strToU8(data) : data,
  ]);
  return zipSync(Object.fromEntries(entries), { level });
}

export interface TableOptions {
  codec?: "UNCOMPRESSED" | "SNAPPY" | "GZIP" | "BROTLI";
  rowGroupSize?: number;
  imageColumn?: string;
  captionColumn?: string;
  /** The picture as a structure of bytes and path, as published sets hold it. */
  struct?: boolean;
}

export function parquetOf(
  rows: readonly { image: Uint8Array | null; text: string | null }[],
  {
    codec = "SNAPPY",
    rowGroupSize = 2,
    imageColumn = "image",
    captionColumn = "text",
    struct = false,
  }: TableOptions = {},
): Uint8Array {
  const images = rows.map((row) => row.image);
  const columnData: any[] = [
    struct
      ? { name: imageColumn, data: rows.map((row, i) => row.image && { bytes: row.image, path: `p${i}.png` }) }
      : { name: imageColumn, data: images, type: "BYTE_ARRAY", nullable: true },
    { name: captionColumn, data: rows.map((row) => row.text), type: "STRING", nullable: true },
  ];
  const schema = struct
    ? [
        { name: "root", num_children: 2 },
        { name: imageColumn, num_children: 2, repetition_type: "OPTIONAL" },
        { name: "bytes", type: "BYTE_ARRAY", repetition_type: "OPTIONAL" },
        { name: "path", type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" },
        { name: captionColumn, type: "BYTE_ARRAY", converted_type: "UTF8", repetition_type: "OPTIONAL" },
      ]
    : undefined;
  if (struct) for (const column of columnData) delete column.type;
  const compressors = {
    GZIP: (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes)),
    BROTLI: (bytes: Uint8Array) => new Uint8Array(brotliCompressSync(bytes)),
  };
  const options: any = { columnData, codec, compressors, rowGroupSize, ...(schema && { schema }) };
  return new Uint8Array(parquetWriteBuffer(options));
}
