// The sink that keeps a run's events as TensorBoard files: what it writes, how a continued run goes on, what it leaves out.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { configText, openTensorBoard, sampleTag, scalarTag, settingsTable } from "../../src/cli/tensorboard_sink.ts";
import { encodePng } from "../../src/formats/png.ts";
import { readTensorBoard } from "../../src/formats/tensorboard.ts";

const TIME = 1_700_000_000.5;

describe("the TensorBoard sink", () => {
  let run: string;
  const onFailure = (error: unknown) => {
    throw error;
  };
  const picture = "samples/step-000000/00-seed42.png";

  beforeAll(() => {
    run = mkdtempSync(join(tmpdir(), "tensorboard-"));
    mkdirSync(join(run, "samples/step-000000"), { recursive: true });
    writeFileSync(
      join(run, picture),
      encodePng({ width: 4, height: 2, channels: 3, depth: 8, data: new Uint8Array(24) }),
    );
  });
  afterAll(() => rmSync(run, { recursive: true, force: true }));

  const valuesOf = (path: string) =>
    readTensorBoard(readFileSync(path), path).events.flatMap((e) =>
      e.kind === "values" ? e.values.map((v) => ({ step: e.step, ...v })) : [],
    );

  it("writes metrics, samples, settings and warnings, and continues in a second file after the checkpoint", () => {
    const first = openTensorBoard(run, { onFailure, now: () => TIME, texts: { config: configText("a\n```") } });
    first.sink({ kind: "phase", name: "train", done: 1, total: 4, unit: "steps" });
    first.sink({ kind: "metric", step: 3, values: { loss: 0.5, val_loss: 0.25 } });
    first.sink({ kind: "sample", step: 3, path: picture, item: "a/b  c", seed: 42 });
    first.sink({ kind: "sample", step: 3, path: "samples/none.png" });
    first.sink({ kind: "warning", code: "E-NUM-003", text: "not finite" });
    first.close();
    first.sink({ kind: "metric", step: 4, values: { loss: 1 } });
    expect(first.failure).toBeNull();
    const values = valuesOf(first.path);
    expect(values.map(({ step, tag }) => [step, tag])).toEqual([
      [0, "config"],
      [3, "train/loss"],
      [3, "validation/loss"],
      [3, "samples/00-seed42 a b c"],
      [3, "events"],
    ]);
    expect(values[0]).toMatchObject({ text: "    a\n    ```" });
    expect(values[3]).toMatchObject({
      picture: { width: 4, height: 2, channels: 3 },
      description: "    a/b  c, seed 42",
    });

    // Even with a clock that went back, the second file comes after the first in the order of names.
    const second = openTensorBoard(run, { onFailure, now: () => 5, stepsDone: 2 });
    second.sink({ kind: "metric", step: 3, values: { loss: 9 } });
    second.close();
    const names = readdirSync(join(run, "tb")).sort();
    expect(names).toEqual(["events.out.tfevents.1700000000.longtail", "events.out.tfevents.1700000001.longtail"]);
    expect(second.path.endsWith(names[1]!)).toBe(true);
    const starts = names.map((name) => readTensorBoard(readFileSync(join(run, "tb", name)), name).events[1]);
    expect(starts).toMatchObject([
      { kind: "start", step: 0 },
      { kind: "start", step: 3 },
    ]);
  });

  it("says where it cannot write", () => {
    writeFileSync(join(run, "blocked"), "");
    expect(() => openTensorBoard(join(run, "blocked"), { onFailure })).toThrow(/E-FILE-004|cannot be written/);
  });

  it("keeps tags apart by section and short enough to read", () => {
    expect([scalarTag("loss"), scalarTag("validation_loss"), scalarTag("speed/steps")]).toEqual([
      "train/loss",
      "validation/loss",
      "speed/steps",
    ]);
    const long = sampleTag({ kind: "sample", step: 1, path: "x/01-seed1.png", item: "é".repeat(200) });
    expect([...long].length).toBeLessThan(75);
    expect(long.endsWith("…")).toBe(true);
  });

  it("makes a table of settings that no value can break", () => {
    expect(settingsTable({ "optim.lr": 1e-4, prompt: "a | b\nc", list: [1, 2] })).toBe(
      "| setting | value |\n|---|---|\n| optim.lr | 0.0001 |\n| prompt | a \\| b c |\n| list | [1,2] |",
    );
  });
});
