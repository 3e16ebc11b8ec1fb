import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { CLIP_PADDING, ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { T5Tokenizer } from "../../src/data/tokenizers/t5.ts";
import { MemoryFiles, MODELS, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";

const read = (path: string) => JSON.parse(readFileSync(join(OWN_FIXTURES, path), "utf8"));
const embedded = read("embedded/fixture.json");
const files = new NodeFiles();
let clip: ClipTokenizer;
let t5: T5Tokenizer;

beforeAll(async () => {
  clip = await ClipTokenizer.load(files, join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz"));
  t5 = await T5Tokenizer.load(files, join(MODELS, "tokenizers/t5/tokenizer.json"));
});

describe("the CLIP tokenizer", () => {
  test("gives the reference's ids with both paddings for all test strings", () => {
    for (const { text, hf_pad49407, openclip_pad0 } of read("tokenizers/fixtures_clip.json")) {
      expect([...clip.encodeFixed(text)], text).toEqual(hf_pad49407);
      expect([...clip.encodeFixed(text, 77, CLIP_PADDING.open_clip)], text).toEqual(openclip_pad0);
    }
  });

  test("gives the embedded experiment's ids", () => {
    embedded.texts.forEach((text: string, i: number) => expect(clip.encode(text)).toEqual(embedded.clip_ids[i]));
  });

  test("a text that is too long keeps start and end", () => {
    const ids = clip.encodeFixed("icon ".repeat(100), 24);
    expect([ids.length, ids[0], ids[23]]).toEqual([24, 49406, 49407]);
    expect(ids[22]).not.toBe(49407);
  });

  test("case, spaces around and composed letters do not matter", () => {
    expect(clip.encode("  Café\n\tOLÉ ")).toEqual(clip.encode("cafe\u0301 olé"));
    expect(clip.encode("")).toEqual([49406, 49407]);
    expect(clip.encode("a<|endoftext|>b")).toEqual([49406, ...clip.encode("a").slice(1), ...clip.encode("b").slice(1)]);
  });

  test("another file in its place is refused by name", async () => {
    const other = new MemoryFiles({ "vocab.gz": Uint8Array.of(1, 2, 3) });
    await expect(ClipTokenizer.load(other, "vocab.gz")).rejects.toMatchObject({
      code: "E-FILE-019",
      parts: { where: "vocab.gz" },
    });
    const short = new Uint8Array(
      await new Response(
        new Blob(["#version\na b\n"]).stream().pipeThrough(new CompressionStream("gzip")),
      ).arrayBuffer(),
    );
    await expect(ClipTokenizer.load(new MemoryFiles({ "vocab.gz": short }), "vocab.gz")).rejects.toMatchObject({
      code: "E-FILE-020",
    });
  });
});

describe("the T5 tokenizer", () => {
  test("gives the reference's ids for all test strings", () => {
    for (const { text, ids } of read("tokenizers/fixtures_t5.json")) expect(t5.encode(text), text).toEqual(ids);
  });

  test("gives the embedded experiment's ids, filled up with 0", () => {
    embedded.texts.forEach((text: string, i: number) => {
      expect(t5.encode(text)).toEqual(embedded.t5_ids[i]);
      expect([...t5.encodeFixed(text, 20)]).toEqual([
        ...embedded.t5_ids[i],
        ...Array(20 - embedded.t5_ids[i].length).fill(0),
      ]);
    });
  });

  test("a text that is too long keeps the end token", () => {
    const ids = t5.encodeFixed("a bowl of jollof rice", 5);
    expect([...ids]).toEqual([...t5.encode("a bowl of jollof rice").slice(0, 4), 1]);
  });

  test("a file that is no tokenizer is refused by name", async () => {
    const other = new MemoryFiles({ "tokenizer.json": "{}", "broken.json": "{" });
    await expect(T5Tokenizer.load(other, "tokenizer.json")).rejects.toMatchObject({ code: "E-FILE-020" });
    await expect(T5Tokenizer.load(other, "broken.json")).rejects.toMatchObject({ code: "E-DATA-010" });
  });
});
