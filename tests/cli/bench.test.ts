// `longtail bench`: every task traces for any adapter and its lines find their calls; times come with and without timestamps.

import { describe, expect, it } from "vitest";
import { arithmeticSections } from "../../src/cli/bench/arithmetic.ts";
import { measureTask, traced } from "../../src/cli/bench/measure.ts";
import { COPIES, memoryBoundSizes, memoryBoundTasks } from "../../src/cli/bench/memory_bound.ts";
import type { BenchReport } from "../../src/cli/bench/run.ts";
import { benchText, command } from "../../src/cli/commands/bench.ts";
import { geluTanh } from "../../src/ops/pointwise.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

describe("the tasks of the benchmark", () => {
  const target = { ...portableTarget(), f16: true, maxBindingBytes: 2 ** 31 - 256 };
  for (const software of [true, false]) {
    const tasks = [
      ...arithmeticSections(software, true).flatMap((section) => section.tasks),
      ...memoryBoundTasks(memoryBoundSizes(software)),
    ];
    it(`are traced for ${software ? "a software adapter" : "hardware"}, and every call belongs to at most one line`, () => {
      for (const task of tasks) {
        const { plan, parts } = task.build(new Session({ ...target, software }));
        for (const part of parts) expect(plan.lowered.calls.some((call) => part.of(call))).toBe(true);
        for (const call of plan.lowered.calls)
          expect(parts.filter((part) => part.of(call)).length).toBeLessThanOrEqual(1);
      }
    });
  }

  it("count FLOP or bytes, not both", () => {
    const arithmetic = arithmeticSections(true, false).flatMap((section) => section.tasks);
    for (const task of arithmetic) {
      const { plan, parts } = task.build(new Session(target));
      expect(plan.flops).toBeGreaterThan(0);
      expect(parts.every((part) => part.bytes === undefined)).toBe(true);
    }
    const names = memoryBoundTasks(memoryBoundSizes(true)).map(({ name }) => name);
    expect(names.slice(0, 2)).toEqual(COPIES);
  });
});

describe("measuring a task", () => {
  const task = traced({
    name: "GELU",
    inputs: [[16, 64]],
    body: ([x]) => geluTanh(x!),
    parts: [{ name: "GELU", of: () => true, bytes: 8192 }],
  });

  it("gives times with the device's clock and with the host's", async () => {
    const gpu = await testGpu();
    for (const timestamps of [gpu.facts.timestamps, false]) {
      const timings = await measureTask({ ...gpu, facts: { ...gpu.facts, timestamps } }, task, 0.01);
      expect(timings).toEqual([
        { name: "GELU", seconds: expect.any(Number), flops: expect.any(Number), bytes: 8192, work: null },
      ]);
      expect(timings[0]!.seconds).toBeGreaterThan(0);
      expect(timings[0]!.seconds).toBeLessThan(5);
    }
  });

  it("tells the work of the host's threads where a clock of it is given", async () => {
    let used = 0;
    const [timing] = await measureTask(await testGpu(), task, 0.01, () => (used += 8));
    expect(timing!.work).toBeCloseTo(0.5, 12);
  });

  it("refuses a line that no call belongs to", async () => {
    const wrong = traced({
      name: "wrong",
      inputs: [[4]],
      body: ([x]) => geluTanh(x!),
      parts: [{ name: "nothing", of: () => false }],
    });
    await expect(measureTask(await testGpu(), wrong, 0.01)).rejects.toThrow("no call belongs to nothing");
  });
});

it("the table names adapter and driver, and rates by their unit", () => {
  const row = { seconds: 0.002, flopsPerSecond: null, bytesPerSecond: null, ofCopy: null };
  const report: BenchReport = {
    adapter: {
      name: "Card 5000",
      vendor: "maker",
      architecture: "a",
      software: false,
      f16: true,
      subgroupMatrices: [{ component: "f16", result: "f32", m: 16, n: 16, k: 16 }],
      driver: "maker: 1.2.3",
      timestamps: true,
    },
    rows: [
      { ...row, section: "matrix products", name: "1 x 2 x 3", flopsPerSecond: 39.94e12 },
      { ...row, section: "bound by memory", name: "RoPE", seconds: 2e-6, bytesPerSecond: 512e9, ofCopy: 0.714 },
    ],
    host: { dispatch: 2.345, roundTrip: 0.055 },
    seconds: 12.4,
  };
  const text = benchText(report, 100);
  expect(text).toContain("adapter: Card 5000, maker: 1.2.3");
  expect(text).toContain("subgroup matrices: f16 to f32 16x16x16");
  expect(text).toMatch(/1 x 2 x 3 +2.00 ms +39.9 TFLOP\/s/);
  expect(text).toMatch(/RoPE +2.0 us +512 GB\/s +71 %/);
  expect(text).toContain("2.35 us a dispatch of a replay, 0.06 ms");
  expect(command.options.map(({ name }) => name)).toEqual(["output"]);
});
