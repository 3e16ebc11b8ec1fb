// From item rows to tables and sentences: right means, right slices, and nothing claimed that an interval does not
// allow.

import { describe, expect, it } from "vitest";
import { chooseItems } from "../../src/evaluation/report_strips.ts";
import { type Group, type ItemRow, summariseEvaluation } from "../../src/evaluation/summary.ts";
import { verdictOf } from "../../src/evaluation/verdict.ts";

function row(item: string, group: Group, before: number, change: number, place = "Japan"): ItemRow {
  const region = group === "head" ? "" : place;
  return { item, category: "food", region, group, before: { judge: before }, after: { judge: before + change } };
}

/** `count` items whose changes alternate around `centre` by `spread`. */
function rowsOf(group: Group, count: number, centre: number, spread: number): ItemRow[] {
  return Array.from({ length: count }, (_, i) => row(`${group} ${i}`, group, 0.5, centre + (i % 2 ? spread : -spread)));
}

describe("evaluation summary", () => {
  it("gives means, change and an interval around the change for each group", () => {
    const summary = summariseEvaluation([...rowsOf("aligned", 32, 0.05, 0.06), ...rowsOf("head", 24, 0, 0.02)]);
    const [aligned, head] = summary.groups;
    expect(aligned).toMatchObject({ group: "aligned", items: 32 });
    expect(aligned!.changes.judge.before).toBeCloseTo(0.5, 12);
    expect(aligned!.changes.judge.change).toBeCloseTo(0.05, 12);
    expect(aligned!.changes.judge.low!).toBeGreaterThan(0.02);
    expect(aligned!.changes.judge.high!).toBeLessThan(0.08);
    expect(head!.changes.judge.low!).toBeLessThan(0);
    expect(head!.changes.judge.high!).toBeGreaterThan(0);
    expect(summary.gap!.change).toBeCloseTo(-0.05, 12);
    expect(summary.gap!.high!).toBeLessThan(0);
  });

  it("leaves out a measure that some item of the group lacks", () => {
    const rows = rowsOf("aligned", 8, 0.05, 0.01);
    for (const r of rows) r.before.top1 = r.after.top1 = 0.5;
    rows[3]!.after.top1 = undefined;
    for (const r of rows) r.before.saturation = r.after.saturation = 0.2;
    const { changes } = summariseEvaluation(rows).groups[0]!;
    expect(changes.top1).toBeUndefined();
    expect(changes.saturation!.change).toBe(0);
  });

  it("slices by region over tail items only, most items first, without an interval for few", () => {
    const rows = [
      ...rowsOf("aligned", 7, 0.05, 0.01),
      row("taco", "aligned", 0.4, 0.2, "Mexico"),
      ...rowsOf("head", 9, 0, 0.1),
    ];
    const { regions, categories } = summariseEvaluation(rows);
    expect(regions.map((r) => [r.name, r.items])).toEqual([
      ["Japan", 7],
      ["Mexico", 1],
    ]);
    expect(regions[0]!.judge.low).not.toBeNull();
    expect(regions[1]!.judge).toMatchObject({ low: null, high: null });
    expect(categories.map((c) => [c.part, c.items])).toEqual([
      ["tail", 8],
      ["head", 9],
    ]);
  });

  it("moves no interval of one region when another gets an item", () => {
    const rows = rowsOf("aligned", 9, 0.05, 0.03);
    const more = [...rows, row("taco", "aligned", 0.4, 0.2, "Mexico")];
    expect(summariseEvaluation(more).regions[0]).toEqual(summariseEvaluation(rows).regions[0]);
  });

  it("repeats itself exactly", () => {
    const rows = rowsOf("aligned", 20, 0.01, 0.04);
    expect(summariseEvaluation(rows, 3)).toEqual(summariseEvaluation(rows, 3));
  });
});

describe("verdict", () => {
  it("says better for the aligned tail and no significant change for the head", () => {
    const verdict = verdictOf(
      summariseEvaluation([...rowsOf("aligned", 32, 0.054, 0.05), ...rowsOf("head", 24, 0, 0.02)]),
    );
    expect(verdict.tone).toBe("better");
    expect(verdict.headline).toBe("Aligned tail items got better; head items did not change significantly");
    expect(verdict.sentences[0]!.text).toMatch(/^Aligned tail items: judge \+\.054 \[\.0\d\d, \.0\d\d\]: better\.$/);
    expect(verdict.sentences[1]!.text).toMatch(/no significant change/);
  });

  it("claims nothing where the interval contains 0", () => {
    const verdict = verdictOf(summariseEvaluation(rowsOf("aligned", 32, 0.01, 0.2)));
    expect(verdict.tone).toBe("unchanged");
    expect(verdict.headline).not.toMatch(/better/);
  });

  it("claims nothing for few items, however large their changes", () => {
    const verdict = verdictOf(summariseEvaluation(rowsOf("aligned", 5, 0.4, 0)));
    expect(verdict.tone).toBe("unknown");
    expect(verdict.sentences[0]!.text).toMatch(/too few for an interval/);
  });

  it("names harm to the head in the headline", () => {
    const verdict = verdictOf(
      summariseEvaluation([...rowsOf("aligned", 32, 0.05, 0.02), ...rowsOf("head", 24, -0.05, 0.02)]),
    );
    expect(verdict.headline).toBe("Aligned tail items got better, but head items got worse");
  });

  it("reports a loss of diversity as worse and a reward that outruns the judge", () => {
    const rows = rowsOf("aligned", 20, 0.03, 0.01);
    for (const [i, r] of rows.entries()) {
      r.before = { ...r.before, diversity: 0.38, reward: 0.4 };
      r.after = { ...r.after, diversity: 0.3 + 0.001 * i, reward: 0.5 + 0.001 * i };
    }
    const { sentences } = verdictOf(summariseEvaluation(rows));
    expect(sentences.find((s) => s.text.startsWith("Diversity"))).toMatchObject({ tone: "worse" });
    expect(sentences.some((s) => s.text.includes("the reward gained more"))).toBe(true);
  });

  it("has a sentence for an evaluation without items", () => {
    expect(verdictOf(summariseEvaluation([]))).toMatchObject({ tone: "unknown", headline: "No item was evaluated" });
  });
});

describe("choice of items to show", () => {
  it("shows gains, typical items and losses, each item once", () => {
    const rows = Array.from({ length: 20 }, (_, i) => row(`i${i}`, "aligned", 0.5, (i - 6) / 100));
    const { gains, typical, losses, rest } = chooseItems(rows, 4);
    expect(gains.map((r) => r.item)).toEqual(["i19", "i18", "i17", "i16"]);
    expect(losses.map((r) => r.item)).toEqual(["i0", "i1", "i2", "i3"]);
    expect(typical.map((r) => r.item).sort()).toEqual(["i10", "i11", "i8", "i9"].sort());
    expect(new Set([...gains, ...typical, ...losses, ...rest]).size).toBe(20);
  });

  it("shares out a short list and drops nothing", () => {
    for (const count of [0, 1, 2, 3, 4, 7]) {
      const rows = Array.from({ length: count }, (_, i) => row(`i${i}`, "aligned", 0.5, i / 100));
      const { gains, typical, losses, rest } = chooseItems(rows, 4);
      const all = [...gains, ...typical, ...losses, ...rest];
      expect(all.length).toBe(count);
      expect(new Set(all).size).toBe(count);
    }
  });
});
