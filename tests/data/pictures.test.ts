import { afterEach, describe, expect, test } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import {
  type CollectionOptions,
  droppedTable,
  openPictureSets,
  type PictureCollection,
  type PictureSetOptions,
} from "../../src/data/pictures/sets.ts";
import { encodePng } from "../../src/formats/png.ts";
import { MemoryFiles, MODELS, NodeFiles } from "../helpers/files.ts";
import { gradient, jpegOf, parquetOf, pngOf, withOrientation, zipOf } from "../helpers/pictures.ts";

type Content = Record<string, Uint8Array | string>;

const opened: { collection: PictureCollection; files: MemoryFiles }[] = [];
async function open(content: Content, set: Partial<PictureSetOptions> = {}, options: CollectionOptions = {}) {
  const files = new MemoryFiles(content);
  const collection = await openPictureSets(files, [{ path: "set", ...set }], options);
  opened.push({ collection, files });
  return collection;
}
afterEach(async () => {
  for (const { collection, files } of opened.splice(0)) {
    await collection.close();
    expect(files.openHandles).toBe(0);
  }
});

const captions = (collection: PictureCollection) =>
  Object.fromEntries(collection.pictures.map((p) => [p.name, p.captions]));
const reasons = (collection: PictureCollection) =>
  Object.fromEntries(collection.dropped.map((file) => [file.name, file.code]));
const png = pngOf(8, 6);

describe("a folder of pictures", () => {
  test("metadata wins over .txt, .txt over .caption, then comes the default; without any a picture is dropped", async () => {
    const content = {
      "set/metadata.jsonl":
        '\ufeff{"file_name":"a.png","text":"from metadata"}\n\n{"file_name":"b.png"}\n{"file_name":"deep/e.png","text":"below"}\n',
      "set/a.png": png,
      "set/a.txt": "from txt",
      "set/b.png": png,
      "set/b.txt": " from txt \n",
      "set/b.caption": "from caption",
      "set/c.PNG": png,
      "set/c.caption": "from caption",
      "set/c.txt": "  \n ",
      "set/d.png": png,
      "set/deep/e.png": png,
      "set/deep/f.png": png,
      "set/deep/f.txt": "in a folder",
      "set/notes.md": "not a picture",
      "set/.hidden.png": png,
    };
    const expected = {
      "a.png": ["from metadata"],
      "b.png": ["from txt"],
      "c.PNG": ["from caption"],
      "deep/e.png": ["below"],
      "deep/f.png": ["in a folder"],
    };
    const without = await open(content);
    expect(captions(without)).toEqual(expected);
    expect(without.dropped).toMatchObject([{ name: "d.png", set: 0, code: "E-DATA-040" }]);
    expect(captions(await open(content, { caption: "the default" }))).toEqual({
      ...expected,
      "d.png": ["the default"],
    });
  });

  test("records know size, hash, weight, split and repeats, and load the picture upright", async () => {
    const tall = withOrientation(jpegOf(gradient(20, 10)), 6);
    const collection = await open(
      {
        "set/metadata.jsonl":
          '{"file_name":"3_cat/t.jpg","text":["one","two"],"tags":["x","y"],"weight":0.5,"split":"val"}',
        "set/3_cat/t.jpg": tall,
        "set/3_cat/copy.png": tall,
        "set/3_cat/copy.txt": "wrong ending",
      },
      { repeats: 2, weight: 4, name: "cats" },
    );
    expect(collection.pictures).toMatchObject([
      {
        id: "cats/3_cat/copy.png",
        captions: ["wrong ending"],
        width: 10,
        height: 20,
        repeats: 6,
        weight: 4,
        split: "train",
      },
      {
        id: "cats/3_cat/t.jpg",
        captions: ["one, x, y", "two, x, y"],
        repeats: 6,
        weight: 2,
        split: "validation",
        prior: false,
      },
    ]);
    expect(collection.pictures[0]!.hash).toBe(collection.pictures[1]!.hash);
    expect(collection.notices).toEqual(["folder 3_cat: each picture is shown 3 times a pass, as its name says"]);
    expect(await collection.pictures[0]!.load()).toMatchObject({ width: 10, height: 20, channels: 3, depth: 8 });
  });

  test("several captions: the first line, each line, or the whole text", async () => {
    const content = { "set/a.png": png, "set/a.txt": "\r\none\r\n\r\ntwo\tb\n" };
    expect(captions(await open(content))["a.png"]).toEqual(["one"]);
    expect(captions(await open(content, { captionLines: "each" }))["a.png"]).toEqual(["one", "two b"]);
    expect(captions(await open(content, { captionLines: "whole" }))["a.png"]).toEqual(["one two b"]);
  });

  test("each file that cannot be used is dropped with its reason, and the rest is used", async () => {
    const collection = await open(
      {
        "set/empty.png": new Uint8Array(0),
        "set/cut.png": png.subarray(0, 60),
        "set/text.png": "hello",
        "set/film.gif": "GIF89a\0\0\0\0",
        "set/dir.png/inner.png": png,
        "set/long.png": png,
        "set/long.txt": "word ".repeat(200_000),
        "set/latin.png": png,
        "set/latin.txt": Uint8Array.of(0x63, 0xe9, 0x66),
        "set/nul.png": png,
        "set/nul.txt": "a\0b",
        "set/wide.png": png,
        "set/wide.txt": Uint8Array.of(0xff, 0xfe, 0x6b, 0, 0xe9, 0),
        "set/0_off/x.png": png,
        "set/ok.png": png,
        "set/ok.txt": "fine",
      },
      { caption: "default" },
      { maxPixels: 100 },
    );
    expect(reasons(collection)).toEqual({
      "empty.png": "E-DATA-024",
      "cut.png": "E-DATA-020",
      "text.png": "E-DATA-021",
      "film.gif": "E-DATA-021",
      "dir.png": "E-FILE-001",
      "long.png": "E-DATA-043",
      "latin.png": "E-DATA-044",
      "nul.png": "E-DATA-044",
      "0_off/x.png": "E-DATA-049",
    });
    expect(captions(collection)).toEqual({ "ok.png": ["fine"], "wide.png": ["ké"] });
    expect(droppedTable(collection.dropped)[0]).toMatchObject({ count: 2 });
  });

  test("lines of metadata that lie are reported with their line; a caption is never taken from elsewhere instead", async () => {
    const lines = ['"gone.png"', '"../a.png"', '"/a.png"', '"x/../../a.png"', '"c:/a.png"', "3", '""', '"notes.txt"'];
    const content: Content = {
      "set/a.png": png,
      "set/a.txt": "a",
      "set/b.png": png,
      "set/b.txt": "b",
      "set/notes.txt": "x",
      "set/c.png": png,
      "set/c.txt": "c",
    };
    content["set/metadata.jsonl"] = [
      ...lines.map((name) => `{"file_name":${name},"text":"x"}`),
      "[1]",
      '{"file_name":"a.png","text":7}',
      '{"file_name":"b.png","weight":-1}',
      '{"file_name":"c.png","text":"good"}',
      '{"file_name":"c.png","text":"again"}',
    ].join("\n");
    const collection = await open(content);
    expect(captions(collection)).toEqual({ "c.png": ["good"] });
    const found = reasons(collection);
    for (let line = 1; line <= lines.length + 1; line++)
      expect(found[`metadata.jsonl:${line}`], `${line}`).toBe("E-DATA-041");
    expect(found).toMatchObject({ "a.png": "E-DATA-041", "b.png": "E-DATA-041", "metadata.jsonl:13": "E-DATA-047" });
    content["set/metadata.jsonl"] = '{"file_name":"a.png"}\n{"file_name":';
    await expect(open(content)).rejects.toThrow(/E-DATA-010 set\/metadata.jsonl:2/);
    content["set/metadata.jsonl"] = `{"file_name":"a.png","text":${"[".repeat(100_000)}`;
    await expect(open(content)).rejects.toThrow(/E-DATA-010/);
  });

  test("nothing left and a missing path are errors that say why", async () => {
    await expect(open({ "set/readme.md": "x" })).rejects.toMatchObject({ code: "E-DATA-042" });
    await expect(open({ "set/a.png": png })).rejects.toThrow(/E-DATA-042 set:.*1 × E-DATA-040 \(a.png/);
    await expect(open({}, { path: "nowhere" })).rejects.toMatchObject({ code: "E-FILE-001" });
  });

  test("transparent pictures are laid on the chosen colour", async () => {
    const clear = encodePng({ width: 1, height: 1, channels: 4, depth: 8, data: Uint8Array.of(9, 9, 9, 0) });
    const collection = await open({ "set/a.png": clear }, { caption: "x" }, { background: [1, 0, 0] });
    expect([...(await collection.pictures[0]!.load()).data]).toEqual([255, 0, 0]);
  });
});

describe("other sources", () => {
  const parts = {
    "metadata.jsonl": '{"file_name":"a.png","text":"one"}',
    "a.png": png,
    "2_dogs/b.jpg": jpegOf(gradient(9, 9)),
    "2_dogs/b.txt": "two",
  };

  test("a zip archive reads like the folder, with or without a folder around everything", async () => {
    for (const prefix of ["", "wrapped/"]) {
      const zip = zipOf({
        ...Object.fromEntries(Object.entries(parts).map(([name, data]) => [prefix + name, data])),
        "../out.png": png,
        "__MACOSX/._a.png": "x",
      });
      const files = new MemoryFiles({ "my/set.zip": zip });
      const collection = await openPictureSets(files, [{ path: "my/set.zip" }]);
      expect(captions(collection)).toEqual({ "a.png": ["one"], "2_dogs/b.jpg": ["two"] });
      expect(collection.pictures[0]).toMatchObject({ id: "set.zip/2_dogs/b.jpg", repeats: 2 });
      expect(collection.dropped).toMatchObject([{ name: "../out.png", code: "E-DATA-046" }]);
      expect(await collection.pictures[0]!.load()).toMatchObject({ width: 9, height: 9 });
      await collection.close();
      expect(files.openHandles).toBe(0);
    }
  });

  test("a parquet file, or a folder of them, gives its rows", async () => {
    const rows = [
      { image: png, text: "one\nmore" },
      { image: pngOf(5, 5), text: "two" },
      { image: null, text: "three" },
      { image: pngOf(6, 6), text: null },
    ];
    const one = await open({ set: parquetOf(rows) }, { kind: "parquet" });
    expect(captions(one)).toEqual({ 0: ["one"], 1: ["two"] });
    expect(reasons(one)).toEqual({ 2: "E-DATA-024", 3: "E-DATA-040" });
    expect(await one.pictures[1]!.load()).toMatchObject({ width: 5 });
    const several = await open(
      { "set/data/a.parquet": parquetOf(rows), "set/data/b.parquet": parquetOf(rows) },
      { caption: "default" },
    );
    expect(Object.keys(captions(several))).toEqual([
      "a.parquet/0",
      "a.parquet/1",
      "a.parquet/3",
      "b.parquet/0",
      "b.parquet/1",
      "b.parquet/3",
    ]);
  });

  test("a list of items names pictures beside it", async () => {
    const items = [
      { item: "taco", caption: "a taco", picture: "p/taco.png" },
      { item: "oden", caption: "oden", pictures: ["p/o1.png", "p/o2.png"] },
      { caption: "none" },
      { caption: "out", picture: "../x.png" },
    ];
    const collection = await open(
      { "set/items.json": JSON.stringify(items), "set/p/taco.png": png, "set/p/o1.png": png },
      { path: "set/items.json" },
    );
    expect(captions(collection)).toEqual({ "p/taco.png": ["a taco"], "p/o1.png": ["oden"] });
    expect(collection.dropped.map((file) => file.code).sort()).toEqual(["E-DATA-041", "E-DATA-041", "E-FILE-001"]);
  });

  test("the shipped sheets give pictures by style and items, with captions of their grammar", async () => {
    const options = {
      path: `${MODELS}/embedded`,
      styles: ["noto", "gloss"],
      items: "aligned",
      captionForm: "both",
    } as const;
    const collection = await openPictureSets(new NodeFiles(), [options]);
    expect(collection.pictures.length).toBeGreaterThanOrEqual(32);
    const first = collection.pictures.find((picture) => picture.name.startsWith("noto/"))!;
    expect(first.captions[0]).toBe(`noto icon of ${first.name.slice(5)}`);
    expect(first.captions[1]).toMatch(/^noto icon of .*\. /);
    expect(await first.load()).toMatchObject({ width: 64, height: 64, channels: 3 });
    expect(collection.attribution.length).toBeGreaterThan(0);
    await collection.close();
  });

  test("sets of one name are told apart, and failures close what was opened", async () => {
    const files = new MemoryFiles({
      "a/set/x.png": png,
      "b/set/x.png": png,
      "bad.zip": "nothing",
      "good.zip": zipOf(parts),
    });
    const collection = await openPictureSets(files, [
      { path: "a/set", caption: "x" },
      { path: "b/set", caption: "y", prior: true },
    ]);
    expect(collection.pictures.map((picture) => [picture.id, picture.prior])).toEqual([
      ["set/x.png", false],
      ["set#2/x.png", true],
    ]);
    await expect(openPictureSets(files, [{ path: "good.zip" }, { path: "bad.zip" }])).rejects.toMatchObject({
      code: "E-FILE-080",
    } satisfies Partial<LongtailError>);
    expect(files.openHandles).toBe(0);
  });
});

describe("held-out pictures", () => {
  const many = (count: number, skip = -1): Content =>
    Object.fromEntries(
      Array.from({ length: count }, (_, i) => [`set/${i}.png`, pngOf(4, 4, i)] as const).filter((_, i) => i !== skip),
    );
  const heldOut = async (content: Content, seed: number) =>
    (await open(content, { caption: "x" }, { validationShare: 0.2, seed })).pictures
      .filter((p) => p.split === "validation")
      .map((p) => p.name);

  test("the share is met, the same seed gives the same pictures, and others hardly move when one goes", async () => {
    const first = await heldOut(many(30), 1);
    expect(first).toHaveLength(6);
    expect(await heldOut(many(30), 1)).toEqual(first);
    expect(await heldOut(many(30), 2)).not.toEqual(first);
    const fewer = await heldOut(many(30, 3), 1);
    expect(fewer.filter((name) => !first.includes(name)).length).toBeLessThanOrEqual(1);
  });

  test("copies of a picture stay on one side", async () => {
    const content = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`set/${i}.png`, pngOf(4, 4, i % 10)]));
    const collection = await open(content, { caption: "x" }, { validationShare: 0.3, seed: 5 });
    const sides = Map.groupBy(collection.pictures, (p) => p.hash);
    for (const group of sides.values()) expect(new Set(group.map((p) => p.split)).size).toBe(1);
    expect(collection.pictures.filter((p) => p.split === "validation")).toHaveLength(6);
  });
});
