// The worker's side of own pictures: what is dropped ends in the layout that `longtail train --data=` reads, or with a
// coded reason; hostile files neither hang nor take memory that their size does not justify.

import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { openPictureSets } from "../../src/data/pictures/sets.ts";
import { crc32 } from "../../src/formats/inflate.ts";
import type { Picture } from "../../src/formats/png.ts";
import { PictureShelf, type PictureShelfOptions } from "../../src/web/worker/pictures.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { HOSTILE_KINDS, hostileInput } from "../helpers/hostile.ts";
import { gradient, jpegOf, pngOf, withOrientation, zipOf } from "../helpers/pictures.ts";

type Content = Uint8Array | string;

const incoming = (content: Record<string, Content>) =>
  Object.entries(content).map(([name, data]) => ({ name, blob: new Blob([data as Uint8Array<ArrayBuffer>]) }));

function shelfOf(options: PictureShelfOptions = {}) {
  const files = new MemoryFiles();
  return { files, shelf: new PictureShelf(files, options) };
}

/** Adds the files to a new set and gives back what is known of it. */
async function added(content: Record<string, Content>, options: PictureShelfOptions = {}) {
  const { files, shelf } = shelfOf(options);
  const facts = await shelf.add("mine", incoming(content));
  expect(files.openHandles).toBe(0);
  return { files, shelf, facts };
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "none",
    (error) => (error instanceof LongtailError ? error.code : String(error)),
  );

/** A browser's decoder for tests: a grey picture of any size. */
const greyDecoder = async (): Promise<Picture> => ({ ...gradient(20, 10), text: {} });

function webp(width: number, height: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(40);
  const put = (at: number, text: string) => bytes.set(new TextEncoder().encode(text), at);
  put(0, "RIFF");
  put(8, "WEBPVP8X");
  bytes[20] = flags;
  for (const [at, side] of [
    [24, width - 1],
    [27, height - 1],
  ] as const)
    bytes.set([side & 255, (side >> 8) & 255, side >> 16], at);
  return bytes;
}

/** A PNG that announces a size it does not have, with a checksum that fits. */
function announced(width: number, height: number): Uint8Array {
  const png = pngOf(8, 8).slice();
  const view = new DataView(png.buffer);
  view.setUint32(16, width);
  view.setUint32(20, height);
  view.setUint32(29, crc32(png.subarray(12, 29)));
  return png;
}

describe("what is added", () => {
  test("lies as pictures and texts that the command line reads with the same captions", async () => {
    const { files, facts } = await added({
      "red_bike-03.png": pngOf(80, 60),
      "cat.jpg": jpegOf(gradient(64, 64)),
      "cat.txt": "a cat on a chair\nsecond line",
    });
    expect(facts.dropped).toEqual([]);
    expect(facts.pictures).toEqual([
      { path: "pictures/mine/cat.jpg", width: 64, height: 64, caption: "a cat on a chair" },
      { path: "pictures/mine/red_bike-03.png", width: 80, height: 60, caption: "red bike" },
    ]);
    const read = await openPictureSets(files, [{ path: facts.path }]);
    expect(read.dropped).toEqual([]);
    expect(read.pictures.map(({ name, captions, width }) => [name, captions, width])).toEqual([
      ["cat.jpg", ["a cat on a chair"], 64],
      ["red_bike-03.png", ["red bike"], 80],
    ]);
    await read.close();
  });

  test("keeps the bytes of PNG and JPEG as they are, and reports their size upright", async () => {
    const jpeg = withOrientation(jpegOf(gradient(40, 30)), 6);
    const { files, facts } = await added({ "turned.jpeg": jpeg });
    expect(facts.pictures).toMatchObject([{ path: "pictures/mine/turned.jpg", width: 30, height: 40 }]);
    expect(await files.readBytes("pictures/mine/turned.jpg")).toEqual(jpeg);
  });

  test("takes captions from metadata.jsonl, from a .caption file and from a zip with a folder around everything", async () => {
    const zip = zipOf({
      "set/a.png": pngOf(20, 20, 1),
      "set/b.png": pngOf(20, 20, 2),
      "set/b.caption": "from a file",
      "set/metadata.jsonl": '{"file_name":"a.png","text":"from the list"}\n',
    });
    const { facts } = await added({ "my pictures.zip": zip });
    expect(facts.dropped).toEqual([]);
    expect(facts.pictures.map(({ caption }) => caption)).toEqual(["from the list", "from a file"]);
  });

  test("gets a caption of no words where the name says nothing, and a new one when it is written", async () => {
    const { files, shelf, facts } = await added({ "IMG_2041.png": pngOf(20, 20) });
    expect(facts.pictures[0]!.caption).toBe("");
    await shelf.setCaption(facts.pictures[0]!.path, " icon of\tcat \n");
    expect((await shelf.facts("mine")).pictures[0]!.caption).toBe("icon of cat");
    expect(await files.readText("pictures/mine/IMG_2041.txt")).toBe("icon of cat");
    expect(await codeOf(shelf.setCaption(facts.pictures[0]!.path, "x".repeat(20_000)))).toBe("E-DATA-043");
  });

  test("is a PNG where only the browser decodes it", async () => {
    const { files, facts } = await added({ "tree.webp": webp(20, 10) }, { decoder: greyDecoder });
    expect(facts.pictures).toMatchObject([{ path: "pictures/mine/tree.png", width: 20, height: 10, caption: "tree" }]);
    expect((await files.readBytes("pictures/mine/tree.png")).subarray(1, 4)).toEqual(Uint8Array.of(0x50, 0x4e, 0x47));
  });

  test("keeps names of any script, and gives equal names numbers that share no text file", async () => {
    const { facts } = await added({
      "猫.png": pngOf(20, 20, 1),
      "cafe\u0301.png": pngOf(20, 20, 2),
      "a/x.png": pngOf(20, 20, 3),
      "a-x.jpg": jpegOf(gradient(20, 20)),
      "A-X.png": pngOf(20, 20, 4),
    });
    expect(facts.dropped).toEqual([]);
    expect(facts.pictures.map(({ path }) => path.slice("pictures/mine/".length)).sort()).toEqual(
      ["A-X.png", "a-x-2.jpg", "a-x-3.png", "caf\u00e9.png", "猫.png"].sort(),
    );
  });

  test("is refused with E-DATA-047 where the same bytes are in the set, and added where only the name is the same", async () => {
    const { shelf } = await added({ "a.png": pngOf(20, 20, 1) });
    const again = await shelf.add("mine", incoming({ "b.png": pngOf(20, 20, 1), "a.png": pngOf(20, 20, 9) }));
    expect(again.dropped).toMatchObject([{ name: "b.png", code: "E-DATA-047" }]);
    expect(again.pictures.map(({ path }) => path)).toEqual(["pictures/mine/a-2.png", "pictures/mine/a.png"]);
  });

  test("can be removed with its text, alone or with the whole set, and nothing else can", async () => {
    const { files, shelf } = await added({ "a.png": pngOf(20, 20, 1), "b.png": pngOf(20, 20, 2) });
    await shelf.removePicture("pictures/mine/a.png");
    expect([...files.content.keys()].sort()).toEqual(["pictures/mine/b.png", "pictures/mine/b.txt"]);
    for (const path of ["runs/x/a.png", "pictures/mine/../../runs/a.png", "pictures/mine/b.txt", "pictures/b.png", ""])
      expect(await codeOf(shelf.removePicture(path))).toMatch(/^E-(FILE-001|DATA-046)$/);
    expect(await shelf.sets()).toMatchObject([{ name: "mine", pictures: 1 }]);
    await shelf.removeSet("mine");
    expect(files.content.size).toBe(0);
  });
});

describe("what is refused", () => {
  test.each<[string, Record<string, Content>, string]>([
    ["a file of 0 bytes", { "a.png": "" }, "E-DATA-024"],
    ["a text that calls itself a picture", { "a.png": "no picture at all" }, "E-DATA-021"],
    ["a program", { "a.exe": "MZ" }, "E-DATA-021"],
    ["a JPEG that was cut off", { "a.jpg": jpegOf(gradient(64, 64)).subarray(0, 700) }, "E-DATA-020"],
    ["a PNG that was cut off", { "a.png": pngOf(64, 64).subarray(0, 200) }, "E-DATA-020"],
    ["a GIF", { "a.gif": "GIF89a……" }, "E-DATA-056"],
    ["an SVG", { "a.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>" }, "E-DATA-056"],
    ["a HEIC", { "a.heic": "\0\0\0\x18ftypheic\0\0\0\0" }, "E-DATA-056"],
    ["a WebP that moves", { "a.webp": webp(20, 10, 2) }, "E-DATA-056"],
    ["a WebP of 100 megapixels", { "a.webp": webp(10_000, 10_000) }, "E-DATA-023"],
    ["a WebP without a header", { "a.webp": webp(20, 10).subarray(0, 14) }, "E-DATA-020"],
    ["a name that leads out", { "../a.png": pngOf(8, 8) }, "E-DATA-046"],
    ["an archive that is none", { "a.zip": "PK\x03\x04 and nothing more" }, "E-FILE-080"],
    ["an archive in an archive", { "a.zip": zipOf({ "b.zip": zipOf({ "c.png": pngOf(8, 8) }) }) }, "E-DATA-021"],
    ["a name in an archive that leads out", { "a.zip": zipOf({ "../../b.png": pngOf(8, 8) }) }, "E-DATA-046"],
    ["a list that is no JSON", { "a.png": pngOf(8, 8), "metadata.jsonl": "{" }, "E-DATA-010"],
    ["a caption of a megabyte", { "a.png": pngOf(8, 8), "a.txt": "x".repeat(1 << 20) }, "E-DATA-043"],
    ["a caption that is no text", { "a.png": pngOf(8, 8), "a.txt": Uint8Array.of(0xff, 1, 0xfe, 0x80) }, "E-DATA-044"],
  ])("%s is left out with its code", async (_, content, code) => {
    const { facts } = await added(content, { decoder: greyDecoder });
    expect(facts.pictures).toEqual([]);
    expect(facts.dropped).toMatchObject([{ code }]);
    expect(facts.dropped[0]!.why).not.toMatch(/undefined|TypeError/);
  });

  test("a picture beyond 50 megapixels is refused by its header, before memory is taken", async () => {
    const before = process.memoryUsage().rss;
    const { facts } = await added({ "big.png": announced(9000, 6000) });
    expect(facts.dropped[0]).toMatchObject({ name: "big.png", code: "E-DATA-023" });
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
  });

  test("a bomb announces more than it has, and does not unpack", async () => {
    const bomb = zipOf({ "bomb.png": new Uint8Array(66 * 1024 * 1024), "ok.png": pngOf(8, 8) });
    const { facts } = await added({ "bomb.zip": bomb });
    expect(facts.pictures.map(({ path }) => path)).toEqual(["pictures/mine/ok.png"]);
    expect(facts.dropped).toMatchObject([{ name: "bomb.png", code: "E-FILE-081" }]);
  });

  test("an archive of a hundred thousand entries is refused whole, soon", async () => {
    const zip = zipOf(Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`${i}.png`, ""])), 0);
    const began = performance.now();
    const { facts } = await added({ "many.zip": zip });
    expect(facts.dropped).toMatchObject([{ name: "many.zip", code: "E-FILE-081" }]);
    expect(performance.now() - began).toBeLessThan(20_000);
  });

  test("of thousands of foreign files two hundred are named and the rest is counted", async () => {
    const { facts } = await added(Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`${i}.exe`, "MZ"])));
    expect(facts.dropped).toHaveLength(201);
    expect(facts.dropped.at(-1)).toMatchObject({ name: "2800 more files" });
  });

  test.each(["", "../x", "a/b", ".hidden", "10_cats", "con", "x".repeat(65), "a."])(
    "a set cannot be called %j",
    async (name) => {
      const { shelf, files } = shelfOf();
      expect(await codeOf(shelf.add(name, incoming({ "a.png": pngOf(8, 8) })))).toBe("E-DATA-057");
      expect(files.content.size).toBe(0);
    },
  );

  test("a full storage ends the call with the storage's own error, and no picture is there without a text", async () => {
    const { shelf, files } = shelfOf();
    files.failWrite = new LongtailError("E-FILE-004", { what: "the storage is full" });
    expect(await codeOf(shelf.add("mine", incoming({ "a.png": pngOf(8, 8) })))).toBe("E-FILE-004");
    files.failWrite = null;
    expect((await shelf.add("mine", incoming({ "a.png": pngOf(8, 8) }))).pictures).toHaveLength(1);
  });

  test.each(HOSTILE_KINDS.map((kind, n) => [kind, n] as const))("%s ends in pictures or in codes", async (_, n) => {
    const { files: content } = hostileInput(20_261_123, n);
    const began = performance.now();
    const { facts, files } = await added(content, { decoder: greyDecoder });
    for (const { code, why } of facts.dropped) {
      expect(code).toMatch(/^E-(DATA|FILE)-\d{3}$/);
      expect(why).not.toMatch(/[\u0000-\u0008]|undefined|TypeError/);
    }
    for (const path of files.content.keys()) expect(path).toMatch(/^pictures\/mine\/[^/]+\.(png|jpg|txt)$/);
    expect(performance.now() - began).toBeLessThan(30_000);
  });
});
