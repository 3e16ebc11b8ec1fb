import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CURE_SETS, parseCsv, readCure } from "../../src/data/cure.ts";
import { promptPair } from "../../src/data/prompts.ts";
import { MemoryFiles, MODELS, NodeFiles } from "../helpers/files.ts";

const folder = join(MODELS, "cure");
const files = new NodeFiles();

describe("CuRe", () => {
  test("has 300 items of 64 regions, 50 a super-category, 177 of the Global South", async () => {
    const items = await readCure(files, folder, CURE_SETS);
    expect(items).toHaveLength(300);
    expect(new Set(items.map((item) => item.region)).size).toBe(64);
    for (const set of CURE_SETS) expect(items.filter((item) => item.superCategory === set)).toHaveLength(50);
    expect(items.filter((item) => item.globalSouth)).toHaveLength(177);
    expect(new Set(items.map((item) => item.category)).size).toBe(31);
    const continents = Object.groupBy(items, (item) => item.continent);
    expect(Object.fromEntries(Object.entries(continents).map(([name, list]) => [name, list!.length]))).toEqual({
      Asia: 89,
      Europe: 88,
      Africa: 48,
      "South America": 36,
      "North America": 32,
      Oceania: 7,
    });
  });

  test("leaves real persons out unless they are asked for", async () => {
    const items = await readCure(files, folder);
    expect(items).toHaveLength(250);
    expect(items.some((item) => item.superCategory === "people")).toBe(false);
    expect(await readCure(files, folder, ["people"])).toHaveLength(50);
  });

  test("an item has its names unescaped, its caption and a pair", async () => {
    const items = await readCure(files, folder);
    const bridge = items.find((item) => item.item === "Nejirimanpo")!;
    expect(bridge).toMatchObject({
      region: "Japan",
      time: "19th-century",
      continent: "Asia",
      globalSouth: false,
      wikimedia: ["Nejirimanpo (Kyoto)"],
      tail: true,
    });
    const rice = items.find((item) => item.item === "Gallo pinto")!;
    expect(promptPair(rice, { kind: "mia" }, 0)).toEqual({
      pos: "An image of Gallo pinto. Rice Dish, Costa Rica",
      neg: "An image of Gallo pinto",
      source: "attributes",
    });
    expect(items.map((item) => item.index)).toEqual(items.map((_, i) => i));
  });

  test("a missing column or a short row is refused with the file", async () => {
    const heading = "Category,Region,Item,Continent,Wikimedia_Category,Global North/South";
    const load = (text: string) => readCure(new MemoryFiles({ "c/art.csv": text }), "c", ["art"]);
    await expect(load("Category,Region\na,b\n")).rejects.toMatchObject({
      code: "E-DATA-033",
      parts: { where: "c/art.csv" },
    });
    await expect(load(`${heading}\na,b\n`)).rejects.toMatchObject({
      code: "E-DATA-033",
      parts: { where: "c/art.csv[0]" },
    });
    await expect(load(`${heading}\na,b,,d,e,f\n`)).rejects.toThrow(/no name/);
    await expect(readCure(new MemoryFiles(), "c", ["art"])).rejects.toMatchObject({ code: "E-FILE-001" });
  });
});

test("CSV with quotes, line breaks inside fields, empty fields and Windows line ends is read", () => {
  expect(parseCsv('\ufeffa,"b ""x"", y",\r\n"line\nbreak",,c\r\n\r\nlast,,', "x")).toEqual([
    ["a", 'b "x", y', ""],
    ["line\nbreak", "", "c"],
    ["last", "", ""],
  ]);
  expect(() => parseCsv('a,b\n"never closed', "x.csv")).toThrow(/E-DATA-033 x\.csv:2/);
  expect(() => parseCsv('"a"b', "x.csv")).toThrow(/E-DATA-033/);
});
