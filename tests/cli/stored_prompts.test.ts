// Prompts that are encoded already as the items of an alignment: what is refused before anything is trained, and which texts a
// run asks for at all.

import { describe, expect, it } from "vitest";
import { embeddingPaths, writeEmbedding, writeEmbeddingIndex } from "../../src/data/prompt_embeddings.ts";
import { loadItems } from "../../src/runs/align/items.ts";
import { judgedItems } from "../../src/runs/align/judged.ts";
import { drawsOf, measuredPairs, mostUpdates, promptOrder, textsOfRun } from "../../src/runs/align/prompts.ts";
import { openStoredPrompts, storedPrompts, withStoredPrompts } from "../../src/runs/align/stored_prompts.ts";
import { textShape } from "../../src/runs/caption_store.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { layoutOf } from "../../src/runs/model_files.ts";
import { Phases } from "../../src/runs/phases.ts";
import { smallConfig } from "../helpers/alignment.ts";
import { MemoryFiles, NodeFiles } from "../helpers/files.ts";

const FOLDER = "embeddings";
const CAPTIONS = ["a taco", "a  sari ", "a taco"];

/** Files of the model come from the disk, the folder from memory. */
class Files extends MemoryFiles {
  private readonly disk = new NodeFiles();
  override async exists(path: string) {
    return (await super.exists(path)) || (await this.disk.exists(path));
  }
  override async readBytes(path: string) {
    return (await super.exists(path)) ? super.readBytes(path) : this.disk.readBytes(path);
  }
  override async readText(path: string) {
    return (await super.exists(path)) ? super.readText(path) : this.disk.readText(path);
  }
}

interface Made {
  length?: number;
  width?: number;
  pooled?: number;
  form?: "safetensors" | "torch";
}

async function stored(made: Made = {}) {
  const files = new Files();
  const config = await smallConfig({ "data.items": FOLDER, "data.pictures": "none", "eval.judge": "none" });
  const taken = textShape(await layoutOf(new NodeFiles(), config));
  const { length = taken.length, width = taken.width, pooled = taken.pooled, form = "safetensors" } = made;
  const list = CAPTIONS.map((caption, i) => ({ stem: String(i), caption, fields: { Item: `item ${i}` } }));
  for (const [i, { stem }] of list.entries()) {
    const values = { states: new Float32Array(length * width).fill(i), pooled: new Float32Array(pooled).fill(i) };
    await writeEmbedding(files, FOLDER, stem, values, width, { form, dtype: "F32" });
  }
  await writeEmbeddingIndex(files, FOLDER, list, form);
  return { files, config, paths: embeddingPaths(FOLDER, "1", form) };
}

async function check({ files, config }: { files: Files; config: Config }, signal = new AbortController().signal) {
  const found = (await openStoredPrompts(files, config))!;
  const { items } = await loadItems(files, withStoredPrompts(config, found), found);
  const prompts = new Set(items.map(({ caption }) => caption.replaceAll("  ", " ")));
  const inputs = { files, config, stored: found, phases: new Phases(() => {}), signal };
  return { items, load: await storedPrompts(inputs, prompts) };
}

describe("a folder of encoded prompts", () => {
  it.each(["safetensors", "torch"] as const)("gives items and embeddings, as %s", async (form) => {
    const { items, load } = await check(await stored({ form }));
    expect(items.map(({ item }) => item)).toEqual(["item 0", "item 1", "item 2"]);
    // Equal captions are one prompt: the first of them.
    expect((await load("a taco")).pooled[0]).toBe(0);
    expect((await load("a sari")).states.at(-1)).toBe(1);
  });

  it.each([
    ["tokens", { length: 3 }],
    ["numbers", { width: 48 }],
    ["a pooled vector", { pooled: 5 }],
  ])("is refused where it has other %s than the transformer takes", async (_, made) => {
    await expect(check(await stored(made))).rejects.toThrow(/E-DATA-076 .*transformer takes \d+ tokens of \d+ .*Fix: /);
  });

  it.each(["safetensors", "torch"] as const)("is refused where a file is missing or torn, as %s", async (form) => {
    const missing = await stored({ form });
    await missing.files.remove(missing.paths.pooled!);
    await expect(check(missing)).rejects.toThrow(/E-FILE-001 embeddings\/pooled_prompt_embeds\/1\./);
    const torn = await stored({ form });
    const bytes = await torn.files.readBytes(torn.paths.states!);
    await torn.files.writeAtomic(torn.paths.states!, bytes.slice(0, bytes.length / 2));
    await expect(check(torn)).rejects.toThrow(/E-FILE-\d+ embeddings\/prompt_embed\/1\.\w+.*Fix: /);
  });

  it("is refused where a value is not finite", async () => {
    const made = await stored();
    const shape = textShape(await layoutOf(made.files, made.config));
    const states = new Float32Array(shape.length * shape.width);
    states[7] = Number.NaN;
    const values = { states, pooled: new Float32Array(shape.pooled) };
    await writeEmbedding(made.files, FOLDER, "1", values, shape.width, { form: "safetensors", dtype: "F32" });
    await expect(check(made)).rejects.toThrow(/E-DATA-075 .*prompt_embed\/1\.safetensors.*value 7 of \d+ is NaN/);
  });

  it("stops where the run is interrupted, and is not changed by a template", async () => {
    const reason = new Error("stop");
    await expect(check(await stored(), AbortSignal.abort(reason))).rejects.toBe(reason);
    const { files, config } = await stored();
    const found = await openStoredPrompts(files, config);
    expect(withStoredPrompts(config, found)).toMatchObject({ data: { prompt: "{caption}", styles: [] } });
    expect(() => withStoredPrompts({ ...config, align: { ...config.align, pair: "prompt-only" } }, found)).toThrow(
      /E-CFG-055 align\.pair/,
    );
  });

  it("is told from a list by its name", async () => {
    const { files, config } = await stored();
    const open = (items: string) => openStoredPrompts(files, { ...config, data: { ...config.data, items } });
    for (const items of ["embedded", "a.json", "b.jsonl", "c.txt", "d.csv"]) expect(await open(items)).toBe(null);
    await expect(open("nowhere")).rejects.toThrow(/E-FILE-001 nowhere: there is no list of captions/);
  });
});

describe("the texts of a run", () => {
  const files = new NodeFiles();
  const changes = { "align.pair": "control-words", "align.batch": "2", "eval.judge": "embedded" };

  it("are those of its draws, of what is judged, and no others", async () => {
    const config = await smallConfig({ ...changes, "align.steps": "3", "align.head_share": "0.5" });
    const { items } = await loadItems(files, config);
    const judged = judgedItems(config, items);
    const { prompts, judge, rewards } = textsOfRun(config, items, judged);
    const order = promptOrder(config, items);
    const draws = [1, 2, 3].flatMap((step) => drawsOf(config, order, step));
    expect(draws).toHaveLength(6);
    const shown = judged.flatMap((j) => j.pictures.map((p) => p.prompt));
    expect(prompts).toEqual(new Set([...draws.map((d) => d.prompt), ...shown]));
    expect(judge.size).toBe(new Set(items.map(({ item }) => item)).size);
    for (const { pair } of draws) expect([...rewards[0]!]).toEqual(expect.arrayContaining([pair.pos, pair.neg]));
    // Words are taken in turn: update 2 has others than update 1.
    expect(draws[0]!.pair.pos.split(".")[0]).not.toBe(draws[2]!.pair.pos.split(".")[0]);
  });

  it("reach to the longest rung of a ladder", async () => {
    const config = await smallConfig({ ...changes, "align.steps": "ladder" });
    expect(mostUpdates(config)).toBe(160);
    const { items } = await loadItems(files, config);
    const { prompts } = textsOfRun(config, items, []);
    for (const { prompt } of drawsOf(config, promptOrder(config, items), 160)) expect(prompts).toContain(prompt);
  });

  it("compare some hundred pairs of a long list beforehand, evenly taken", async () => {
    const config = await smallConfig({ ...changes, "align.focus": "0" });
    const { items } = await loadItems(files, config);
    const one = items.find(({ tail }) => tail)!;
    const long = Array.from({ length: 50_000 }, (_, i) => ({ ...one, index: i, item: `item ${i}` }));
    const pairs = measuredPairs(config, long);
    expect(pairs).toHaveLength(256);
    expect(pairs.at(-1)!.item).toMatch(/^item 49\d\d\d$/);
  });
});
