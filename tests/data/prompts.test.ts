import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import {
  attributeText,
  CONTROL_WORDS,
  fillTemplate,
  focusItems,
  type PairRule,
  PromptOrder,
  promptItem,
  promptPair,
  readPrompts,
} from "../../src/data/prompts.ts";
import { MemoryFiles } from "../helpers/files.ts";

const taco = promptItem(
  { item: "taco", caption: "icon of taco", category: "food", region: "Mexico" },
  0,
  "items.json[0]",
);

async function refused(name: string, text: string): Promise<LongtailError> {
  const error = await readPrompts(new MemoryFiles({ [name]: text }), name).then(
    () => null,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error;
}

describe("reading prompts", () => {
  test("a JSON array, JSON Lines and plain text are read with their places", async () => {
    const files = new MemoryFiles({
      "a.json": JSON.stringify([{ item: "taco", caption: "icon of taco" }, "a cat"]),
      "b.jsonl": '{"prompt":"one"}\n\n{"text":"two"}\n',
      "c.txt": "\ufefffirst prompt\r\n\n second \n",
    });
    expect(
      (await readPrompts(files, "a.json")).map(({ item, caption, where, index }) => [item, caption, where, index]),
    ).toEqual([
      ["taco", "icon of taco", "a.json[0]", 0],
      ["a cat", "a cat", "a.json[1]", 1],
    ]);
    expect((await readPrompts(files, "b.jsonl")).map(({ caption, where }) => [caption, where])).toEqual([
      ["one", "b.jsonl:1"],
      ["two", "b.jsonl:3"],
    ]);
    expect((await readPrompts(files, "c.txt")).map(({ caption, where }) => [caption, where])).toEqual([
      ["first prompt", "c.txt:1"],
      ["second", "c.txt:3"],
    ]);
  });

  test("the field names of the public scripts and of their MIA fork are understood", () => {
    const fork = promptItem(
      {
        Item: "Jollof",
        caption: "An image of Jollof",
        mia_category: "Rice_Dish",
        category: "other",
        mia_region: "Nigeria",
        pos_prompt: "p",
        neg_prompt: "n",
      },
      0,
      "x",
    );
    expect(fork).toMatchObject({
      item: "Jollof",
      category: "Rice Dish",
      region: "Nigeria",
      pos: "p",
      neg: "n",
      tail: true,
      align: false,
    });
    expect(promptItem({ caption: "c", pos: "p", neg: null, region: "" }, 0, "x")).toMatchObject({
      pos: "p",
      neg: null,
      region: "",
    });
  });

  test("an item without a caption is an error with file and index", async () => {
    const error = await refused("items.json", JSON.stringify([{ caption: "ok" }, { item: "moai", caption: "  " }]));
    expect(error.code).toBe("E-DATA-030");
    expect(error.exitCode).toBe(4);
    expect(error.message).toMatch(/items\.json\[1\].*item 1 \(moai\) has no caption/);
  });

  test("fields of another type, other endings, no list and no prompts are errors", async () => {
    expect((await refused("a.json", '[{"caption": 3}]')).message).toContain("caption is not a text");
    expect((await refused("a.json", '[{"caption": "x", "tail": "yes"}]')).message).toContain(
      "tail is neither true nor false",
    );
    expect((await refused("a.json", "[[1]]")).code).toBe("E-DATA-030");
    expect((await refused("a.json", '{"items": []}')).code).toBe("E-DATA-030");
    expect((await refused("a.json", "[")).code).toBe("E-DATA-010");
    expect((await refused("a.csv", "x")).code).toBe("E-DATA-030");
    expect((await refused("a.txt", " \n\n")).code).toBe("E-DATA-031");
  });
});

describe("the pair of texts", () => {
  const mia: PairRule = { kind: "mia" };

  test("category and region make the automatic pair, whichever exist, on the styled caption", () => {
    expect(promptPair(taco, mia, 0, "noto icon of taco")).toEqual({
      pos: "noto icon of taco. food, Mexico",
      neg: "noto icon of taco",
      source: "attributes",
    });
    expect(promptPair({ ...taco, region: "" }, mia, 0).pos).toBe("icon of taco. food");
    expect(promptPair({ ...taco, category: "" }, mia, 0).pos).toBe("icon of taco. Mexico");
    expect(promptPair(taco, { ...mia, attributes: ["region"] }, 0).pos).toBe("icon of taco. Mexico");
    expect(attributeText("x", taco, ["region", "category"])).toBe("x. Mexico, food");
  });

  test("the data set's own texts win over attributes, a missing side is the caption", () => {
    expect(promptPair({ ...taco, pos: "a real taco" }, mia, 0)).toEqual({
      pos: "a real taco",
      neg: "icon of taco",
      source: "data set",
    });
    expect(promptPair({ ...taco, neg: "a blur" }, mia, 0)).toEqual({
      pos: "icon of taco",
      neg: "a blur",
      source: "data set",
    });
  });

  test("the command line wins over the data set and may use the item's fields", () => {
    const rule: PairRule = { kind: "mia", pos: "{caption} from {region}" };
    expect(promptPair({ ...taco, pos: "own", neg: "own" }, rule, 0)).toEqual({
      pos: "icon of taco from Mexico",
      neg: "icon of taco",
      source: "command line",
    });
  });

  test("without attributes control words come next, then prefixes, then an error that names the item", () => {
    const bare = { ...taco, category: "", region: "" };
    expect(promptPair(bare, { kind: "mia", words: CONTROL_WORDS, posPrefix: "x" }, 0).source).toBe("control words");
    expect(promptPair(bare, { kind: "mia", posPrefix: "Good" }, 0)).toEqual({
      pos: "Good icon of taco",
      neg: "icon of taco",
      source: "prefix",
    });
    expect(() => promptPair(bare, mia, 0)).toThrow(/E-DATA-032 items\.json\[0\].*taco/);
  });

  test("control words go round with the update's number, four against five", () => {
    const pairs = Array.from({ length: 20 }, (_, step) => promptPair(taco, { kind: "control-words" }, step));
    expect(pairs[0]).toEqual({
      pos: "Natural-lighting. icon of taco",
      neg: "Concept art. icon of taco",
      source: "control words",
    });
    for (const [step, pair] of pairs.entries()) {
      expect(pair.pos).toBe(`${CONTROL_WORDS.positive[step % 4]}. icon of taco`);
      expect(pair.neg).toBe(`${CONTROL_WORDS.negative[step % 5]}. icon of taco`);
    }
    expect(new Set(pairs.map(({ pos, neg }) => pos + neg)).size).toBe(20);
  });

  test("no pair is the caption alone", () => {
    expect(promptPair(taco, { kind: "none" }, 3)).toEqual({ pos: "icon of taco", neg: null, source: "none" });
  });

  test("a template keeps unknown braces and leaves no gap where a value is missing", () => {
    expect(fillTemplate("{style} icon of {item} {x}", taco, null)).toBe("icon of taco {x}");
    expect(fillTemplate("{style} icon of {item}, {region}", taco, "noto")).toBe("noto icon of taco, Mexico");
    expect(fillTemplate("{constructor}", taco)).toBe("{constructor}");
  });
});

describe("the order of prompts", () => {
  const items = Array.from({ length: 30 }, (_, i) =>
    promptItem({ caption: `c${i}`, tail: i < 12, align: i % 2 === 1 }, i, "x"),
  );
  const tail = focusItems(items, 6);
  const head = items.filter((item) => !item.tail);
  const order = () => new PromptOrder(tail, head, { seed: 3, headShare: 0.25, styles: ["a", "b", "c"] });

  test("marked items are aligned first, 0 takes the whole tail", () => {
    expect(tail.map((item) => item.index)).toEqual([1, 3, 5, 7, 9, 11]);
    expect(focusItems(items, 8).map((item) => item.index)).toEqual([0, 1, 2, 3, 5, 7, 9, 11]);
    expect(focusItems(items, 0)).toHaveLength(12);
  });

  test("every aligned item comes once before any comes twice, in one shuffled order", () => {
    const aligned = order()
      .slice(0, 64)
      .map(({ item }) => item)
      .filter((item) => item.tail);
    expect(new Set(aligned.slice(0, 6)).size).toBe(6);
    expect(aligned.slice(6, 12)).toEqual(aligned.slice(0, 6));
  });

  test("about a quarter of the prompts are head items and all styles occur", () => {
    const drawn = order().slice(0, 2000);
    const share = drawn.filter(({ item }) => !item.tail).length / 2000;
    expect(Math.abs(share - 0.25)).toBeLessThan(0.04);
    for (const style of ["a", "b", "c"])
      expect(drawn.filter((prompt) => prompt.style === style).length).toBeGreaterThan(580);
  });

  test("a run that starts in the middle draws what the whole run draws", () => {
    expect(order().slice(40, 20)).toEqual(order().slice(0, 60).slice(40));
    expect(order().at(5)).toEqual(order().at(5));
  });

  test("without head items and styles only aligned items come", () => {
    const only = new PromptOrder(tail, [], { seed: 1, headShare: 0.25, styles: [] });
    expect(only.slice(0, 50).every(({ item, style }) => item.tail && style === null)).toBe(true);
  });
});
