import { strToU8 } from "fflate";
import { describe, expect, test } from "vitest";
import { ParquetPictures } from "../../src/formats/parquet.ts";
import { guardZstd } from "../../src/formats/parquet_pages.ts";
import { safeName } from "../../src/formats/safe_name.ts";
import { parseThrift } from "../../src/formats/thrift.ts";
import { ZipArchive } from "../../src/formats/zip.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { parquetOf, pngOf, zipOf } from "../helpers/pictures.ts";

const openZip = (bytes: Uint8Array, limits = {}) =>
  ZipArchive.open(new MemoryFiles({ "a.zip": bytes }), "a.zip", limits);

/** Place of the first directory entry, of a name of its own. */
function directoryEntry(zip: Uint8Array, name: string): number {
  const text = new TextDecoder("latin1").decode(zip);
  for (let at = text.indexOf("PK\x01\x02"); at >= 0; at = text.indexOf("PK\x01\x02", at + 1))
    if (text.slice(at + 46, at + 46 + name.length) === name) return at;
  throw new Error(`no entry ${name}`);
}

function changed(bytes: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const copy = bytes.slice();
  change(new DataView(copy.buffer));
  return copy;
}

describe("zip archives", () => {
  test("stored and deflated entries come back, in folders and with names of any script", async () => {
    const content = { "a.txt": "hello", "été/ö.txt": "deep", "big.bin": new Uint8Array(100_000).fill(7) };
    for (const level of [0, 6] as const) {
      const zip = await openZip(zipOf(content, level));
      expect(zip.refused).toEqual([]);
      const found = await Promise.all(zip.entries.map(async (entry) => [entry.name, (await zip.read(entry)).length]));
      expect(Object.fromEntries(found)).toEqual({ "a.txt": 5, "été/ö.txt": 4, "big.bin": 100_000 });
    }
  });

  test("names that lead out of the archive are refused and reported", async () => {
    for (const name of ["../a.png", "/a.png", "x/../../a.png", "c:/a.png", "..\\a.png", "\\\\server\\a.png"]) {
      const zip = await openZip(zipOf({ [name]: "x", "good.txt": "y" }));
      expect(zip.entries.map((entry) => entry.name)).toEqual(["good.txt"]);
      expect(zip.refused).toMatchObject([{ code: "E-DATA-046" }]);
    }
    expect(["a/./b.png", "a\\b.png", "a//b.png"].map(safeName)).toEqual(["a/b.png", "a/b.png", "a/b.png"]);
    expect([null, 3, "", ".", "a\0b", "..", "x/.."].map(safeName)).toEqual([null, null, null, null, null, null, null]);
  });

  test("sizes that lie, bombs, encryption, links and unknown methods are refused one by one", async () => {
    const bytes = zipOf({ "a.bin": new Uint8Array(5000), "b.txt": "fine" });
    const at = directoryEntry(bytes, "a.bin");
    const cases: [string, (view: DataView) => unknown, RegExp][] = [
      ["too large", (view) => view.setUint32(at + 24, 0xfffffff0, true), /announces/],
      ["impossible ratio", (view) => view.setUint32(at + 24, 200_000_000, true), /cannot become/],
      ["encrypted", (view) => view.setUint16(at + 8, 1, true), /encrypted/],
      ["method", (view) => view.setUint16(at + 10, 12, true), /method 12/],
      ["link", (view) => [view.setUint8(at + 5, 3), view.setUint32(at + 38, 0xa1ff0000, true)], /link/],
      ["beyond the end", (view) => view.setUint32(at + 42, bytes.length, true), /beyond/],
    ];
    for (const [name, change, why] of cases) {
      const zip = await openZip(changed(bytes, change));
      expect(
        zip.entries.map((entry) => entry.name),
        name,
      ).toEqual(["b.txt"]);
      expect(zip.refused[0]!.why, name).toMatch(why);
    }
    for (const [change, why] of [
      [(view: DataView) => view.setUint32(at + 24, 4000, true), /longer than/],
      [(view: DataView) => view.setUint32(at + 24, 6000, true), /ends after/],
      [(view: DataView) => view.setUint32(at + 16, 1, true), /checksum/],
    ] as const) {
      const zip = await openZip(changed(bytes, change));
      await expect(zip.read(zip.entries[0]!)).rejects.toMatchObject({
        code: "E-FILE-082",
        parts: { why: expect.stringMatching(why) },
      });
    }
  });

  test("entries that share their data are refused, and a double name is reported", async () => {
    const bytes = zipOf({ "a.txt": "aaaa", "b.txt": "bbbb" }, 0);
    const shared = changed(bytes, (view) => view.setUint32(directoryEntry(bytes, "b.txt") + 42, 0, true));
    expect((await openZip(shared)).refused).toMatchObject([{ name: "b.txt", why: expect.stringMatching(/shares/) }]);
    const renamed = bytes.slice();
    renamed.set(strToU8("a.txt"), directoryEntry(bytes, "b.txt") + 46);
    expect((await openZip(renamed)).refused).toMatchObject([{ name: "a.txt", code: "E-DATA-047" }]);
  });

  test("every cut is an error with a code, and too many entries are", async () => {
    const bytes = zipOf({ "a.txt": "hello", "b.txt": "x" });
    for (let length = 0; length < bytes.length; length++)
      await expect(openZip(bytes.subarray(0, length))).rejects.toMatchObject({ code: "E-FILE-080" });
    await expect(openZip(bytes, { maxEntries: 1 })).rejects.toMatchObject({ code: "E-FILE-081" });
  });
});

const openParquet = (bytes: Uint8Array, columns = {}) =>
  ParquetPictures.open(new MemoryFiles({ "a.parquet": bytes }), "a.parquet", columns);
const rows = [
  { image: pngOf(4, 4), text: "first" },
  { image: pngOf(5, 3), text: "zweites Bild é" },
  { image: null, text: "no picture" },
  { image: pngOf(4, 4), text: null },
  { image: pngOf(4, 4), text: "first" },
];

describe("parquet tables", () => {
  for (const codec of ["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI"] as const) {
    test(`rows come back group by group from ${codec}, absent values too`, async () => {
      for (const struct of [false, true]) {
        const table = await openParquet(parquetOf(rows, { codec, struct }));
        expect(table.groups).toEqual([2, 2, 1]);
        const found = (await Promise.all(table.groups.map((_, g) => table.readGroup(g)))).flat();
        expect(found.map((row) => row.image && [...row.image])).toEqual(rows.map((row) => row.image && [...row.image]));
        const texts = found.map((row) => row.caption && new TextDecoder().decode(row.caption));
        expect(texts).toEqual(rows.map((row) => row.text));
        if (struct) expect(found[1]!.path).toBe("p1.png");
      }
    });
  }

  test("a column of repeated values comes from a dictionary", async () => {
    const many = Array.from({ length: 300 }, (_, i) => ({ image: pngOf(2, 2, i % 3), text: `caption ${i % 5}` }));
    const table = await openParquet(parquetOf(many, { rowGroupSize: 300 }));
    const found = await table.readGroup(0);
    expect(found.map((row) => new TextDecoder().decode(row.caption!))).toEqual(many.map((row) => row.text));
    expect(found.every((row, i) => row.image!.length === many[i]!.image.length)).toBe(true);
  });

  test("columns are guessed or named; a missing one and one of another type are errors that list what is there", async () => {
    const bytes = parquetOf(rows, { imageColumn: "jpg", captionColumn: "Prompt" });
    expect((await openParquet(bytes)).columns).toEqual({ image: "jpg", caption: "Prompt" });
    const odd = parquetOf(rows, { imageColumn: "pixels", captionColumn: "words" });
    await expect(openParquet(odd)).rejects.toMatchObject({
      code: "E-FILE-086",
      parts: { why: expect.stringContaining("pixels, words") },
    });
    expect((await openParquet(odd, { image: "pixels" })).columns).toEqual({ image: "pixels", caption: null });
    await expect(openParquet(odd, { image: "pixels", caption: "word" })).rejects.toThrow(/did you mean words/);
  });

  test("every cut and hundreds of altered bytes are an error with a code, or harmless", async () => {
    const bytes = parquetOf(rows);
    const tryAll = async (content: Uint8Array) => {
      try {
        const table = await openParquet(content);
        for (const [g] of table.groups.entries()) await table.readGroup(g);
      } catch (error) {
        expect((error as { code?: string }).code).toMatch(/^E-FILE-0(85|86|03)$/);
      }
    };
    for (let length = 0; length < bytes.length; length += 5) await tryAll(bytes.subarray(0, length));
    for (let at = 0; at < bytes.length; at += 3) {
      const bad = bytes.slice();
      bad[at]! ^= 1 << (at % 8);
      await tryAll(bad);
    }
  });

  test("lists longer than the file and endless nesting are refused before anything is built", () => {
    const list = Uint8Array.of(0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07);
    expect(() => parseThrift(list)).toThrow(/longer than the file/);
    expect(() => parseThrift(new Uint8Array(1000).fill(0x1c))).toThrow(/nested too deeply/);
    const zstd = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x03, 0xff, 0xff, 0x00);
    expect(() => guardZstd(zstd, 100)).toThrow();
  });
});
