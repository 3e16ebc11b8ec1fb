// A run as the page's panels see it: how its view is built line by line, and how seldom the panels are told.

import { describe, expect, it } from "vitest";
import { alignSeries, thin } from "../../src/web/components/chart_data.ts";
import { memoryParts } from "../../src/web/components/memory_bar.tsx";
import { LiveRun } from "../../src/web/live_run.ts";
import type { LogLine } from "../../src/web/protocol.ts";
import { parseLog } from "../../src/web/run_source.ts";
import { applyLine, emptyRunView } from "../../src/web/run_view.ts";
import { hiddenText } from "../../src/web/train/guards.ts";
import { phaseText, runPace } from "../../src/web/train/progress.ts";

const metric = (step: number, values: Record<string, number>, t = 100 + step): LogLine => ({
  kind: "metric",
  step,
  values,
  t,
});
const phase = (name: string, done: number, total: number, t: number, unit = "updates"): LogLine => ({
  kind: "phase",
  name,
  done,
  total,
  unit,
  t,
  step: done,
});

describe("a run's view", () => {
  it("replaces points that a resumed run repeats", () => {
    const view = emptyRunView("a");
    for (const step of [1, 2, 3, 4]) applyLine(view, metric(step, { loss: step }));
    for (const step of [3, 4, 5]) applyLine(view, metric(step, { loss: 10 * step }));
    expect(view.series.get("loss")).toEqual({ steps: [1, 2, 3, 4, 5], values: [1, 2, 30, 40, 50] });
    expect(view.step).toBe(5);
  });

  it("counts updates in the training phase only", () => {
    const view = emptyRunView("a");
    applyLine(view, phase("compile and load", 17, 42, 1, "plans"));
    expect([view.step, view.steps, view.phase?.done]).toEqual([0, 0, 17]);
    applyLine(view, phase("train", 3, 200, 2));
    applyLine(view, phase("draw samples, step 3", 1, 4, 3, "pictures"));
    expect([view.step, view.steps, view.phase?.name]).toEqual([3, 200, "draw samples, step 3"]);
  });

  it("keeps one picture a path, by update", () => {
    const view = emptyRunView("a");
    const sample = (item: string): LogLine => ({ kind: "sample", step: 0, path: "samples/a.png", item, seed: 1, t: 1 });
    applyLine(view, sample("x"));
    applyLine(view, sample("y"));
    expect(view.samples.get(0)).toEqual([{ path: "samples/a.png", item: "y", seed: 1 }]);
  });

  it("notes checkpoints, warnings and errors with their codes", () => {
    const view = emptyRunView("a");
    applyLine(view, { kind: "checkpoint", step: 20, path: "ckpt/step-000020", bytes: 5, t: 1 });
    applyLine(view, { kind: "warning", code: "E-CFG-030", text: "w", t: 2, step: 20 });
    expect(view.notes.map(({ kind, code, text }) => [kind, code, text])).toEqual([
      ["checkpoint", undefined, "update 20 saved · 5 B"],
      ["warning", "E-CFG-030", "w"],
    ]);
  });
});

describe("a log file", () => {
  it("is read without its torn last line and without foreign lines", () => {
    const good = JSON.stringify(metric(1, { loss: 1 }));
    const lines = parseLog(`${good}\nnull\n[]\n{"kind":"metric"}\n{"kind":"metric","step":2,"valu`);
    expect(lines).toEqual([metric(1, { loss: 1 })]);
  });

  it("is read without kinds of a newer version, and with numbers that JSON cannot say", () => {
    const line = (rest: object) => JSON.stringify({ t: 1, step: 1, ...rest });
    const lines = parseLog(
      `${line({ kind: "halo", text: "x" })}\n${line({ kind: "metric", values: { loss: "NaN" } })}\n`,
    );
    expect(lines).toMatchObject([{ kind: "metric", values: { loss: Number.NaN } }]);
  });
});

describe("a live run", () => {
  it("tells its panels once a frame, whatever comes in between", () => {
    const frames: (() => void)[] = [];
    const run = new LiveRun("a", "train", (draw) => void frames.push(draw));
    for (let step = 1; step <= 500; step++) run.take({ kind: "log", run: "a", lines: [metric(step, { loss: 1 })] });
    expect(frames).toHaveLength(1);
    expect(run.version.value).toBe(0);
    expect(run.view.step).toBe(500);
    frames.shift()!();
    expect(run.version.value).toBe(1);
    run.take({ kind: "status", run: "a", status: "paused", step: 500 });
    expect(frames).toHaveLength(1);
  });

  it("knows its newest checkpoint and whether it is under way", () => {
    const run = new LiveRun("a", "train", () => {});
    run.add([{ kind: "checkpoint", step: 25, path: "p", bytes: 1, t: 1 }]);
    expect([run.saved.value, run.active]).toEqual([25, true]);
    run.take({ kind: "status", run: "a", status: "failed", step: 30, error: { code: "E-NUM-001", what: "x" } });
    expect([run.active, run.error.value?.code]).toEqual([false, "E-NUM-001"]);
  });
});

describe("samples that take shape", () => {
  const pixels = { width: 1, height: 1, rgba: new Uint8ClampedArray(4) };
  const preview = (step: number, done: number, index: number) =>
    ({
      kind: "preview",
      run: "a",
      step,
      done,
      total: 9,
      pictures: [{ ...pixels, index, item: `item ${done}` }],
    }) as const;

  it("are kept batch by batch, the newest of each place, until the samples are there", () => {
    const run = new LiveRun("a", "train", () => {});
    for (const event of [preview(0, 1, 0), preview(0, 2, 0), preview(0, 1, 8)]) run.take(event);
    expect(run.forming.value?.pictures.map(({ index, item }) => [index, item])).toEqual([
      [0, "item 2"],
      [8, "item 1"],
    ]);
    run.take(preview(25, 1, 0));
    expect([run.forming.value?.step, run.forming.value?.pictures.length]).toEqual([25, 1]);
    run.add([{ kind: "sample", step: 25, path: "samples/a.png", item: "x", seed: 1, t: 1 }]);
    expect(run.forming.value).toBeNull();
    run.take(preview(50, 1, 0));
    run.take({ kind: "status", run: "a", status: "stopped", step: 50 });
    expect(run.forming.value).toBeNull();
  });
});

describe("a run's pace", () => {
  it("is the mean of the last updates, with the samplings that are still to come", () => {
    const view = emptyRunView("a");
    applyLine(view, phase("draw samples, step 0", 0, 4, 0, "pictures"));
    applyLine(view, phase("draw samples, step 0", 4, 4, 2, "pictures"));
    applyLine(view, phase("train", 0, 100, 2));
    for (let step = 1; step <= 40; step++) applyLine(view, metric(step, { seconds: 0.5 }));
    applyLine(view, phase("train", 40, 100, 22));
    // 60 updates of half a second; samplings of two seconds at 50, 75 (every 25) and after the last update.
    expect(runPace(view, 25)).toEqual({ updatesPerSecond: 2, left: 60 * 0.5 + 3 * 2, elapsed: 22 });
  });

  it("is unknown before the first update", () => {
    expect(runPace(emptyRunView("a"), 25)).toEqual({ updatesPerSecond: null, left: null, elapsed: 0 });
  });

  it("names phases for people", () => {
    expect(phaseText("draw samples, step 0")).toBe("Drawing what the model knows before");
    expect(phaseText("check prompt embeddings")).toBe("Check prompt embeddings");
  });
});

describe("a tab that was hidden", () => {
  it("says how much slower the run was, where that can be noticed", () => {
    expect(hiddenText(60, 120, 0.1)).toMatch(/^It made 2 updates a second instead of 10:/);
    expect(hiddenText(60, 590, 0.1)).toBeNull();
    expect(hiddenText(5, 0, 0.1)).toBeNull();
  });
});

describe("curves of a chart", () => {
  it("are put on one axis with gaps where a curve has no point", () => {
    const loss = { steps: [1, 2, 4], values: [0.5, Number.NaN, 0.3] };
    const validation = { steps: [0, 2], values: [0.9, 0.4] };
    expect(alignSeries([loss, validation, undefined])).toEqual([
      [0, 1, 2, 4],
      [null, 0.5, null, 0.3],
      [0.9, null, 0.4, null],
      [null, null, null, null],
    ]);
  });

  it("are thinned without losing a peak", () => {
    const steps = Array.from({ length: 10000 }, (_, i) => i);
    const values = steps.map((i) => (i === 4321 ? 99 : Math.sin(i)));
    const thinned = thin({ steps, values }, 500);
    expect(thinned.steps.length).toBeLessThanOrEqual(502);
    expect(Math.max(...thinned.values)).toBe(99);
    expect(thinned.steps).toEqual([...thinned.steps].sort((a, b) => a - b));
  });
});

describe("the memory bar", () => {
  it("stacks in a fixed order and joins what is too small to see", () => {
    const parts = memoryParts({ staging: 100, weights: 800, uniforms: 1, adapter: 50, bindings: 2, empty: 0 });
    expect(parts).toEqual([
      { name: "weights", bytes: 800 },
      { name: "adapter", bytes: 50 },
      { name: "staging", bytes: 100 },
      { name: "other", bytes: 3 },
    ]);
  });
});
