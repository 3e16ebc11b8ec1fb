// The fused AdamW on flat segments against double precision, its groups, its average, and what all kinds share: clipping
// by one norm and the refusal of steps that are not finite.

import { describe, expect, it } from "vitest";
import { Optimizer, type OptimizerSettings } from "../../src/optim/optimizer.ts";
import { poolSegments } from "../../src/optim/segments.ts";
import { Session } from "../../src/tensor/session.ts";
import { elements, type Shape } from "../../src/tensor/shape.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { Pool } from "../../src/tensor/variable.ts";
import { adamwStart, adamwStep } from "../helpers/adamw.ts";
import { noise, relativeError } from "../helpers/gpu.ts";
import { ADAMW, type BenchOptions, OptimizerBench } from "../helpers/optimizer.ts";

const RATE = 1e-2;

async function compare(
  shapes: readonly Shape[],
  options: BenchOptions,
  change: Partial<OptimizerSettings>,
  steps: number,
): Promise<number[]> {
  const settings = { ...ADAMW, ...change };
  const count = shapes.reduce((n, s) => n + elements(s), 0);
  const bench = await OptimizerBench.open([shapes], settings, options);
  try {
    const state = adamwStart(noise(count, count));
    bench.start(state.p);
    for (let t = 1; t <= steps; t++) {
      const g = noise(count, count + t);
      bench.gradients(g);
      const report = await bench.step(RATE, t);
      const expected = adamwStep(state, g, settings, RATE, t);
      expect(report.finite).toBe(true);
      for (const name of ["norm", "update", "parameters"] as const) {
        expect(Math.abs(report[name] / expected[name] - 1), `${name} of ${count} values at step ${t}`).toBeLessThan(
          2e-6,
        );
      }
    }
    const { state: own } = bench.optimizer;
    expect(relativeError(await bench.read(bench.parameters[0]!), state.p)).toBeLessThan(1e-6);
    expect(relativeError(await bench.read(own["first_moment"]!), state.m)).toBeLessThan(1e-6);
    expect(relativeError(await bench.read(own["second_moment"]!), state.v)).toBeLessThan(1e-6);
    if (own["average"]) expect(relativeError(await bench.read(own["average"]), state.average)).toBeLessThan(1e-6);
    return await bench.bits();
  } finally {
    bench.close();
  }
}

describe("AdamW on flat segments", () => {
  it("agrees with float64 for every size around a workgroup, with clipping and an average", async () => {
    for (const n of [1, 63, 64, 65, 257, 1009, 4096, 4097]) {
      await compare([[n]], {}, { maxNorm: 0.5, averageDecay: 0.9 }, 3);
    }
  });

  it("treats many variables in several segments as one vector and gives the same bits twice", async () => {
    const shapes = [[3, 5], [1], [700], [64, 16], [9, 9], [1009], [2, 2, 2]];
    const settings = { maxNorm: 1, averageDecay: 0.99 };
    const first = await compare(shapes, { limit: 8192 }, settings, 4);
    expect(await compare(shapes, { limit: 8192 }, settings, 4)).toEqual(first);
  });

  it("folds a grid that is larger than one dispatch dimension", async () => {
    await compare([[50_001]], { maxWorkgroups: 3 }, { maxNorm: 1, averageDecay: 0.5 }, 2);
  });

  it("leaves the padding between variables at zero and gradients as they were", async () => {
    const bench = await OptimizerBench.open([[[3], [5]]], ADAMW);
    try {
      bench.start(noise(8, 1));
      bench.gradients(noise(8, 2));
      await bench.step(RATE, 1);
      expect(await bench.read(bench.optimizer.gradients[0]!)).toEqual(Float32Array.from(noise(8, 2)));
      const pools = [...bench.parameters, ...bench.optimizer.gradients, ...Object.values(bench.optimizer.state)];
      expect(pools.length).toBe(4);
      for (const pool of pools) {
        const flat = await bench.session.read(poolSegments(pool)[0]!);
        expect(flat.length).toBe(128);
        expect(flat.every((x, i) => (i < 3 || (i >= 64 && i < 69) ? x !== 0 : x === 0))).toBe(true);
      }
    } finally {
      bench.close();
    }
  });

  it("gives each group its own decay and rate and clips all by one norm", async () => {
    const sizes = [1009, 300, 77];
    const groups = [{}, { weightDecay: 0.3, rateFactor: 2 }, { rateFactor: 0 }];
    const settings = { ...ADAMW, maxNorm: 0.7, averageDecay: 0.9 };
    const bench = await OptimizerBench.open(
      sizes.map((n) => [[n]]),
      settings,
      { groups, clear: true },
    );
    try {
      const states = sizes.map((n, g) => adamwStart(noise(n, 10 + g)));
      const third = Float32Array.from(states[2]!.p);
      bench.start(...states.map((s) => s.p));
      for (let t = 1; t <= 3; t++) {
        const gradients = sizes.map((n, g) => noise(n, 20 * t + g));
        bench.gradients(...gradients);
        const report = await bench.step(RATE, t);
        const norm = Math.hypot(...gradients.flatMap((g) => [...g]));
        expect(Math.abs(report.norm / norm - 1)).toBeLessThan(2e-6);
        const factor = Math.min(1, 0.7 / (norm + 1e-6));
        const own = groups.map((group, g) =>
          adamwStep(
            states[g]!,
            gradients[g]!.map((x) => factor * x),
            { ...settings, maxNorm: 0, weightDecay: group.weightDecay ?? 0.01 },
            RATE * (group.rateFactor ?? 1),
            t,
          ),
        );
        expect(Math.abs(report.update / Math.hypot(...own.map((r) => r.update)) - 1)).toBeLessThan(2e-6);
      }
      for (const [g, pool] of bench.parameters.entries())
        expect(relativeError(await bench.read(pool), states[g]!.p), `group ${g}`).toBeLessThan(1e-6);
      expect(await bench.read(bench.parameters[2]!)).toEqual(third);
      expect(Object.keys(bench.optimizer.state)).toContain("second_moment_2");
      for (const pool of bench.optimizer.gradients)
        expect((await bench.read(pool)).every((x) => Object.is(x, 0))).toBe(true);
    } finally {
      bench.close();
    }
  });
});

describe("a step that is not finite", () => {
  const unchanged = async (options: BenchOptions, spoil: (bench: OptimizerBench) => void): Promise<void> => {
    const count = 2048 + 1009;
    const settings = { ...ADAMW, averageDecay: 0.9 };
    const bench = await OptimizerBench.open([[[2048], [1009]]], settings, { limit: 8192, ...options });
    try {
      const state = adamwStart(noise(count, 3));
      bench.start(state.p);
      bench.gradients(noise(count, 4));
      await bench.step(RATE, 1);
      const before = await bench.bits();
      spoil(bench);
      const report = await bench.step(RATE, 2);
      expect(report.finite).toBe(false);
      expect(report.update).toBe(0);
      expect(report.parameters).toBeGreaterThan(0);
      expect(await bench.bits()).toEqual(before);
      // The next good gradient is taken as if nothing had happened.
      bench.gradients(noise(count, 5));
      bench.session.write(bench.loss, Float32Array.of(1, -2, 0));
      adamwStep(state, noise(count, 4), settings, RATE, 1);
      adamwStep(state, noise(count, 5), settings, RATE, 2);
      expect((await bench.step(RATE, 2)).finite).toBe(true);
      expect(relativeError(await bench.read(bench.parameters[0]!), state.p)).toBeLessThan(1e-6);
    } finally {
      bench.close();
    }
  };

  for (const [name, value] of [
    ["NaN", Number.NaN],
    ["infinity", Number.POSITIVE_INFINITY],
    ["minus infinity", Number.NEGATIVE_INFINITY],
  ] as const) {
    it(`changes no bit when one gradient element is ${name}`, async () => {
      for (const at of [0, 2047, 2048, 3056]) {
        await unchanged({}, (bench) => bench.gradients(noise(3057, 6).map((x, i) => (i === at ? value : x))));
      }
    });

    it(`changes no bit when one loss is ${name}`, async () => {
      await unchanged({ loss: true }, (bench) => bench.session.write(bench.loss, Float32Array.of(1, value, 2)));
    });
  }

  it("is what a norm beyond float32 makes, though every gradient is finite", async () => {
    await unchanged({}, (bench) => bench.gradients(new Float32Array(3057).fill(1e30)));
  });
});

describe("the pools of an optimizer", () => {
  it("must hold parameters, f32 alone, and not grow behind its back", () => {
    const session = new Session(portableTarget());
    const parameters = new Pool("parameters", "weights", 1 << 20);
    expect(() => new Optimizer(session, [], ADAMW)).toThrow("at least one group");
    expect(() => new Optimizer(session, [{ pool: parameters }], ADAMW)).toThrow("no parameters");
    const a = parameters.add("a", [100], "f32");
    const optimizer = new Optimizer(session, [{ pool: parameters }], ADAMW);
    expect(a.gradient).toBe(optimizer.gradients[0]!.variables[0]);
    parameters.add("b", [4], "f32");
    expect(() => session.plan("late", (graph) => optimizer.trace(graph))).toThrow("has not the layout of parameters");
    const halves = new Pool("halves", "weights", 1 << 20);
    halves.add("half", [4], "f16");
    expect(() => new Optimizer(session, [{ pool: halves }], ADAMW)).toThrow("half is f16");
  });
});
