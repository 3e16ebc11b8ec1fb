// What the recorder keeps of a run: fewer lines and samples, never another number.
import { describe, expect, it } from "vitest";
import { chosenSamples, thinLog } from "../../scripts/record_run.ts";
import type { LogLine } from "../../src/web/protocol.ts";

const sample = (step: number, index: number, item: string): LogLine => ({
  t: step,
  step,
  kind: "sample",
  path: `samples/step-${String(step).padStart(6, "0")}/${index}-seed1.png`,
  item,
  judge: 0.123456789,
});

describe("a recording", () => {
  it("keeps the edges of phases and rounds numbers, no further than five digits", () => {
    const phase = (t: number, done: number): LogLine => ({
      t,
      step: 0,
      kind: "phase",
      name: "train",
      done,
      total: 9,
      unit: "updates",
    });
    const metric: LogLine = { t: 1.23456, step: 1, kind: "metric", values: { loss: 0.123456789, host_seconds: 1 } };
    const kept = thinLog([phase(0, 0), phase(1, 1), metric, phase(2.5, 2), phase(3, 9)], () => true);
    expect(kept).toEqual([phase(0, 0), { ...metric, t: 1.23, values: { loss: 0.12346 } }, phase(2.5, 2), phase(3, 9)]);
  });

  it("keeps the samples that were chosen, as JPEG, and no folder of the machine", () => {
    const path = "/elsewhere/runs/a/ckpt/step-000020";
    const kept = thinLog(
      [sample(0, 1, "sari"), sample(0, 2, "taco"), { t: 1, step: 20, kind: "checkpoint", path, bytes: 1 }],
      (name) => name.includes("1-seed"),
    );
    expect(kept).toMatchObject([
      { path: "samples/step-000000/1-seed1.jpg", judge: 0.12346 },
      { path: "ckpt/step-000020" },
    ]);
  });

  it("chooses one sample an item: half of those drawn most often, the rest from all over", () => {
    const items = Array.from({ length: 20 }, (_, i) => `item ${i}`);
    const lines = items.flatMap((item, i) => [
      sample(0, 2 * i, item),
      sample(0, 2 * i + 1, item),
      sample(80, 2 * i, item),
    ]);
    for (const i of [3, 4, 5]) lines.push(sample(40, 2 * i, `item ${i}`));
    const chosen = [...chosenSamples(lines, 4)];
    expect(chosen).toEqual(["6-seed1.png", "8-seed1.png", "0-seed1.png", "22-seed1.png"]);
    expect(chosenSamples(lines, 100).size).toBe(20);
  });
});
