// What an alignment says while it goes on: named items are the ones that are aligned, every measurement is a metric, and the
// pictures of a measurement are kept with the judge's score where that is asked for.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/base/events.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { loadItems } from "../../src/runs/align/items.ts";
import { judgedItems } from "../../src/runs/align/judged.ts";
import { drawsOf, measuredPairs, promptOrder } from "../../src/runs/align/prompts.ts";
import { Bench, smallConfig } from "../helpers/alignment.ts";

const named = (...names: string[]) => ({ "align.items": JSON.stringify(names) });

describe("align.items", () => {
  it("names the items that are drawn, compared and judged, and leaves the rest of the tail to spill-over", async () => {
    const config = await smallConfig({
      ...named("moai", "diya lamp"),
      "align.head_share": "0",
      "eval.other_tail_items": "3",
    });
    const { items } = await loadItems(new DiskFiles(), config);
    const judged = judgedItems(config, items);
    expect(judged.filter((j) => j.group === "aligned").map((j) => j.item.item)).toEqual(["moai", "diya lamp"]);
    const others = judged.filter((j) => j.group === "other tail").map((j) => j.item.item);
    expect(others).toHaveLength(3);
    expect(others).not.toContain("moai");
    expect(measuredPairs(config, items).map((pair) => pair.item)).toEqual(["moai", "diya lamp"]);
    const order = promptOrder(config, items);
    const drawn = Array.from({ length: 6 }, (_, i) => drawsOf(config, order, i + 1)).flat();
    expect(new Set(drawn.map((d) => d.item.item))).toEqual(new Set(["moai", "diya lamp"]));
  });

  it("leaves the choice to align.focus where it is empty", async () => {
    const config = await smallConfig(named());
    const { items } = await loadItems(new DiskFiles(), config);
    expect(judgedItems(config, items)).toHaveLength(2);
  });

  it("refuses a name that is no tail item, and says which one was meant", async () => {
    const failure = async (name: string) => {
      const config = await smallConfig(named("moai", name));
      const error = await loadItems(new DiskFiles(), config).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(LongtailError);
      return error as LongtailError;
    };
    const misspelt = await failure("dya lamp");
    expect(misspelt.code).toBe("E-CFG-056");
    expect(misspelt.parts.fix).toBe('did you mean "diya lamp"?');
    const head = await failure("cat");
    expect(head.code).toBe("E-CFG-056");
    expect(head.parts.why).toMatch(/head item/);
  });
});

describe("the events of an alignment", () => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await Bench.open({
      ...named("moai", "diya lamp"),
      "align.guard.every": "1",
      "align.guard.pictures": "true",
      "align.steps": "2",
      "eval.head_items": "1",
      "eval.judge": "embedded",
    });
    bench.reset();
    await bench.align("told");
  });
  afterAll(() => bench.close());

  const metrics = () => bench.events.filter((e): e is RunEvent & { kind: "metric" } => e.kind === "metric");

  it("hold every measurement: reward and guard rails each time, the judge by group before and after", () => {
    const measured = metrics().filter(({ values }) => "eval_reward" in values);
    expect(measured.map(({ step }) => step)).toEqual([0, 1, 2]);
    for (const { values } of measured) {
      for (const name of ["guard_judge", "guard_saturation", "guard_contrast", "guard_sharpness", "guard_grid8"])
        expect(Number.isFinite(values[name]), name).toBe(true);
    }
    expect(measured.map(({ values }) => "eval_judge_aligned" in values)).toEqual([true, false, true]);
    expect(measured.map(({ values }) => "eval_judge_head" in values)).toEqual([true, false, true]);
    expect(measured[0]!.values["eval_judge_aligned"]).toBeCloseTo(measured[0]!.values["guard_judge"]!, 6);
  });

  it("hold every update with its time, apart from the measurements", () => {
    const updates = metrics().filter(({ values }) => "loss" in values);
    expect(updates.map(({ step }) => step)).toEqual([1, 2]);
    for (const { values } of updates) expect(values["seconds"]).toBeGreaterThan(0);
  });

  it("hold the pictures of all measurements with the judge's score", () => {
    const samples = bench.events.filter((e): e is RunEvent & { kind: "sample" } => e.kind === "sample");
    expect(samples.filter(({ step }) => step === 0)).toHaveLength(3);
    expect(samples.filter(({ step }) => step === 1).map(({ item }) => item)).toEqual(["moai", "diya lamp"]);
    expect(samples.filter(({ step }) => step === 2)).toHaveLength(3);
    for (const { path, judge } of samples) {
      expect(Math.abs(judge!)).toBeLessThanOrEqual(1);
      expect(existsSync(join(bench.run!.paths.folder, path)), path).toBe(true);
    }
  });
});
