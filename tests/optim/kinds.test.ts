// All kinds of optimizers on flat segments against double precision: tensors of odd sizes and shapes, several segments and
// groups, clipping, gradients of zero, refused steps, and runs that go on from what a checkpoint holds.

import { describe, expect, it } from "vitest";
import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import { poolSegments } from "../../src/optim/segments.ts";
import { elements, type Shape } from "../../src/tensor/shape.ts";
import { clipFactor } from "../helpers/adamw.ts";
import { noise, relativeError } from "../helpers/gpu.ts";
import { ADAMW, type BenchOptions, OptimizerBench } from "../helpers/optimizer.ts";
import { type ReferenceTensor, referenceOf } from "../helpers/optimizer_references.ts";

/** A first distance at which float32 resolves how far the parameters have moved. */
const FAR = { d0: 0.02 };

const KINDS: Record<string, { settings: Partial<OptimizerSettings>; rate: number; error: number }> = {
  SGD: { settings: { kind: "sgd" }, rate: 0.1, error: 1e-6 },
  "SGD with momentum": { settings: { kind: "sgd", momentum: 0.9 }, rate: 0.1, error: 1e-6 },
  Lion: { settings: { kind: "lion", beta2: 0.99 }, rate: 3e-3, error: 1e-6 },
  "AdamW of 8 bits on small tensors": { settings: { kind: "adamw8bit" }, rate: 1e-2, error: 1e-6 },
  Prodigy: { settings: { kind: "prodigy", prodigy: FAR }, rate: 1, error: 1e-5 },
  "Prodigy for diffusion": {
    settings: { kind: "prodigy", prodigy: { ...FAR, useBiasCorrection: true, safeguardWarmup: true } },
    rate: 1,
    error: 1e-5,
  },
  "Prodigy with slices and coupled decay": {
    settings: { kind: "prodigy", prodigy: { ...FAR, sliceP: 11, decouple: false, dCoef: 2, growthRate: 1.3 } },
    rate: 0.5,
    error: 1e-5,
  },
  "Prodigy without a first moment": {
    settings: { kind: "prodigy", beta1: 0, prodigy: { ...FAR, beta3: 0.9 } },
    rate: 1,
    error: 1e-5,
  },
  "Adafactor at a given rate": {
    settings: { kind: "adafactor", adafactor: { scaleParameter: false, relativeStep: false, clipThreshold: 0.6 } },
    rate: 1e-2,
    error: 2e-6,
  },
  "Adafactor with everything": {
    settings: { kind: "adafactor", adafactor: { warmupInit: true, beta1: 0.9, decayRate: -0.5 } },
    rate: 0,
    error: 2e-6,
  },
};

const SHAPES: Shape[] = [
  [3, 5],
  [1],
  [700],
  [64, 16],
  [9, 9],
  [1009],
  [2, 2, 2],
  [5, 4, 3, 3],
  [130, 70],
  [1, 7],
  [7, 1],
];
const SMALL: Shape[] = SHAPES.filter((shape) => elements(shape) < 4096);

interface Group {
  shapes: Shape[];
  weightDecay?: number;
  rateFactor?: number;
}

/** Parts of the given lengths, one behind the other. */
function cut(values: Float64Array, lengths: readonly number[]): Float64Array[] {
  let end = 0;
  return lengths.map((length) => {
    end += length;
    return values.subarray(end - length, end);
  });
}

/** Runs kernels and reference side by side and returns the kernels' bits. */
async function compare(
  name: string,
  groups: readonly Group[],
  change: Partial<OptimizerSettings>,
  options: BenchOptions = {},
  steps = 4,
): Promise<number[]> {
  const { settings: own, rate, error } = KINDS[name]!;
  const settings = { ...ADAMW, ...own, ...change };
  const bench = await OptimizerBench.open(
    groups.map((g) => g.shapes),
    settings,
    { ...options, groups: groups.map(({ weightDecay, rateFactor }) => ({ weightDecay, rateFactor })) },
  );
  try {
    const counts = groups.map((g) => g.shapes.reduce((n, s) => n + elements(s), 0));
    const values = counts.map((n, g) => noise(n, n + g));
    bench.start(...values);
    const tensors: ReferenceTensor[] = [];
    groups.forEach(({ shapes, weightDecay, rateFactor }, g) => {
      let at = 0;
      for (const shape of shapes) {
        const p = values[g]!.subarray(at, at + elements(shape));
        at += p.length;
        tensors.push({ shape, p, weightDecay: weightDecay ?? settings.weightDecay, rateFactor: rateFactor ?? 1 });
      }
    });
    const reference = referenceOf(settings, tensors);
    for (let t = 1; t <= steps; t++) {
      // Some gradients keep their direction, so that Prodigy's distance has reason to grow.
      const gradients = counts.map((n, g) => noise(n, 7 * t + g).map((x, i) => x + (i % 3)));
      bench.gradients(...gradients);
      const report = await bench.step(rate, t);
      const flat = Float64Array.from(gradients.flatMap((g) => [...g]));
      const before = Float64Array.from(values.flatMap((v) => [...v]));
      const { norm, factor } = clipFactor(flat, settings.maxNorm);
      reference.step(
        cut(
          flat.map((x) => factor * x),
          tensors.map(({ p }) => p.length),
        ),
        rate,
        t,
      );
      const after = Float64Array.from(values.flatMap((v) => [...v]));
      const expected = {
        norm,
        update: Math.hypot(...after.map((x, i) => x - before[i]!)),
        parameters: Math.hypot(...after),
      };
      expect(report.finite).toBe(true);
      for (const key of ["norm", "update", "parameters"] as const)
        expect(Math.abs(report[key] / expected[key] - 1), `${key} at step ${t}`).toBeLessThan(20 * error);
      if (reference.d !== undefined) expect(Math.abs(report.d! / reference.d - 1)).toBeLessThan(20 * error);
    }
    for (const [g, pool] of bench.parameters.entries())
      expect(relativeError(await bench.read(pool), values[g]!), `group ${g}`).toBeLessThan(error);
    for (const pool of [...bench.parameters, ...bench.optimizer.gradients]) await expectPadding(bench, pool);
    return await bench.bits();
  } finally {
    bench.close();
  }
}

/** What lies between variables is zero. */
async function expectPadding(bench: OptimizerBench, pool: OptimizerBench["parameters"][number]): Promise<void> {
  for (const [segment, variable] of poolSegments(pool).entries()) {
    const flat = await bench.session.read(variable);
    for (const v of pool.variables) {
      if (v.segment === segment) flat.fill(0, v.offset / 4, v.offset / 4 + v.size);
    }
    expect(flat.every((x) => x === 0)).toBe(true);
  }
}

describe.each(Object.keys(KINDS))("%s", (name) => {
  const shapes = KINDS[name]!.settings.kind === "adamw8bit" ? SMALL : SHAPES;

  it("agrees with float64 for tensors of odd sizes, with decay and clipping", async () => {
    await compare(name, [{ shapes }], { maxNorm: 3 });
  });

  it("gives the same bits twice when its tensors lie in many segments and its grids are folded", async () => {
    const options = { limit: 40_960, maxWorkgroups: 3 };
    const first = await compare(name, [{ shapes }], { weightDecay: 0 }, options, 2);
    expect(await compare(name, [{ shapes }], { weightDecay: 0 }, options, 2)).toEqual(first);
  });

  it("keeps groups apart and leaves one alone whose rate is zero", async () => {
    await compare(
      name,
      [
        { shapes: shapes.slice(0, 5) },
        { shapes: shapes.slice(5, 8), weightDecay: 0.2 },
        { shapes: [[5], [6, 7]], rateFactor: 0 },
      ],
      {},
      {},
      3,
    );
  });

  const settings = { ...ADAMW, ...KINDS[name]!.settings, maxNorm: 3, averageDecay: 0.9 };
  const { rate } = KINDS[name]!;
  const count = shapes.reduce((n, s) => n + elements(s), 0);
  const open = (change: Partial<OptimizerSettings> = {}) =>
    OptimizerBench.open([shapes], { ...settings, ...change }, { limit: 40_960 });
  const run = async (bench: OptimizerBench, first: number, last: number) => {
    for (let t = first; t <= last; t++) {
      bench.gradients(noise(count, t));
      await bench.step(rate, t);
    }
  };

  it("goes on to the same bits from what a checkpoint holds", async () => {
    const lossScale = { initial: 8, growthInterval: 2 };
    const whole = await open({ lossScale });
    whole.start(noise(count, 9));
    await run(whole, 1, 3);
    const saved = [...(await whole.save()).values()];
    await run(whole, 4, 6);
    const expected = await whole.bits();
    whole.close();
    const resumed = await open({ lossScale });
    // A resumed run begins like a new one, with whatever values, before its state is read.
    resumed.start(noise(count, 10));
    const places = [...(await resumed.save()).keys()];
    resumed.restore(new Map(places.map((variable, i) => [variable, saved[i]!])));
    await run(resumed, 4, 6);
    expect(await resumed.bits()).toEqual(expected);
    resumed.close();
  });

  it("changes no bit in a step whose gradients are not finite", async () => {
    const bench = await open();
    bench.start(noise(count, 9));
    await run(bench, 1, 2);
    const before = await bench.bits();
    for (const value of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      bench.gradients(noise(count, 3).map((x, i) => (i === count - 1 ? value : x)));
      const report = await bench.step(rate, 3);
      expect(report.finite).toBe(false);
      expect(report.update).toBe(0);
      expect(await bench.bits()).toEqual(before);
    }
    bench.close();
  });

  it("forgets whatever lay in its state when it is initialised", async () => {
    const bench = await open();
    bench.start(noise(count, 9));
    await run(bench, 1, 2);
    const expected = await bench.bits();
    for (const pool of Object.values(bench.optimizer.state))
      for (const v of pool.variables) bench.session.write(v, new Uint32Array(v.size).fill(0x7fc0dead));
    bench.optimizer.initialise(bench.session);
    bench.start(noise(count, 9));
    await run(bench, 1, 2);
    expect(await bench.bits()).toEqual(expected);
    bench.close();
  });

  it("moves nothing but by its decay when all gradients are zero", async () => {
    const bench = await open({ weightDecay: 0, averageDecay: undefined });
    const start = Float32Array.from(noise(count, 9));
    bench.start(start);
    for (let t = 1; t <= 2; t++) expect(await bench.step(rate, t)).toMatchObject({ finite: true, norm: 0, update: 0 });
    expect(await bench.read(bench.parameters[0]!)).toEqual(start);
    await run(bench, 3, 3);
    expect((await bench.read(bench.parameters[0]!)).every(Number.isFinite)).toBe(true);
    bench.close();
  });
});

describe("Prodigy's groups", () => {
  it("must share one rate, because they share one distance", async () => {
    const groups = [{ rateFactor: 1 }, { rateFactor: 0.5 }];
    await expect(OptimizerBench.open([[[3]], [[4]]], { ...ADAMW, kind: "prodigy" }, { groups })).rejects.toThrow(
      "share one rate",
    );
  });

  it("do nothing at a rate of zero, their distance included", async () => {
    const bench = await OptimizerBench.open([[[33]]], { ...ADAMW, kind: "prodigy" });
    bench.start(noise(33, 1));
    bench.gradients(noise(33, 2));
    const before = await bench.bits();
    const report = await bench.step(0, 1);
    expect(report.d).toBe(Math.fround(1e-6));
    expect(await bench.bits()).toEqual(before);
    bench.close();
  });
});
