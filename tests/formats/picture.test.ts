import { deflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { exifOrientation, orientPicture } from "../../src/formats/exif.ts";
import { crc32, inflate, inflateZlib } from "../../src/formats/inflate.ts";
import { readJpegStructure } from "../../src/formats/jpeg.ts";
import { decodePicture, inspectPicture, onBackground, pictureKind } from "../../src/formats/picture.ts";
import { encodePng, type Picture } from "../../src/formats/png.ts";
import { largestDifference } from "../helpers/compare.ts";
import { gradient, jpegOf, pngOf, tiffOrientation, withOrientation, withSegment } from "../helpers/pictures.ts";

const failure = async (work: Promise<unknown>): Promise<LongtailError> => {
  const error = await work.then(
    () => null,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error;
};
const largestOff = (a: Picture, b: Picture) => largestDifference(a.data, b.data);

describe("pictures of any format", () => {
  test("a JPEG decodes to nearly the picture that was saved, and is known by its bytes", async () => {
    const picture = gradient(37, 23);
    const bytes = jpegOf(picture);
    expect(pictureKind(bytes)).toBe("JPEG");
    expect(await inspectPicture(bytes, "a.png")).toEqual({ kind: "JPEG", width: 37, height: 23, orientation: 1 });
    const found = await decodePicture(bytes, "a.png");
    expect(found).toMatchObject({ width: 37, height: 23, channels: 3, depth: 8 });
    expect(largestOff(found, picture)).toBeLessThan(12);
  });

  test("the eight orientations of Exif turn the picture upright, in either byte order", async () => {
    // What a camera stores for an upright picture, worked out from the definition of each orientation.
    const upright = gradient(40, 24);
    const stored: Record<number, number> = { 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6 };
    for (const [orientation, inverse] of Object.entries(stored)) {
      const bytes = withOrientation(
        jpegOf(orientPicture(upright, inverse)),
        Number(orientation),
        Number(orientation) % 2 === 0,
      );
      const facts = await inspectPicture(bytes, "x");
      const found = await decodePicture(bytes, "x");
      expect([facts.width, facts.height, found.width, found.height]).toEqual([40, 24, 40, 24]);
      expect(largestOff(found, upright), `orientation ${orientation}`).toBeLessThan(16);
    }
    const corner = (orientation: number) => {
      const one: Picture = {
        width: 2,
        height: 1,
        channels: 3,
        depth: 8,
        data: Uint8Array.of(1, 1, 1, 2, 2, 2),
        text: {},
      };
      const { width, height, data } = orientPicture(one, orientation);
      return [width, height, data[0], data[3]];
    };
    expect([2, 3, 4, 5, 6, 7, 8].map(corner)).toEqual([
      [2, 1, 2, 1],
      [2, 1, 2, 1],
      [2, 1, 1, 2],
      [1, 2, 1, 2],
      [1, 2, 1, 2],
      [1, 2, 2, 1],
      [1, 2, 2, 1],
    ]);
  });

  test("Exif data that makes no sense means upright", () => {
    const good = tiffOrientation(6);
    expect(exifOrientation(good)).toBe(6);
    for (let cut = 0; cut < good.length; cut++) expect([1, 6]).toContain(exifOrientation(good.subarray(0, cut)));
    for (const [at, value] of [
      [0, 0x20],
      [2, 0],
      [7, 255],
      [12, 9],
      [14, 2],
      [18, 0],
      [18, 77],
    ] as const) {
      const bad = good.slice();
      bad[at] = value;
      expect(exifOrientation(bad), `byte ${at}`).toBe(1);
    }
  });

  test("CMYK, 12 bits, arithmetic coding and several frames are refused by name", async () => {
    const bytes = jpegOf(gradient(16, 16));
    const frame = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xc0);
    const changed = (at: number, value: number) => Uint8Array.from(bytes, (byte, i) => (i === at ? value : byte));
    expect((await failure(inspectPicture(changed(frame + 9, 4), "x"))).code).toBe("E-DATA-022");
    expect((await failure(decodePicture(changed(frame + 4, 12), "x"))).message).toMatch(/E-DATA-020.*12 bits/);
    expect((await failure(decodePicture(changed(frame + 1, 0xc9), "x"))).message).toMatch(/arithmetic/);
    const twice = withSegment(bytes, 0xc0, bytes.slice(frame + 4, frame + 19));
    expect((await failure(decodePicture(twice, "x"))).message).toMatch(/two frames/);
  });

  test("every cut of a JPEG and of a PNG is found without decoding", async () => {
    for (const bytes of [jpegOf(gradient(24, 16)), pngOf(24, 16)]) {
      for (let length = 0; length < bytes.length; length += 7) {
        const error = await failure(inspectPicture(bytes.subarray(0, length), "cut"));
        expect(error.code).toMatch(/E-DATA-02[014]/);
      }
    }
  });

  test("a header that claims more pixels than its data can hold is refused before memory is taken", async () => {
    const bytes = jpegOf(gradient(16, 16)).slice();
    const frame = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xc0);
    new DataView(bytes.buffer).setUint32(frame + 5, (6000 << 16) | 6000);
    expect((await failure(decodePicture(bytes, "x"))).message).toMatch(/cannot hold 6000 x 6000/);
    new DataView(bytes.buffer).setUint32(frame + 5, 0xffffffff);
    expect((await failure(decodePicture(bytes, "x"))).code).toMatch(/E-DATA-02[03]/);
    expect((await failure(decodePicture(pngOf(20, 20), "x", { maxPixels: 399 }))).code).toBe("E-DATA-023");
    expect((await failure(decodePicture(pngOf(20, 20), "x", { maxBytes: 20 }))).code).toBe("E-DATA-023");
  });

  test("other formats are refused with what to do, or given to a decoder of the platform", async () => {
    const heads: [string, string][] = [
      ["WebP", "RIFF\x10\0\0\0WEBPVP8 "],
      ["GIF", "GIF89a\x01\0\x01\0"],
      ["BMP", `BM${"\0".repeat(40)}`],
      ["TIFF", "II*\0\x08\0\0\0"],
      ["AVIF", "\0\0\0\x1cftypavif\0\0\0\0"],
      ["HEIC", "\0\0\0\x1cftypheic\0\0\0\0"],
      ["JPEG XL", "\xff\x0a\0\0"],
      ["SVG", '<?xml version="1.0"?><svg/>'],
    ];
    for (const [kind, text] of heads) {
      const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
      expect(pictureKind(bytes)).toBe(kind);
      const error = await failure(inspectPicture(bytes, "a.png"));
      expect(error.code).toBe("E-DATA-021");
      expect(error.message).toMatch(/convert to PNG or JPEG/);
      const decoder = async () => gradient(3, 2);
      expect(await inspectPicture(bytes, "a.webp", { decoder })).toMatchObject({ kind, width: 3, height: 2 });
    }
    expect((await failure(inspectPicture(Uint8Array.of(1, 2, 3), "x"))).message).toMatch(/not a picture/);
    expect((await failure(inspectPicture(new Uint8Array(0), "x"))).code).toBe("E-DATA-024");
    const broken = async () => {
      throw new Error("no such codec");
    };
    const webp = Uint8Array.from("RIFF\x10\0\0\0WEBPVP8 ", (letter) => letter.charCodeAt(0));
    expect((await failure(decodePicture(webp, "x", { decoder: broken }))).message).toMatch(/E-DATA-020.*no such codec/);
  });

  test("transparent parts show the background, in 8 and in 16 bits", () => {
    const half = { width: 1, height: 1, channels: 4, depth: 8, data: Uint8Array.of(200, 0, 0, 51), text: {} } as const;
    expect([...onBackground(half, [0, 1, 0.5]).data]).toEqual([40, 204, 102]);
    const deep = { ...half, depth: 16, data: Uint16Array.of(0, 0, 0, 0) } as const;
    expect([...onBackground(deep).data]).toEqual([65535, 65535, 65535]);
  });

  test("interlaced PNG of 1, 2 and 4 bits decodes like the same pixels in plain order", async () => {
    for (const depth of [1, 2, 4]) {
      const [width, height] = [11, 7];
      const levels = 2 ** depth;
      const value = (x: number, y: number) => (x * 3 + y * 5) % levels;
      const rows: number[] = [];
      const line = (values: number[]) => {
        rows.push(0);
        for (let i = 0; i < values.length; i += 8 / depth) {
          let byte = 0;
          for (let k = 0; k < 8 / depth; k++) byte = (byte << depth) | (values[i + k] ?? 0);
          rows.push(byte);
        }
      };
      for (const [x0, y0, dx, dy] of [
        [0, 0, 8, 8],
        [4, 0, 8, 8],
        [0, 4, 4, 8],
        [2, 0, 4, 4],
        [0, 2, 2, 4],
        [1, 0, 2, 2],
        [0, 1, 1, 2],
      ] as const) {
        for (let y = y0; y < height; y += dy) {
          const values: number[] = [];
          for (let x = x0; x < width; x += dx) values.push(value(x, y));
          if (values.length > 0) line(values);
        }
      }
      const found = await decodePicture(rawPng(width, height, depth, 0, true, Uint8Array.from(rows)), "x");
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          expect(found.data[(y * width + x) * 3]).toBe(Math.round((value(x, y) * 255) / (levels - 1)));
    }
  });

  test("a PNG turns by its own Exif chunk", async () => {
    const plain = encodePng(gradient(6, 4));
    const turned = Uint8Array.from([
      ...plain.subarray(0, 33),
      ...chunk("eXIf", tiffOrientation(6)),
      ...plain.subarray(33),
    ]);
    expect(await inspectPicture(turned, "x")).toMatchObject({ width: 4, height: 6, orientation: 6 });
    expect((await decodePicture(turned, "x")).data).toEqual(orientPicture(gradient(6, 4), 6).data);
  });

  test("data that becomes more than it announces is given up, not expanded", () => {
    const bomb = new Uint8Array(deflateSync(new Uint8Array(50_000_000)));
    const started = performance.now();
    expect(inflateZlib([bomb], 1000).length).toBe(1000);
    expect(() => inflate([bomb.subarray(2)], 1000)).toThrow(/longer than/);
    expect(performance.now() - started).toBeLessThan(500);
    expect(() => inflate([bomb.subarray(2, 60)], 1000000)).toThrow(/ends|damaged/);
  });

  test("a JPEG with more scans than encoders write is refused", () => {
    const bytes = jpegOf(gradient(8, 8));
    const scan = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xda);
    const body = bytes.subarray(scan, bytes.length - 2);
    const many = Uint8Array.from([
      ...bytes.subarray(0, scan),
      ...Array.from({ length: 60 }, () => [...body]).flat(),
      0xff,
      0xd9,
    ]);
    expect(() => readJpegStructure(many)).toThrow(/more scans/);
  });
});

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc32(out.subarray(4, data.length + 8)));
  return out;
}

function rawPng(width: number, height: number, depth: number, colour: number, interlaced: boolean, rows: Uint8Array) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([depth, colour, 0, 0, interlaced ? 1 : 0], 8);
  const parts = [
    chunk("IHDR", header),
    chunk("IDAT", new Uint8Array(deflateSync(rows))),
    chunk("IEND", new Uint8Array(0)),
  ];
  return Uint8Array.from([137, 80, 78, 71, 13, 10, 26, 10, ...parts.flatMap((part) => [...part])]);
}
