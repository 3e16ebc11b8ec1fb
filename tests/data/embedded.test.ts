import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import {
  attributeCaption,
  caption,
  categoryCaption,
  EmbeddedData,
  GENERATOR_STYLES,
  plainCaption,
  QUALITIES,
  STYLES,
} from "../../src/data/embedded.ts";
import { promptPair } from "../../src/data/prompts.ts";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { T5Tokenizer } from "../../src/data/tokenizers/t5.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { MemoryFiles, MODELS, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";

const folder = join(MODELS, "embedded");
const files = new NodeFiles();
const fixture = JSON.parse(readFileSync(join(OWN_FIXTURES, "embedded/fixture.json"), "utf8"));
let data: EmbeddedData;

beforeAll(async () => {
  data = await EmbeddedData.load(files, folder);
});

describe("the embedded items", () => {
  test("525 concepts: 94 of the tail, 32 of them aligned, evenly spread, and 24 of the head are judged", () => {
    expect([data.items.length, data.tail.length, data.head.length, data.aligned.length]).toEqual([525, 94, 431, 32]);
    expect(data.aligned.map((item) => data.tail.indexOf(item))).toEqual(
      Array.from({ length: 32 }, (_, k) => Math.floor((k * 94) / 32)),
    );
    const head = data.headProtocol.map((item) => item.item);
    expect(head).toHaveLength(24);
    expect([head[0], head[1], head[12], head[23]]).toEqual(["cyclone", "cloud with snow", "woman's hat", "yarn"]);
    expect(data.headProtocol.every((item, i) => data.head.indexOf(item) === 18 * i)).toBe(true);
  });

  test("the grammar gives the captions of the item list and of the reference's updates", () => {
    for (const item of data.items) {
      expect(plainCaption(item)).toBe(item.caption);
      expect(caption(item, { item: false })).toBe(item.fields.category_prompt);
    }
    for (const step of fixture.srpo) {
      step.prompts.forEach((prompt: string, i: number) => {
        const [, style, name] = /^(\w+) icon of (.*)$/.exec(prompt)!;
        const item = data.item(name!);
        expect(plainCaption(item, style!)).toBe(prompt);
        expect(attributeCaption(item, style!)).toBe(step.pos[i]);
        expect(promptPair(item, { kind: "mia" }, 0, prompt)).toEqual({
          pos: step.pos[i],
          neg: prompt,
          source: "attributes",
        });
      });
    }
  });

  test("quality words, category forms and missing regions follow the grammar", () => {
    const taco = data.item("taco");
    expect(caption(taco, { quality: "Blurry", style: "noto", category: true })).toBe("Blurry. noto icon of taco. food");
    expect(caption(taco, { region: true })).toBe("icon of taco. Mexico");
    expect(categoryCaption(taco, "twitter")).toBe("twitter icon of food, Mexico");
    expect(attributeCaption(data.item("cyclone"))).toBe("icon of cyclone. weather");
    expect(categoryCaption(data.item("cyclone"))).toBe("icon of weather");
    expect(() => data.item("flying carpet")).toThrow(/E-DATA-035/);
  });

  test("every caption fits its length and all its tokens have a row in the models' compact tables", async () => {
    const clip = await ClipTokenizer.load(files, join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz"));
    const t5 = await T5Tokenizer.load(files, join(MODELS, "tokenizers/t5/tokenizer.json"));
    const table = async (path: string, name: string) => {
      const weights = await Safetensors.open(files, join(folder, path));
      const ids = new Set(await weights.readI32(name));
      await weights.close();
      return ids;
    };
    const clipRows = await table("text_encoder/model.safetensors", "text_model.embeddings.token_embedding.ids");
    const t5Rows = await table("text_encoder_2/model.safetensors", "shared.ids");
    const rewardRows = await table("reward/open_clip_model.safetensors", "token_embedding.ids");
    let longest = 0;
    for (const item of data.items) {
      for (const style of GENERATOR_STYLES) {
        const prompt = attributeCaption(item, style);
        const [clipIds, t5Ids] = [clip.encode(prompt), t5.encode(prompt)];
        for (const id of clipIds)
          if (!clipRows.has(id) || !rewardRows.has(id)) expect.fail(`${prompt}: CLIP token ${id} has no row`);
        for (const id of t5Ids) if (!t5Rows.has(id)) expect.fail(`${prompt}: T5 token ${id} has no row`);
        if (clipIds.length > 24 || t5Ids.length > 20) expect.fail(`${prompt} is too long`);
        longest = Math.max(longest, clipIds.length);
      }
      for (const quality of QUALITIES)
        for (const id of clip.encode(caption(item, { quality }))) expect(rewardRows.has(id)).toBe(true);
    }
    expect(longest).toBeGreaterThan(10);
  });
});

describe("the embedded pictures", () => {
  test("there are 2,529: nearly every item in every style, the first Noto design only where it exists", () => {
    const counts = STYLES.map((style) => data.items.filter((item) => data.stylesOf(item).includes(style)).length);
    expect(counts).toEqual([525, 525, 524, 524, 431]);
    expect(data.stylesOf(data.item("piñata"))).toEqual(["noto", "twitter"]);
  });

  test("a picture is cut from its sheet as planes in [0, 1] on white", async () => {
    const taco = data.item("taco");
    const planes = (await data.picture(taco, "noto"))!;
    const bytes = (await data.pictureBytes(taco, "noto"))!;
    expect([planes.length, bytes.width, bytes.height]).toEqual([3 * 64 * 64, 64, 64]);
    expect([planes[0], planes[4096], planes[8192]]).toEqual([1, 1, 1]);
    for (const [c, y, x] of [
      [0, 32, 32],
      [1, 20, 40],
      [2, 50, 10],
    ]) {
      expect(planes[c! * 4096 + y! * 64 + x!]).toBe(Math.fround(bytes.data[(y! * 64 + x!) * 3 + c!]! / 255));
    }
    // A taco is yellow and red: on the whole more red than blue.
    const mean = (c: number) => planes.subarray(c * 4096, (c + 1) * 4096).reduce((a, b) => a + b) / 4096;
    expect(mean(0) - mean(2)).toBeGreaterThan(0.1);
    expect(await data.picture(data.item("piñata"), "fluent")).toBeNull();
  });

  test("all pictures of a style are different and none is empty", async () => {
    const seen = new Set<string>();
    for (const item of data.items) {
      const { data: bytes } = (await data.pictureBytes(item, "twitter"))!;
      if (bytes.every((value) => value === 255)) expect.fail(`${item.item} is empty`);
      seen.add(Buffer.from(bytes as Uint8Array).toString("latin1"));
    }
    expect(seen.size).toBe(525);
  });

  test("the attribution lines name every source once", () => {
    expect(data.attribution()).toHaveLength(4);
    expect(data.attribution(["twitter"])[0]).toMatch(/Twemoji.*CC-BY 4\.0/);
  });

  test("an index that points elsewhere or lacks fields is refused", async () => {
    const items = '[{"caption":"icon of a","item":"a"}]';
    const index = (change: object) =>
      JSON.stringify({
        cell: 64,
        styles: { noto: { attribution: "x" } },
        pictures: [{ item: "a", style: "noto", sheet: "s.png", column: 0, row: 0, ...change }],
      });
    for (const change of [{ sheet: "../s.png" }, { column: -1 }, { style: "other" }, { item: 3 }]) {
      const store = new MemoryFiles({ "m/items.json": items, "m/pictures.json": index(change) });
      await expect(EmbeddedData.load(store, "m")).rejects.toMatchObject({ code: "E-DATA-034" });
    }
    const store = new MemoryFiles({ "m/items.json": items, "m/pictures.json": index({}), "m/s.png": "no picture" });
    const broken = await EmbeddedData.load(store, "m");
    await expect(broken.picture(broken.item("a"), "noto")).rejects.toMatchObject({
      code: "E-DATA-020",
      parts: { where: "m/s.png" },
    });
  });
});
