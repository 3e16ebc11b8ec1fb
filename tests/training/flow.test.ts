// The flow-matching trainer on a small FLUX.1 with a LoRA: what must not change an update, what must, and its numbers
// against formulas.

import { describe, expect, it } from "vitest";
import type { GpuBackend } from "../../src/platform/adapters.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { flowDistance, huberDelta } from "../../src/training/flow/steps.ts";
import {
  distance,
  type FlowRun,
  type FlowRunOptions,
  GRID,
  type Snapshot,
  snapshotBits,
  withRun,
} from "../helpers/flow.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

/** Updates 1 to `count` of a fresh run: their losses and everything that a checkpoint would hold. */
const train = (count: number, options: FlowRunOptions = {}) =>
  withRun(options, async (run) => ({ losses: await run.steps(1, count), state: await run.read() }));

/** Two updates with nothing changed, which others are compared with. */
let plain: Promise<Awaited<ReturnType<typeof train>>> | null = null;
const twoUpdates = () => (plain ??= train(2));

describe("an update of flow matching", () => {
  it("gives the same bits from the same seed, and other ones from another", async () => {
    const first = await twoUpdates();
    const second = await train(2);
    expect(second.losses).toEqual(first.losses);
    expect(snapshotBits(second.state)).toEqual(snapshotBits(first.state));
    const other = await train(1, { settings: { seed: 12 } });
    expect(other.losses[0]).not.toBe(first.losses[0]);
  });

  it("goes on to the bit from parameters and optimizer state in the middle of a run", async () => {
    const whole = await train(4, { optimizer: { averageDecay: 0.9 } });
    const half = await train(2, { optimizer: { averageDecay: 0.9 } });
    const rest = await withRun({ optimizer: { averageDecay: 0.9 }, start: half.state }, async (run) => ({
      losses: await run.steps(3, 4),
      state: await run.read(),
    }));
    expect([...half.losses, ...rest.losses]).toEqual(whole.losses);
    expect(snapshotBits(rest.state)).toEqual(snapshotBits(whole.state));
  });

  it("is the same without fusion and with checkpointed blocks, but for rounding", async () => {
    const plain = await twoUpdates();
    for (const options of [{ session: { fuse: false } }, { settings: { checkpointing: true } }]) {
      const other = await train(2, options);
      other.losses.forEach((loss, i) => expect(Math.abs(loss / plain.losses[i]! - 1)).toBeLessThan(1e-6));
      expect(distance(other.state["trained"]!, plain.state["trained"]!)).toBeLessThan(1e-6);
    }
  });

  it("is the same from a batch of 8 and from two accumulated batches of 4, but for the order of sums", async () => {
    // With a large epsilon Adam's first step follows the gradient; with a small one it would follow the signs of noise.
    const one = (settings: FlowRunOptions["settings"]) =>
      withRun({ settings, optimizer: { epsilon: 1e-3 } }, async (run) => {
        const samples = Array.from({ length: 8 }, (_, i) => run.sample(i, GRID, i % 3 === 0 ? 0.5 : 1));
        const report = await run.trainer.step(1, samples, GRID);
        return { report, gradients: await run.gradients(), state: await run.read() };
      });
    const whole = await one({ batch: 8 });
    const parts = await one({ batch: 4, accumulation: 2 });
    expect(parts.report.sigmas).toEqual(whole.report.sigmas);
    expect(relativeError(parts.report.losses, whole.report.losses)).toBeLessThan(1e-6);
    expect(Math.abs(parts.report.loss / whole.report.loss - 1)).toBeLessThan(1e-6);
    expect(Math.abs(parts.report.gradientNorm / whole.report.gradientNorm - 1)).toBeLessThan(1e-5);
    expect(distance(parts.gradients, whole.gradients)).toBeLessThan(1e-5);
    expect(distance(parts.state["trained"]!, whole.state["trained"]!)).toBeLessThan(1e-6);
  });

  it("weighs samples by their own weight and by their sigma", async () => {
    const shares = (run: FlowRun, weights: number[]) => weights.map((w, i) => run.sample(i, GRID, w));
    await withRun({ settings: { weighting: "cosmap" } }, async (run) => {
      const { loss, losses, sigmas } = await run.trainer.step(1, shares(run, [1, 0.25]), GRID);
      const factors = sigmas.map((s) => 2 / (Math.PI * (1 - 2 * s + 2 * s * s)));
      expect(loss).toBeCloseTo((factors[0]! * losses[0]! + 0.25 * factors[1]! * losses[1]!) / 2, 5);
    });
    // The gradient of the update is the sum of its samples', each with its weight.
    await withRun({}, async (run) => {
      const start = await run.read();
      const gradient = async (...weights: number[]) => {
        run.write(start);
        await run.trainer.step(1, shares(run, weights), GRID);
        return run.gradients();
      };
      const [first, second, both] = [await gradient(1, 0), await gradient(0, 1), await gradient(1, 0.5)];
      const sum = first.map((values, k) => values.map((v, i) => v + 0.5 * second[k]![i]!));
      expect(distance(first, both)).toBeGreaterThan(0.1);
      expect(distance(sum, both)).toBeLessThan(1e-5);
    });
  });

  it("trains pictures of several sizes with the same optimizer, each as if it were alone", async () => {
    const other = { rows: 4, columns: 2 };
    const alone = await withRun({ geometries: [other] }, async (run) => {
      const samples = [run.sample(1, other), run.sample(2, other)];
      return { report: await run.trainer.step(1, samples, other), state: await run.read() };
    });
    const both = await withRun({ geometries: [GRID, other] }, async (run) => {
      expect([...run.trainer.plans.keys()]).toEqual(["3x5", "4x2"]);
      const samples = [run.sample(1, other), run.sample(2, other)];
      const report = await run.trainer.step(1, samples, other);
      const state = await run.read();
      expect((await run.trainer.step(2, [run.sample(1), run.sample(2)], GRID)).finite).toBe(true);
      await expect(run.trainer.step(3, samples, GRID)).rejects.toThrow("3x5 tokens have");
      return { report, state };
    });
    expect(both.report).toEqual(alone.report);
    expect(snapshotBits(both.state)).toEqual(snapshotBits(alone.state));
  });

  it("with noise that is not finite changes nothing and names the first kernel that met it", async () => {
    await withRun({}, async (run) => {
      const bad = run.sample(1);
      bad.latents[7] = Number.NaN;
      const before = await run.read();
      const samples = [run.sample(0), bad];
      const report = await run.trainer.step(1, samples, GRID);
      expect(report.finite).toBe(false);
      expect(snapshotBits(await run.read())).toEqual(snapshotBits(before));
      expect(await run.trainer.locateNotFinite(1, samples, GRID)).toContain("flow update 3x5, micro-step 1");
      expect(snapshotBits(await run.read())).toEqual(snapshotBits(before));
      expect((await run.trainer.step(2, [run.sample(0), run.sample(1)], GRID)).finite).toBe(true);
    });
  });

  it("with a loss scale is the same update, and a scale that overflows is halved until it does not", async () => {
    const plain = await twoUpdates();
    const scaled = await train(2, { optimizer: { lossScale: { initial: 1024, growthInterval: 1 } } });
    expect(relativeError(scaled.losses, plain.losses)).toBeLessThan(1e-6);
    expect(distance(scaled.state["trained"]!, plain.state["trained"]!)).toBeLessThan(1e-5);
    await withRun({ optimizer: { lossScale: { initial: 2 ** 70, growthInterval: 100 } } }, async (run) => {
      const before = await run.read();
      const samples = [run.sample(0), run.sample(1)];
      const first = await run.trainer.step(1, samples, GRID);
      expect([first.finite, first.lossScale]).toEqual([false, 2 ** 69]);
      expect(snapshotBits({ trained: (await run.read())["trained"]! })).toEqual(
        snapshotBits({ trained: before["trained"]! }),
      );
      let report = first;
      for (let t = 2; t < 20 && !report.finite; t++) report = await run.trainer.step(t, samples, GRID);
      expect(report.finite).toBe(true);
    });
  });

  it("trains all weights of the model in the same plan, with and without fusion alike", async () => {
    const runs = [];
    for (const session of [{}, { fuse: false }]) {
      runs.push(
        await withRun({ full: true, settings: { validationSigmas: [0.3, 0.7] }, session }, async (run) => {
          const samples = [run.sample(1), run.sample(2)];
          const before = await run.trainer.validate(samples, GRID);
          for (let t = 1; t <= 4; t++) await run.trainer.step(t, samples, GRID);
          return { before, after: await run.trainer.validate(samples, GRID), weights: (await run.read())["trained"]! };
        }),
      );
    }
    expect(runs[0]!.after).toBeLessThan(0.9 * runs[0]!.before);
    expect(runs[1]!.before).toBeCloseTo(runs[0]!.before, 5);
    expect(distance(runs[1]!.weights, runs[0]!.weights)).toBeLessThan(1e-4);
  });

  it("is one plan, and writes little", async () => {
    await withRun({}, async (run) => {
      const plans = run.trainer.plans.get("3x5")!;
      expect([plans.begin, plans.micro]).toEqual([null, null]);
      const labels = plans.update!.plans[0]!.lowered.calls.map((call) => call.label);
      expect(labels).toContain("random_normal");
      expect(labels.some((label) => label.includes("adamw"))).toBe(true);
      let replays = 0;
      const own = run.session.run.bind(run.session);
      run.session.run = (...call) => {
        replays++;
        own(...call);
      };
      await run.steps(1, 2);
      expect(replays).toBe(2);
    });
  });
});

describe("the validation loss", () => {
  const sigmas = [0.2, 0.6, 0.9];

  it("is the same whenever it is measured, does not disturb training, and hardly depends on the batch", async () => {
    const measured = await withRun({ settings: { validationSigmas: sigmas } }, async (run) => {
      const samples = [0, 1, 2].map((i) => run.sample(i));
      const first = await run.trainer.validate(samples, GRID);
      const before = await run.read();
      expect(await run.trainer.validate(samples, GRID)).toBe(first);
      expect(snapshotBits(await run.read())).toEqual(snapshotBits(before));
      const losses = await run.steps(1, 2);
      const after = await run.trainer.validate(samples, GRID);
      expect(after).not.toBe(first);
      return { first, losses };
    });
    expect((await twoUpdates()).losses).toEqual(measured.losses);
    await withRun({ settings: { validationSigmas: sigmas, batch: 4 } }, async (run) => {
      const again = await run.trainer.validate(
        [0, 1, 2].map((i) => run.sample(i)),
        GRID,
      );
      expect(Math.abs(again / measured.first - 1)).toBeLessThan(1e-6);
    });
  });
});

describe("distances between prediction and target", () => {
  const d = [...noise(60, 3)].map((x) => 3 * x ** 3);
  const deltas = [0.1, 0.5, 1];

  it.each(["mse", "huber", "smooth_l1"] as const)(
    "%s and its gradient have the values of the formula",
    async (kind) => {
      const seeds = [...noise(60, 4)];
      const { outputs, gradients } = await runOps(
        [
          { shape: [3, 20], values: d },
          { shape: [3, 1], values: deltas },
        ],
        ([x, delta]) => [flowDistance(kind, x!, delta!)],
        { seeds: [seeds] },
      );
      const factor = (c: number) => (kind === "huber" ? 2 * c : 2);
      const delta = (i: number) => deltas[Math.floor(i / 20)]!;
      const value = d.map((x, i) =>
        kind === "mse" ? x * x : factor(delta(i)) * (Math.sqrt(x * x + delta(i) ** 2) - delta(i)),
      );
      const slope = d.map((x, i) =>
        kind === "mse" ? 2 * x : (factor(delta(i)) * x) / Math.sqrt(x * x + delta(i) ** 2),
      );
      expect(relativeError(outputs[0]!, value)).toBeLessThan(1e-6);
      expect(
        relativeError(
          gradients[0]!,
          slope.map((s, i) => s * seeds[i]!),
        ),
      ).toBeLessThan(2e-6);
    },
  );

  it("pseudo-Huber keeps its digits where the difference is tiny", async () => {
    const tiny = [1e-4, -3e-5, 1e-6];
    const { outputs } = await runOps(
      [
        { shape: [3, 1], values: tiny },
        { shape: [3, 1], values: [0.1, 0.1, 0.1] },
      ],
      ([x, delta]) => [flowDistance("huber", x!, delta!)],
    );
    expect(
      relativeError(
        outputs[0]!,
        tiny.map((x) => x * x),
      ),
    ).toBeLessThan(1e-5);
  });

  it("the delta falls with sigma from 1 to its value where the schedule says so", async () => {
    expect(huberDelta("constant", 0.1, 0.7)).toBe(0.1);
    expect(huberDelta("sigma", 0.1, 0)).toBe(1);
    expect(huberDelta("sigma", 0.1, 1)).toBeCloseTo(0.1, 12);
    for (const loss of ["huber", "smooth_l1"] as const) {
      const run = await train(2, { settings: { loss, huberSchedule: "sigma", huberDelta: 0.2 } });
      expect(
        run.losses.every((x) => x > 0 && Number.isFinite(x)),
        loss,
      ).toBe(true);
    }
  });
});

describe.each(["dawn", "deno"] as const)("LoRA training on %s", (backend: GpuBackend) => {
  const missing = openGpu({ backend })
    .then(async (gpu) => ((await gpu.requestAdapter()) ? null : "no adapter"))
    .catch((error: Error) => error.message);

  it("makes an update and goes on from its state to the bit", async (context) => {
    const why = await missing;
    if (why !== null) context.skip(why);
    const reference = await twoUpdates();
    const whole = await train(2, { backend });
    const first = await train(1, { backend });
    const rest = await withRun({ backend, start: first.state as Snapshot }, async (run) => ({
      losses: await run.steps(2, 2),
      state: await run.read(),
    }));
    expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
    expect(snapshotBits(rest.state)).toEqual(snapshotBits(whole.state));
    whole.losses.forEach((loss, i) => expect(Math.abs(loss / reference.losses[i]! - 1)).toBeLessThan(1e-5));
    expect(distance(whole.state["trained"]!, reference.state["trained"]!)).toBeLessThan(1e-4);
  });
});
