// AdamW with moments of 8 bits: its maps, one step from any codes against double precision, what it costs in accuracy over
// many steps, and how it lies in memory.

import { describe, expect, it } from "vitest";
import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import { dynamicMap } from "../../src/optim/rules/adamw8bit.ts";
import { adam8bitStep, nearest, referenceMap, unpack } from "../helpers/adam8bit.ts";
import { adamwStart, adamwStep } from "../helpers/adamw.ts";
import { noise, relativeError } from "../helpers/gpu.ts";
import { ADAMW, type BenchOptions, OptimizerBench } from "../helpers/optimizer.ts";

const SETTINGS: OptimizerSettings = { ...ADAMW, kind: "adamw8bit" };
const RATE = 1e-2;

describe("the maps of 8-bit moments", () => {
  it("hold 256 rising values between their ends, exact at 0 and 1", () => {
    for (const signed of [true, false]) {
      const map = dynamicMap(signed);
      expect(map.length).toBe(256);
      expect(map.every((x, i) => i === 0 || x > map[i - 1]!)).toBe(true);
      expect(map).toContain(0);
      expect(map[255]).toBe(1);
      const expected = referenceMap(signed);
      map.forEach((x, i) => expect(Math.abs(x - expected[i]!)).toBeLessThan(1e-7 * Math.abs(expected[i]!) + 1e-30));
    }
    expect(dynamicMap(true)[127]).toBe(0);
    expect(dynamicMap(true)[0]).toBeCloseTo(-0.9929687, 6);
    expect(dynamicMap(false)[0]).toBe(0);
  });
});

/** Steps of the kernel, each compared with double precision from the codes before it. */
async function compare(sizes: readonly number[], options: BenchOptions = {}): Promise<void> {
  const bench = await OptimizerBench.open([sizes.map((n) => [n])], SETTINGS, options);
  try {
    const { session, optimizer, parameters } = bench;
    const count = sizes.reduce((a, b) => a + b, 0);
    bench.start(noise(count, 1));
    for (let t = 1; t <= 3; t++) {
      // Gradients of many magnitudes use all decades of the maps; the last part of each tensor has none at all.
      const gradient = noise(count, 10 + t).map((x, i) => (i % 1000 < 700 ? x ** 5 : 0));
      bench.gradients(gradient);
      const before = await Promise.all(parameters[0]!.variables.map((v) => session.read(v)));
      const pool = optimizer.state["moments"]!;
      const words = async () =>
        Promise.all(pool.variables.map(async (v) => new Uint32Array(await session.readBits(v))));
      const old = await words();
      await bench.step(RATE, t);
      const now = await words();
      let at = 0;
      for (const [k, size] of sizes.entries()) {
        const g = gradient.slice(at, at + size);
        at += size;
        const start = Float64Array.from(before[k]!);
        const expected = adam8bitStep(unpack(old[k]!, size), start, g, SETTINGS, RATE, t);
        const after = await session.read(parameters[0]!.variables[k]!);
        expect(relativeError(after, expected.p), `parameters of ${size} at step ${t}`).toBeLessThan(1e-6);
        const own = unpack(now[k]!, size);
        for (const which of [0, 1] as const) {
          const map = referenceMap(which === 0);
          own.tops[which].forEach((top, b) =>
            expect(Math.abs(top - expected.next.tops[which][b]!)).toBeLessThanOrEqual(1e-6 * top),
          );
          own.codes[which].forEach((code, i) => {
            // Where a value lies in the middle of two entries, rounding decides.
            const x = expected.scaled[which][i]!;
            const best = map[expected.next.codes[which][i]!]!;
            expect(Math.abs(x - map[code]!)).toBeLessThanOrEqual(Math.abs(x - best) + 2e-6 * Math.abs(x));
          });
        }
      }
    }
  } finally {
    bench.close();
  }
}

describe("AdamW of 8 bits", () => {
  it("takes each step as double precision does from the same codes, whatever the tensor's size", async () => {
    await compare([4096, 4097, 4351, 5003, 8192]);
  });

  it("does so with tensors in many segments and folded grids", async () => {
    await compare([5003, 9001, 4099], { limit: 40_960, maxWorkgroups: 2 });
  });

  it("stays near to AdamW of 32 bits over many steps, in a quarter of its memory", async () => {
    const count = 40_000;
    const bench = await OptimizerBench.open([[[200, 200]]], SETTINGS);
    const start = noise(count, 1);
    const target = noise(count, 2);
    const state = adamwStart(start.slice());
    bench.start(start);
    for (let t = 1; t <= 20; t++) {
      const now = await bench.read(bench.parameters[0]!);
      bench.gradients(now.map((x, i) => x - target[i]!));
      await bench.step(RATE, t);
      adamwStep(
        state,
        state.p.map((x, i) => x - target[i]!),
        SETTINGS,
        RATE,
        t,
      );
    }
    const end = await bench.read(bench.parameters[0]!);
    const moved = state.p.map((x, i) => x - start[i]!);
    expect(
      relativeError(
        end.map((x, i) => x - start[i]!),
        moved,
      ),
    ).toBeLessThan(0.06);
    expect(bench.optimizer.state["moments"]!.bytes).toBeLessThan(0.26 * 8 * count);
    bench.close();
  });

  it("keeps small tensors in 32 bits beside large ones", async () => {
    const bench = await OptimizerBench.open([[[4095], [4096]]], SETTINGS);
    const [small, large] = bench.optimizer.state["moments"]!.variables;
    expect(small!.shape).toEqual([2, 4095]);
    expect(large!.shape).toEqual([16, 130]);
    const state = adamwStart(noise(8191, 1));
    bench.start(state.p);
    for (let t = 1; t <= 3; t++) {
      bench.gradients(noise(8191, 1 + t));
      await bench.step(RATE, t);
      adamwStep(state, noise(8191, 1 + t), SETTINGS, RATE, t);
    }
    const end = await bench.session.read(bench.parameters[0]!.variables[0]!);
    expect(relativeError(end, state.p.subarray(0, 4095))).toBeLessThan(1e-6);
    bench.close();
  });

  it("goes on to the same bits from its codes, and changes none where a step is refused", async () => {
    const open = () => OptimizerBench.open([[[5003], [7], [90, 91]]], SETTINGS, { limit: 40_960 });
    const count = 5003 + 7 + 8190;
    const run = async (bench: OptimizerBench, t: number) => {
      bench.gradients(noise(count, t));
      await bench.step(RATE, t);
    };
    const whole = await open();
    whole.start(noise(count, 77));
    for (const t of [1, 2]) await run(whole, t);
    const saved = [...(await whole.save()).values()];
    const before = await whole.bits();
    whole.gradients(noise(count, 9).map((x, i) => (i === 5004 ? Number.NaN : x)));
    expect((await whole.step(RATE, 3)).finite).toBe(false);
    expect(await whole.bits()).toEqual(before);
    for (const t of [3, 4]) await run(whole, t);
    const resumed = await open();
    resumed.start(noise(count, 78));
    const places = [...(await resumed.save()).keys()];
    resumed.restore(new Map(places.map((variable, i) => [variable, saved[i]!])));
    for (const t of [3, 4]) await run(resumed, t);
    expect(await resumed.bits()).toEqual(await whole.bits());
    whole.close();
    resumed.close();
  });

  it("rounds to the nearest entry in its reference", () => {
    const map = referenceMap(false);
    for (const x of [0, 1e-9, 0.0123, 0.5, 1]) {
      const best = Math.min(...map.map((entry) => Math.abs(entry - x)));
      expect(Math.abs(map[nearest(map, x)]! - x)).toBe(best);
    }
  });
});
