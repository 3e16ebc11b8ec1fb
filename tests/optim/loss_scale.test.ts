// The dynamic loss scale: an exact factor while nothing overflows, halved by a step that does, doubled after a row of good
// ones, all decided on the device; and AdamW's count of steps, which knows the refused ones.

import { describe, expect, it } from "vitest";
import { OPTIMIZER_KINDS, type OptimizerSettings } from "../../src/optim/settings.ts";
import { adamwStart, adamwStep } from "../helpers/adamw.ts";
import { noise, relativeError } from "../helpers/gpu.ts";
import { ADAMW, OptimizerBench } from "../helpers/optimizer.ts";

const COUNT = 1009;
const RATE = 1e-2;

const scaled = (
  initial: number,
  growthInterval: number,
  change: Partial<OptimizerSettings> = {},
): OptimizerSettings => ({
  ...ADAMW,
  maxNorm: 2,
  lossScale: { initial, growthInterval },
  ...change,
});

async function open(settings: OptimizerSettings): Promise<OptimizerBench> {
  const bench = await OptimizerBench.open([[[COUNT]]], settings);
  bench.start(noise(COUNT, 1));
  return bench;
}

const times = (values: Float64Array, factor: number) => values.map((x) => x * factor);

describe("a loss scale", () => {
  it("changes neither norm nor parameters while nothing overflows", async () => {
    const bench = await open(scaled(4096, 1000));
    const state = adamwStart(noise(COUNT, 1));
    for (let t = 1; t <= 4; t++) {
      const g = noise(COUNT, 10 + t);
      expect(await bench.session.read(bench.optimizer.lossScale!)).toEqual(Float32Array.of(4096));
      bench.gradients(times(g, 4096));
      const report = await bench.step(RATE, t);
      const expected = adamwStep(state, g, bench.optimizer.settings, RATE, t);
      expect(Math.abs(report.norm / expected.norm - 1)).toBeLessThan(2e-6);
      expect(Math.abs(report.update / expected.update - 1)).toBeLessThan(5e-6);
      expect(report).toMatchObject({ finite: true, lossScale: 4096 });
    }
    expect(relativeError(await bench.read(bench.parameters[0]!), state.p)).toBeLessThan(1e-6);
    bench.close();
  });

  it.each(OPTIMIZER_KINDS)("of any power of two gives the bits of any other, with %s", async (kind) => {
    const results: number[][] = [];
    for (const scale of [1, 1024]) {
      const bench = await open(scaled(scale, 1000, { kind, momentum: 0.9 }));
      for (let t = 1; t <= 3; t++) {
        bench.gradients(times(noise(COUNT, t), scale));
        await bench.step(RATE, t);
      }
      results.push(await bench.bits(["loss_scale"]));
      bench.close();
    }
    expect(results[1]).toEqual(results[0]);
  });

  it("is halved by every overflow, not below 1, and nothing else changes", async () => {
    const bench = await open(scaled(8, 2));
    bench.gradients(noise(COUNT, 5));
    await bench.step(RATE, 1);
    const before = await bench.bits(["loss_scale"]);
    const scales: number[] = [];
    for (const value of [Number.POSITIVE_INFINITY, Number.NaN, Number.NEGATIVE_INFINITY, 3e38, Number.NaN]) {
      bench.gradients(noise(COUNT, 6).map((x, i) => (i === 500 ? value : x)));
      const report = await bench.step(RATE, 2);
      expect(report.finite).toBe(false);
      scales.push(report.lossScale!);
    }
    expect(scales).toEqual([4, 2, 1, 1, 1]);
    expect(await bench.bits(["loss_scale"])).toEqual(before);
    bench.close();
  });

  it("doubles after as many good steps in a row as it was told, and not beyond 2^24", async () => {
    const bench = await open(scaled(2 ** 22, 2));
    const scales: number[] = [];
    const bad = new Set([2, 6]);
    for (let t = 1; t <= 12; t++) {
      bench.gradients(noise(COUNT, t).map((x) => (bad.has(t) ? Number.NaN : x)));
      scales.push(Math.log2((await bench.step(RATE, t)).lossScale!));
    }
    expect(scales).toEqual([22, 21, 21, 22, 22, 21, 21, 22, 22, 23, 23, 24]);
    for (let t = 13; t <= 16; t++) {
      bench.gradients(noise(COUNT, t));
      expect((await bench.step(RATE, t)).lossScale).toBe(2 ** 24);
    }
    bench.close();
  });

  it.each(["adamw", "adamw8bit"] as const)("does not let refused steps count in %s's corrections", async (kind) => {
    const bench = await open(scaled(64, 1000, { kind }));
    const state = adamwStart(noise(COUNT, 1));
    let scale = 64;
    let taken = 0;
    for (let t = 1; t <= 9; t++) {
      const g = noise(COUNT, 20 + t);
      const bad = t < 4 || t === 6;
      bench.gradients(bad ? g.map(() => Number.POSITIVE_INFINITY) : times(g, scale));
      scale = (await bench.step(RATE, t)).lossScale!;
      if (!bad) adamwStep(state, g, bench.optimizer.settings, RATE, ++taken);
    }
    expect(relativeError(await bench.read(bench.parameters[0]!), state.p)).toBeLessThan(2e-6);
    bench.close();
  });

  it("is absent where none is asked for", async () => {
    const bench = await open(ADAMW);
    expect(bench.optimizer.lossScale).toBeNull();
    bench.gradients(noise(COUNT, 1));
    expect(await bench.step(RATE, 1)).not.toHaveProperty("lossScale");
    bench.close();
  });
});
