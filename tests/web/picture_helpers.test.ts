// The pure parts of "Pick pictures", "Compare" and "Keep": crop, names, ways in, words, newest-wins, grid, zip, bundled sets.

import { unzipSync } from "fflate";
import { describe, expect, test, vi } from "vitest";
import { EmbeddedData } from "../../src/data/embedded.ts";
import { fitPicture } from "../../src/data/pictures/prepare.ts";
import { openPictureSets } from "../../src/data/pictures/sets.ts";
import { newestWins } from "../../src/web/compare/newest.ts";
import { newPrompts, promptsOf } from "../../src/web/compare/suggestions.ts";
import { chosenSteps, gridLayout, wrapped } from "../../src/web/keep/grid_layout.ts";
import { ownSetOf, wholeRun } from "../../src/web/keep/run_files.ts";
import { zipOf } from "../../src/web/keep/zip.ts";
import { BUNDLED, bundledChoice, bundledOf } from "../../src/web/pictures/bundled.ts";
import { cutAway, squareCrop } from "../../src/web/pictures/crop.ts";
import { type DroppedEntry, filesOfEntries, filesOfPaste, MOST_FILES } from "../../src/web/pictures/incoming.ts";
import vocabulary from "../../src/web/pictures/vocabulary.json" with { type: "json" };
import { FREE_WORDS, unknownWords } from "../../src/web/pictures/vocabulary.ts";
import { emptyRunView } from "../../src/web/run_view.ts";
import { captionFromName, storedStem, uniqueStem } from "../../src/web/worker/picture_names.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { gradient } from "../helpers/pictures.ts";

describe("the crop that is shown", () => {
  test("is the square that training cuts out of the middle", () => {
    expect(squareCrop(200, 100)).toEqual({ left: 0.25, top: 0, width: 0.5, height: 1 });
    expect(squareCrop(90, 90)).toEqual({ left: 0, top: 0, width: 1, height: 1 });
    expect(cutAway(200, 100)).toBe(0.5);
    // A picture that grows redder to the right: its red at the crop's edges is that of the shown box's edges.
    const side = 16;
    const planes = fitPicture(gradient(200, 100), { width: side, height: side });
    const box = squareCrop(200, 100);
    expect(planes[0]).toBeCloseTo(box.left, 1);
    expect(planes[side - 1]).toBeCloseTo(box.left + box.width, 1);
  });
});

describe("names", () => {
  test.each([
    ["red_bike-03.jpg", "red bike"],
    ["IMG_2041.JPG", ""],
    ["set/photo of a_green (apple).png", "a green apple"],
    ["猫と犬.png", "猫と犬"],
    ["Screenshot 2026-11-23 at 08.12.png", ""],
    ["d41d8cd98f00b204.png", ""],
  ])("%s says %j", (name, words) => expect(captionFromName(name)).toBe(words));

  test.each([
    ["a/b c.png", "a-b c"],
    ["..png", "picture"],
    ["con.png", "con_"],
    ['x<>:"|?*.png', "x_"],
    [`${"y".repeat(300)}.png`, "y".repeat(80)],
  ])("%s is stored as %s", (name, stem) => expect(storedStem(name)).toBe(stem));

  test("are unique without regard to case", () => {
    const taken = new Set<string>();
    expect(["a", "A", "a"].map((stem) => uniqueStem(stem, taken))).toEqual(["a", "A-2", "a-3"]);
  });
});

const file = (name: string): DroppedEntry => ({
  isFile: true,
  isDirectory: false,
  name,
  file: (found) => found(new File(["x"], name)),
});
const folder = (name: string, inner: DroppedEntry[]): DroppedEntry => ({
  isFile: false,
  isDirectory: true,
  name,
  createReader() {
    const left = [...inner];
    return { readEntries: (found) => found(left.splice(0, 100)) };
  },
});

describe("what is dropped", () => {
  test("is walked through all folders, a hundred entries at a time, with paths as names", async () => {
    const many = Array.from({ length: 250 }, (_, i) => file(`${i}.png`));
    const { files, cut } = await filesOfEntries([file("a.png"), folder("set", [folder("inner", many), file("b.txt")])]);
    expect(files).toHaveLength(252);
    expect(files.map(({ name }) => name)).toContain("set/inner/249.png");
    expect(cut).toBe(false);
  });

  test("ends at its limits: a folder in itself, and more files than are taken", async () => {
    const loop: DroppedEntry = folder("loop", []);
    loop.createReader = () => {
      const left = [loop, file("a.png")];
      return { readEntries: (found) => found(left.splice(0)) };
    };
    expect((await filesOfEntries([loop])).cut).toBe(true);
    const flood = folder(
      "flood",
      Array.from({ length: MOST_FILES + 50 }, (_, i) => file(`${i}.png`)),
    );
    const { files, cut } = await filesOfEntries([flood]);
    expect([files.length, cut]).toEqual([MOST_FILES, true]);
  });

  test("that cannot be read becomes an empty file, which is reported as one", async () => {
    const broken = {
      ...file("a.png"),
      file: (_: unknown, failed: (error: unknown) => void) => failed(new Error("gone")),
    };
    const { files } = await filesOfEntries([broken as DroppedEntry]);
    expect(files[0]!.blob.size).toBe(0);
  });

  test("of a paste gets numbers where the clipboard has no names", () => {
    const files = [new File(["x"], "image.png"), new File(["x"], "cat.jpg")] as unknown as FileList;
    expect(filesOfPaste({ files }, 4).map(({ name }) => name)).toEqual(["pasted 4.png", "cat.jpg"]);
  });
});

describe("words that the small model reads", () => {
  const words = new Set(vocabulary.words);
  test("are those of its items; the others are named", () => {
    expect(unknownWords("noto icon of piñata, Japan", words)).toEqual([]);
    expect(unknownWords("ohwx icon of a bicycle bicycle", words)).toEqual(["ohwx", "bicycle"]);
  });
  test("hold the words that are advised as triggers, which no item has", async () => {
    const { items } = await EmbeddedData.load(new NodeFiles(), `${MODELS}/embedded`);
    for (const word of FREE_WORDS) expect(words.has(word)).toBe(true);
    expect(items.some(({ item }) => FREE_WORDS.some((word) => item.split(" ").includes(word)))).toBe(false);
  });
  test("make prompts of things that were not trained on", () => {
    const items = ["pizza", "ghost", "taco", "camera", "police car light"];
    const prompts = newPrompts(["gloss icon of pizza"], 'items = ["pizza", "ghost"]', items, 3);
    expect([...prompts].sort()).toEqual(["gloss icon of camera", "gloss icon of taco"]);
    expect(newPrompts(["my cat"], "", items, 3)).toEqual([]);
  });
  test("make prompts before any run of the pictures that are picked", () => {
    expect(promptsOf(bundledChoice(BUNDLED[1]!)).slice(0, 2)).toEqual(["noto icon of diya lamp", "noto icon of taco"]);
    expect(promptsOf({ label: "", path: "pictures/mine", items: [], styles: [], pictures: 5 })).toEqual([]);
  });
});

describe("the bundled sets", () => {
  test.each(BUNDLED.map((set) => [set.id, set] as const))(
    "%s is accepted by the reader, every picture of it",
    async (_, set) => {
      const path = `${MODELS}/embedded`;
      const choice = { kind: "embedded" as const, items: set.items, styles: [set.style as "noto"] };
      const read = await openPictureSets(new NodeFiles(), [{ path, ...choice }]);
      expect(read.pictures).toHaveLength(set.items.length);
      expect(read.pictures[0]!.captions).toEqual([`${set.style} icon of ${set.items[0]}`]);
      expect(read.attribution[0]).toContain(set.attribution.split(",")[0]!.split("©")[0]!.trim().replace(/,$/, ""));
      await read.close();
    },
  );
  test("are known again by what the form holds", () => {
    for (const set of BUNDLED) expect(bundledOf(bundledChoice(set))).toBe(set);
    expect(bundledOf({ ...bundledChoice(BUNDLED[0]!), items: ["pizza"] })).toBe(null);
    expect(bundledOf({ label: "mine", path: "pictures/mine", items: [], styles: [], pictures: 5 })).toBe(null);
  });
});

describe("what a slider asks for", () => {
  const setUp = (wait = 20) => {
    const begun: number[] = [];
    const done: number[] = [];
    const failed: unknown[] = [];
    const ends: (() => void)[] = [];
    const newest = newestWins(
      (value: number) => {
        begun.push(value);
        return new Promise<number>((resolve, reject) =>
          ends.push(() => (value < 0 ? reject(new Error("no")) : resolve(value))),
        );
      },
      (result) => done.push(result),
      { wait, failed: (error) => failed.push(error) },
    );
    return { newest, begun, done, failed, ends };
  };

  test("is begun after a rest, one at a time, and of what came meanwhile the newest is next", async () => {
    vi.useFakeTimers();
    const { newest, begun, done, ends } = setUp();
    newest.ask(1);
    newest.ask(2);
    await vi.advanceTimersByTimeAsync(10);
    expect(begun).toEqual([]);
    await vi.advanceTimersByTimeAsync(20);
    expect(begun).toEqual([2]);
    for (const value of [3, 4, 5]) newest.ask(value);
    await vi.advanceTimersByTimeAsync(100);
    expect(begun).toEqual([2]);
    ends[0]!();
    await vi.advanceTimersByTimeAsync(0);
    expect([begun, done]).toEqual([[2, 5], [2]]);
    ends[1]!();
    await vi.advanceTimersByTimeAsync(100);
    expect([begun, done]).toEqual([
      [2, 5],
      [2, 5],
    ]);
    vi.useRealTimers();
  });

  test("goes on after a failure, and gives nothing more once it was stopped", async () => {
    vi.useFakeTimers();
    const { newest, begun, done, failed, ends } = setUp(0);
    newest.ask(-1);
    await vi.advanceTimersByTimeAsync(1);
    newest.ask(7);
    ends[0]!();
    await vi.advanceTimersByTimeAsync(1);
    expect([failed.length, begun]).toEqual([1, [-1, 7]]);
    newest.stop();
    ends[1]!();
    newest.ask(8);
    await vi.advanceTimersByTimeAsync(10);
    expect([begun, done]).toEqual([[-1, 7], []]);
    vi.useRealTimers();
  });
});

describe("the grid of samples", () => {
  test("has a cell for each prompt and update, none over another, inside the canvas", () => {
    const { cells, side, width, height, rowLabels, columnLabels } = gridLayout(4, 5);
    expect([cells.length, side, rowLabels.length, columnLabels.length]).toEqual([20, 128, 4, 5]);
    for (const a of cells) {
      expect(a.x + side).toBeLessThan(width);
      expect(a.y + side).toBeLessThan(height);
      for (const b of cells) if (a !== b) expect(Math.abs(a.x - b.x) >= side || Math.abs(a.y - b.y) >= side).toBe(true);
    }
  });
  test("stays below what a canvas may be, whatever is asked", () => {
    const { width, height, side } = gridLayout(500, 300);
    expect(Math.max(width, height)).toBeLessThanOrEqual(8192);
    expect(side).toBeGreaterThanOrEqual(8);
  });
  test("takes the first and the last sampling among those it shows", () => {
    expect(chosenSteps([0, 25, 50, 75, 100], 9)).toEqual([0, 25, 50, 75, 100]);
    expect(
      chosenSteps(
        Array.from({ length: 21 }, (_, i) => i * 10),
        5,
      ),
    ).toEqual([0, 50, 100, 150, 200]);
  });
  test("breaks labels into lines by words", () => {
    const measure = (text: string) => text.length * 10;
    expect(wrapped("noto icon of moon viewing ceremony", 140, 3, measure)).toEqual([
      "noto icon of",
      "moon viewing",
      "ceremony",
    ]);
    expect(wrapped("one two three", 30, 2, measure)).toEqual(["one", "two …"]);
  });
});

describe("a run as a zip", () => {
  test("holds every file that the source has, byte for byte", async () => {
    const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) & 255);
    const content: Record<string, Blob> = {
      "log.jsonl": new Blob(["{}\n".repeat(1000)]),
      "a.safetensors": new Blob([bytes]),
      "samples/step-000000/00-seed42.png": new Blob(["png"]),
    };
    const view = emptyRunView("a");
    view.samples.set(0, [{ path: "samples/step-000000/00-seed42.png", item: "x", seed: 42 }]);
    const source = {
      name: "a",
      origin: "recorded" as const,
      text: async () => null,
      blob: async (path: string) => content[path] ?? null,
      follow: () => () => {},
    };
    const zip = await zipOf(wholeRun(source, view));
    const found = unzipSync(new Uint8Array(await zip.arrayBuffer()));
    expect(Object.keys(found).sort()).toEqual(
      Object.keys(content)
        .map((path) => `a/${path}`)
        .sort(),
    );
    expect(found["a/a.safetensors"]).toEqual(bytes);
    expect(new TextDecoder().decode(found["a/log.jsonl"])).toBe("{}\n".repeat(1000));
  });
  test("knows whether a configuration names own pictures", () => {
    expect(ownSetOf('[[data.sets]]\npath = "pictures/mine"\n')).toBe("pictures/mine");
    expect(ownSetOf('[[data.sets]]\npath = "embedded"\n')).toBe(null);
  });
});
