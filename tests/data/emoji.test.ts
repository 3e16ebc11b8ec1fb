// The picture set of the embedded experiment from the lists that come along. Art is played by icon sets that hold the names
// of the shipped index, so that nothing is downloaded.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { EmbeddedData } from "../../src/data/embedded.ts";
import { boxFilter, findIcon, type IconSet, iconSvg } from "../../src/data/emoji/artwork.ts";
import { NumpyGenerator } from "../../src/data/emoji/numpy_permutation.ts";
import {
  buildEmojiSet,
  comparePictures,
  encodeSheet,
  itemsDocument,
  picturesDocument,
  sheetName,
} from "../../src/data/emoji/picture_set.ts";
import { alignedItems, iconNames, readEmojiLists } from "../../src/data/emoji/selection.ts";
import { ART, artFor } from "../../src/data/emoji/sources.ts";
import { pretrainingWeights } from "../../src/data/emoji/weights.ts";
import { MemoryFiles, MODELS, NodeFiles } from "../helpers/files.ts";

const json = (path: string) => JSON.parse(readFileSync(join(MODELS, path), "utf8"));
const items = json("embedded/items.json") as { item: string; tail: boolean; align: boolean; pretrain_weight: number }[];
const index = json("embedded/pictures.json") as {
  pictures: { item: string; style: string; icon: string; sheet: string; column: number; row: number }[];
};

/** Icon sets with an icon for each name of the index, and aliases for other names; an icon's drawing is its number. */
function playedSets(): Map<string, IconSet> {
  const sets = new Map<string, IconSet>(ART.map(({ style }) => [style, { icons: {}, aliases: {} }]));
  index.pictures.forEach(({ style, icon, item }, n) => {
    const set = sets.get(style)!;
    set.icons[icon] = { body: String(n) };
    set.aliases![item.replaceAll(" ", "-")] ??= { parent: icon };
  });
  return sets;
}

/** Draws the number between the tags of a played icon as colours. */
const draw = async (svg: string, width: number) => {
  const n = Number(/>(\d+)</.exec(svg)![1]);
  const pixels = new Uint8Array(width * width * 4);
  for (let i = 0; i < pixels.length; i += 4) pixels.set([n & 255, n >> 8, (i * 7) & 255, 255], i);
  return { width, height: width, pixels };
};

const played = async (side = 4) =>
  buildEmojiSet(await readEmojiLists(new NodeFiles(), join(MODELS, "emoji")), { side, sets: playedSets(), draw });

describe("NumPy's permutation", () => {
  it("gives the numbers of numpy.random.default_rng(0), one call after the other", () => {
    const generator = new NumpyGenerator(0);
    expect(generator.permutation(431).slice(0, 10)).toEqual([85, 232, 223, 147, 390, 242, 41, 153, 204, 348]);
    expect(generator.permutation(94).slice(0, 10)).toEqual([19, 48, 85, 13, 14, 49, 28, 16, 25, 90]);
  });
});

describe("the items", () => {
  it("have the weights that the shipped models were pretrained with", () => {
    const weights = pretrainingWeights(items.map(({ tail }) => tail));
    expect(weights.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    expect([...weights].map((w) => Number(w.toPrecision(4)))).toEqual(items.map((item) => item.pretrain_weight));
  });

  it("are the shipped 525 in their order, with every field of items.json", async () => {
    const set = await played();
    expect(itemsDocument(set.items)).toEqual(items);
    expect([...alignedItems(items, 32)]).toEqual(items.flatMap(({ align }, i) => (align ? [i] : [])));
  });

  it("are told apart in icon sets by names without accents, apostrophes and capitals", async () => {
    const { rules } = await readEmojiLists(new NodeFiles(), join(MODELS, "emoji"));
    expect(iconNames("Christmas tree", rules)).toEqual(["christmas-tree"]);
    expect(iconNames("woman’s hat", rules)).toEqual(["womans-hat"]);
    expect(iconNames("piñata", rules)).toEqual(["pinata"]);
    expect(iconNames("paella", rules)).toEqual(["shallow-pan-of-food"]);
  });

  it("come from lists whose broken line is named", async () => {
    const files = new MemoryFiles({
      "e/names.tsv": "taco\tfood\nbroken\n",
      "e/tail.tsv": "",
      "e/selection.json": "{}",
    });
    await expect(readEmojiLists(files, "e")).rejects.toThrow(/E-DATA-080.*names\.tsv:2/);
  });
});

describe("the pictures", () => {
  it("lie where the shipped index says: 2,529 in five sheets", async () => {
    const set = await played();
    expect(picturesDocument({ ...set, side: 64 }, artFor(64))).toEqual(index);
    expect(set.pictures).toHaveLength(2529);
    // Two items share this drawing.
    expect(set.leftOut).toEqual(["older cricket-game: the same picture as another item's"]);
  });

  it("can be read back from the sheets that are written, and compared", async () => {
    const set = await played(4);
    const files = new MemoryFiles({
      "d/items.json": JSON.stringify(itemsDocument(set.items)),
      "d/pictures.json": JSON.stringify(picturesDocument(set, artFor(4))),
    });
    for (const { style } of ART) files.content.set(`d/${sheetName(style)}`, encodeSheet(set, style));
    const data = await EmbeddedData.load(files, "d");
    const read = async (style: string, name: string) =>
      (await data.pictureBytes(data.item(name), style as never))?.data ?? null;
    const same = await comparePictures(set, set.pictures.length, read);
    expect(same).toMatchObject({ common: 2529, equal: 2529, largest: 0, onlyHere: 0, onlyThere: 0 });
    const { pixels } = set.pictures[7]!;
    pixels[5] = pixels[5]! > 100 ? pixels[5]! - 3 : pixels[5]! + 3;
    const other = await comparePictures(set, set.pictures.length + 1, read);
    expect(other).toMatchObject({ equal: 2528, largest: 3, onlyThere: 1 });
    expect(other.different[0]).toMatchObject({ item: set.pictures[7]!.item.item, largest: 3 });
  });

  it("that a rasteriser fails on, or that look like another item's, are left out by name", async () => {
    const lists = await readEmojiLists(new NodeFiles(), join(MODELS, "emoji"));
    const sets = playedSets();
    const broken = sets.get("older")!.icons["cyclone"]!.body;
    sets.get("gloss")!.icons["cyclone"] = { ...sets.get("gloss")!.icons["rainbow"]! };
    const set = await buildEmojiSet(lists, {
      side: 4,
      sets,
      draw: async (svg, width) => (svg.includes(`>${broken}<`) ? null : draw(svg, width)),
    });
    expect(set.leftOut).toEqual([
      "older cyclone: the rasteriser fails on it",
      "gloss rainbow: the same picture as another item's",
      "older cricket-game: the same picture as another item's",
    ]);
  });
});

describe("artwork", () => {
  const set: IconSet = {
    height: 36,
    icons: { sun: { body: "<b/>", left: 1, width: 20 }, moon: { body: "" } },
    aliases: { star: { parent: "sun" }, turned: { parent: "sun", rotate: 1 }, lost: { parent: "nowhere" } },
  };

  it("is found by the first name that the set has, through aliases that do not turn it", () => {
    expect(findIcon(set, ["none", "moon"])).toBe("moon");
    expect(findIcon(set, ["star"])).toBe("sun");
    expect(findIcon(set, ["turned", "lost", "constructor"])).toBeNull();
    expect(iconSvg(set, "sun")).toContain('viewBox="1 0 20 36"');
  });

  it("is averaged over squares, and a wide picture is put in the middle on white", () => {
    const pixels = new Uint8Array(4 * 2 * 4);
    for (let i = 0; i < 8; i++) pixels.set([i < 4 ? 0 : 100, 40, 255, 255], i * 4);
    const cell = boxFilter({ width: 4, height: 2, pixels }, 2, 2);
    // One row of white above, then the picture's two rows, then white again.
    expect([...cell]).toEqual([128, 148, 255, 128, 148, 255, 178, 148, 255, 178, 148, 255]);
  });
});
