import { join } from "node:path";
import { crc32 } from "node:zlib";
import { encode } from "fast-png";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { dataUri, decodePng, encodePng, fromPlanes, pictureGrid, toPlanes } from "../../src/formats/png.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";

const noise = (length: number, largest: number) =>
  Array.from({ length }, (_, i) => Math.floor((((i * 2654435761) >>> 0) / 2 ** 32) * (largest + 1)));

describe("PNG", () => {
  for (const channels of [3, 4] as const) {
    for (const depth of [8, 16] as const) {
      test(`${channels} channels of ${depth} bits come back unchanged, with their texts in any script`, () => {
        const values = noise(7 * 5 * channels, 2 ** depth - 1);
        const data = depth === 16 ? Uint16Array.from(values) : Uint8Array.from(values);
        const text = { parameters: "icon of piñata, seed 42\nsteps 6", prompt: "日本の着物 🥢" };
        const found = decodePng(encodePng({ width: 7, height: 5, channels, depth, data, text }), "x.png");
        expect(found).toEqual({ width: 7, height: 5, channels, depth, data, text });
      });
    }
  }

  test("grey pictures of low depth, with alpha or in a palette become colours", () => {
    const oneBit = encode({ width: 3, height: 2, depth: 1, channels: 1, data: Uint8Array.of(0b10100000, 0b01000000) });
    expect([...decodePng(oneBit, "x").data].filter((_, i) => i % 3 === 0)).toEqual([255, 0, 255, 0, 255, 0]);
    const greyAlpha = encode({ width: 2, height: 1, depth: 8, channels: 2, data: Uint8Array.of(10, 255, 20, 0) });
    expect([...decodePng(greyAlpha, "x").data]).toEqual([10, 10, 10, 255, 20, 20, 20, 0]);
    const palette = encode({
      width: 2,
      height: 1,
      depth: 8,
      channels: 1,
      data: Uint8Array.of(1, 0),
      palette: [
        [1, 2, 3],
        [4, 5, 6],
      ],
    });
    expect([...decodePng(palette, "x").data]).toEqual([4, 5, 6, 1, 2, 3]);
  });

  test("the colour that a tRNS chunk names becomes transparent", () => {
    const plain = encode({
      width: 1,
      height: 3,
      depth: 8,
      channels: 3,
      data: Uint8Array.of(9, 8, 7, 9, 8, 6, 1, 8, 7),
    });
    const chunk = new Uint8Array(18);
    const view = new DataView(chunk.buffer);
    view.setUint32(0, 6);
    chunk.set(new TextEncoder().encode("tRNS"), 4);
    [9, 8, 7].forEach((value, i) => view.setUint16(8 + 2 * i, value));
    view.setUint32(14, crc32(chunk.subarray(4, 14)));
    const keyed = Uint8Array.from([...plain.subarray(0, 33), ...chunk, ...plain.subarray(33)]);
    expect([...decodePng(keyed, "x").data]).toEqual([9, 8, 7, 0, 9, 8, 6, 255, 1, 8, 7, 255]);
  });

  test("interlaced pictures of every depth decode like plain ones", () => {
    for (const depth of [1, 2, 4, 8, 16] as const) {
      for (const channels of depth < 8 ? ([1] as const) : ([1, 3, 4] as const)) {
        const row = Math.ceil((13 * channels * depth) / 8);
        const values = noise(depth === 16 ? 13 * 9 * channels : row * 9, 255);
        const data = depth === 16 ? Uint16Array.from(values, (v) => v * 257) : Uint8Array.from(values);
        const picture = { width: 13, height: 9, depth, channels, data } as any;
        const plain = decodePng(encode(picture), "x");
        expect(plain.data.length).toBe(13 * 9 * plain.channels);
        if (depth >= 8) expect(decodePng(encode(picture, { interlace: "Adam7" }), "x").data).toEqual(plain.data);
      }
    }
  });

  test("a picture that does not decode is refused with its file and the cause", () => {
    const good = encodePng({ width: 8, height: 8, channels: 3, depth: 8, data: Uint8Array.from(noise(192, 255)) });
    const flipped = good.slice();
    flipped[60]! ^= 255;
    const huge = good.slice();
    new DataView(huge.buffer).setUint32(16, 0x7fffffff);
    const cases: [string, Uint8Array, RegExp][] = [
      ["empty", new Uint8Array(0), /empty/],
      ["jpeg", Uint8Array.of(0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0, 0), /a JPEG, not a PNG/],
      ["header only", good.slice(0, 20), /ends inside its header/],
      ["truncated", good.slice(0, 100), /./],
      ["without its end", good.slice(0, -12), /./],
      ["flipped bits", flipped, /./],
    ];
    for (const [name, bytes, why] of cases) {
      let error: unknown;
      try {
        decodePng(bytes, `pictures/${name}.png`);
      } catch (reason) {
        error = reason;
      }
      expect(error, name).toBeInstanceOf(LongtailError);
      expect(error).toMatchObject({ code: "E-DATA-020", exitCode: 4 });
      expect((error as LongtailError).message).toContain(`pictures/${name}.png`);
      expect((error as LongtailError).parts.why).toMatch(why);
    }
  });

  test("a picture beyond the limit is refused before memory is taken for it", () => {
    const huge = encodePng({ width: 8, height: 8, channels: 3, depth: 8, data: new Uint8Array(192) });
    new DataView(huge.buffer).setUint32(16, 0x7fffffff);
    expect(() => decodePng(huge, "huge.png")).toThrow(/E-DATA-023 huge.png.*2147483647 x 8/);
    const small = encodePng({ width: 8, height: 8, channels: 3, depth: 8, data: new Uint8Array(192) });
    expect(() => decodePng(small, "small.png", 63)).toThrow(/E-DATA-023/);
  });

  test("a view into a larger buffer decodes like the picture alone", () => {
    const good = encodePng({ width: 4, height: 4, channels: 3, depth: 8, data: Uint8Array.from(noise(48, 255)) });
    const room = new Uint8Array(good.length + 20).fill(7);
    room.set(good, 9);
    expect(decodePng(room.subarray(9, 9 + good.length), "x").data).toEqual(decodePng(good, "x").data);
  });

  test("a sheet of the shipped pictures decodes", async () => {
    const sheet = decodePng(await new NodeFiles().readBytes(join(MODELS, "embedded/pictures-older.png")), "older");
    expect(sheet).toMatchObject({ width: 1600, height: 1152, channels: 3, depth: 8 });
  });
});

describe("planes", () => {
  test("planes and 8-bit pictures are inverse to each other", () => {
    const data = Uint8Array.from(noise(6 * 4 * 3, 255));
    const picture = { width: 6, height: 4, channels: 3, depth: 8, data, text: {} } as const;
    expect(fromPlanes(toPlanes(picture), 6, 4).data).toEqual(data);
  });

  test("values outside [0, 1] are clamped and transparency shows white", () => {
    expect([...fromPlanes(Float32Array.of(-1, 0.5, 2), 1, 1).data]).toEqual([0, 128, 255]);
    const half = { width: 1, height: 1, channels: 4, depth: 8, data: Uint8Array.of(0, 255, 0, 0), text: {} } as const;
    expect([...toPlanes(half)]).toEqual([1, 1, 1]);
  });

  test("a grid places cells row by row, enlarged, and leaves missing ones white", () => {
    const black = new Float32Array(3 * 2);
    const grid = pictureGrid([black, null, black], 2, 1, { columns: 2, gap: 1, zoom: 2 });
    expect([grid.width, grid.height]).toEqual([11, 7]);
    const row = (y: number) =>
      Array.from({ length: 11 }, (_, x) => (grid.data[(y * 11 + x) * 3] === 0 ? "#" : ".")).join("");
    expect([0, 1, 2, 3, 4, 5, 6].map(row)).toEqual([
      "...........",
      ".####......",
      ".####......",
      "...........",
      ".####......",
      ".####......",
      "...........",
    ]);
  });

  test("a data address holds the bytes", () => {
    const bytes = Uint8Array.from(noise(100_000, 255));
    const uri = dataUri(bytes);
    expect(uri.startsWith("data:image/png;base64,")).toBe(true);
    expect(Buffer.from(uri.split(",")[1]!, "base64").equals(bytes)).toBe(true);
  });
});
