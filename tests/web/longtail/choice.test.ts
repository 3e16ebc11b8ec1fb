// Filters, selections and texts of the long-tail mode, on the embedded concepts.

import { expect, test } from "vitest";
import { pairTexts, rarityText } from "../../../src/web/longtail/catalogue.ts";
import {
  countsOf,
  filtered,
  isFiltering,
  MOST_PICKED,
  NO_FILTER,
  picksNamed,
  preset,
  toggled,
} from "../../../src/web/longtail/choice.ts";
import { embeddedCatalogue } from "./files.ts";

const { concepts } = embeddedCatalogue();
const named = (name: string) => concepts.find((c) => c.name === name)!;
const none = new Set<number>();

test("the catalogue knows tail and head, regions, pictures and rarity", () => {
  expect(concepts.filter((c) => c.tail)).toHaveLength(94);
  expect([...named("piñata").cells.keys()]).toEqual(["noto", "twitter"]);
  expect(named("diya lamp").region).toBe("South Asia");
  expect(named("diya lamp").frequency).toBeLessThan(0.05);
  expect(embeddedCatalogue().attributions.get("noto")).toContain("Noto Emoji");
});

test("without a filter the list holds everything, the tail first", () => {
  const all = filtered(concepts, NO_FILTER, none);
  expect(all).toHaveLength(525);
  expect(all.slice(0, 94).every((c) => c.tail)).toBe(true);
  expect(isFiltering(NO_FILTER)).toBe(false);
});

test("words of a search must all be found, in name, category or region, without accents or case", () => {
  const search = (text: string) => filtered(concepts, { ...NO_FILTER, search: text }, none).map((c) => c.name);
  expect(search("PINATA")).toEqual(["piñata"]);
  expect(search("japan food")).toContain("dango");
  expect(search("japan food")).not.toContain("taco");
  expect(search("no such thing")).toEqual([]);
});

test("category, region and part narrow the list together", () => {
  const list = filtered(concepts, { search: "", category: "food", region: "Mexico", part: "tail" }, none);
  expect(list.map((c) => c.name)).toContain("taco");
  expect(list.every((c) => c.category === "food" && c.region === "Mexico" && c.tail)).toBe(true);
  expect(filtered(concepts, { ...NO_FILTER, part: "head" }, none)).toHaveLength(431);
  const picked = new Set([named("taco").index]);
  expect(filtered(concepts, { ...NO_FILTER, part: "picked" }, picked).map((c) => c.name)).toEqual(["taco"]);
});

test("only tail concepts can be picked, at most 32, and a second time takes them out", () => {
  const taco = named("taco");
  const one = toggled(none, taco);
  expect([...one]).toEqual([taco.index]);
  expect(toggled(one, taco).size).toBe(0);
  expect(toggled(none, concepts.find((c) => !c.tail)!).size).toBe(0);
  const full = preset(concepts, { kind: "experiment" });
  expect(full.size).toBe(MOST_PICKED);
  const other = concepts.find((c) => c.tail && !c.align)!;
  expect(toggled(full, other)).toBe(full);
});

test("selections by category and region hold tail concepts alone", () => {
  const food = preset(concepts, { kind: "category", name: "food" });
  expect(food.size).toBe(25);
  const japan = preset(concepts, { kind: "region", name: "Japan" });
  expect(japan.size).toBe(31);
  for (const index of [...food, ...japan]) expect(concepts[index]!.tail).toBe(true);
});

test("counts come with the most frequent first", () => {
  const [first, second] = countsOf(
    concepts.filter((c) => c.tail),
    "region",
  );
  expect(first).toEqual(["Japan", 31]);
  expect(second).toEqual(["United States", 8]);
});

test("the pair's texts are those of the run: caption, and caption with its attributes", () => {
  expect(pairTexts(named("diya lamp"), "noto")).toEqual({
    positive: "noto icon of diya lamp. celebrations, South Asia",
    negative: "noto icon of diya lamp",
  });
});

test("rarity is said as a ratio to the average head concept", () => {
  expect(rarityText(1 / 54)).toBe("54 times less often than the average head concept");
  expect(rarityText(0.5)).toBe("2.0 times less often than the average head concept");
  expect(rarityText(1)).toContain("about as often");
  expect(rarityText(3.8)).toBe("4 times more often than the average head concept");
});

test("picks of an address are rare concepts by name, as many as can be picked, or none with the reasons", () => {
  const tail = concepts.filter((c) => c.tail).map(({ name }) => name);
  const common = concepts.find((c) => !c.tail)!.name;
  expect(picksNamed(concepts, ["moai", "diya lamp"])).toEqual({
    picked: new Set([named("moai").index, named("diya lamp").index]),
    problems: [],
  });
  expect(picksNamed(concepts, ["moai", common, "moia"])).toEqual({
    picked: new Set(),
    problems: [
      `“${common}” is no rare concept, and only those can be picked`,
      "“moia” is not a concept of this page; did you mean “moai”?",
    ],
  });
  expect(picksNamed(concepts, tail.slice(0, MOST_PICKED + 1)).problems).toEqual([
    "33 concepts; at most 32 can be picked",
  ]);
});
