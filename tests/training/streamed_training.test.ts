// Trainers and drawing on a transformer whose blocks are streamed: the same numbers as on one that is on the device as a whole.

import { describe, expect, it } from "vitest";
import { DiskFiles } from "../../src/platform/files.ts";
import { loadItems } from "../../src/runs/align/items.ts";
import { promptOrder } from "../../src/runs/align/prompts.ts";
import { preparePrompts } from "../../src/runs/align/run.ts";
import { Bench, type Changes, smallConfig } from "../helpers/alignment.ts";
import { distance, type FlowRunOptions, GRID, snapshotBits, withRun } from "../helpers/flow.ts";

const SLOTS = { double: 1, single: 2 };
/** Sums are grouped alike in both ways, but pieces are fused within themselves alone. */
const ROUNDING = 1e-6;

describe("flow matching on streamed blocks", () => {
  const TALL = { rows: 4, columns: 2 };
  const run = async (options: FlowRunOptions) =>
    await withRun({ ...options, geometries: [TALL, GRID] }, async (flow) => {
      const losses = await flow.steps(1, 3);
      const tall = Array.from({ length: flow.trainer.samplesPerUpdate }, (_, i) => flow.sample(i, TALL));
      const report = await flow.trainer.step(4, tall, TALL);
      const validation = await flow.trainer.validate([flow.sample(1), flow.sample(2), flow.sample(3)], GRID);
      return { losses: [...losses, report.loss], norm: report.gradientNorm, validation, state: await flow.read() };
    });

  it.each([
    { accumulation: 1, loss: "mse" },
    { accumulation: 2, loss: "huber" },
  ] as const)("gives the updates of the whole model, $accumulation micro-steps of $loss", async (settings) => {
    const options: FlowRunOptions = { settings: { ...settings, guidance: 2, validationSigmas: [0.3, 0.8] } };
    const whole = await run(options);
    const streamed = await run({ ...options, slots: SLOTS });
    const numbers = (one: typeof whole) => [...one.losses, one.norm, one.validation];
    numbers(streamed).forEach((number, i) => {
      expect(Math.abs(number / numbers(whole)[i]! - 1)).toBeLessThan(ROUNDING);
    });
    for (const [pool, values] of Object.entries(whole.state))
      expect(distance(streamed.state[pool]!, values), pool).toBeLessThan(10 * ROUNDING);
  });

  it("goes on to the bit from parameters and optimizer state in the middle of a run", async () => {
    const options: FlowRunOptions = { slots: SLOTS };
    const [middle, end] = await withRun(options, async (flow) => {
      await flow.steps(1, 2);
      const half = await flow.read();
      await flow.steps(3, 4);
      return [half, await flow.read()];
    });
    const continued = await withRun({ ...options, start: middle }, async (flow) => {
      await flow.steps(3, 4);
      return await flow.read();
    });
    expect(snapshotBits(continued)).toEqual(snapshotBits(end!));
  });

  it("with noise that is not finite changes nothing and names the first kernel that met it", async () => {
    await withRun({ slots: SLOTS }, async (flow) => {
      const bad = flow.sample(1);
      bad.latents[7] = Number.NaN;
      const before = await flow.read();
      const samples = [flow.sample(0), bad];
      expect((await flow.trainer.step(1, samples, GRID)).finite).toBe(false);
      expect(snapshotBits(await flow.read())).toEqual(snapshotBits(before));
      const place = await flow.trainer.locateNotFinite(1, samples, GRID);
      expect(place).toContain("(flow micro-step 3x5, before the model, micro-step 1)");
      expect((await flow.trainer.step(2, [flow.sample(0), flow.sample(1)], GRID)).finite).toBe(true);
    });
  });
});

describe("an alignment on streamed blocks", () => {
  const LORA = { "adapter.kind": "lora", "adapter.rank": "4", "optim.lr": "1e-3", "align.rollout_steps": "1" };
  const update = async (changes: Changes) => {
    const bench = await Bench.open({ ...LORA, ...changes });
    try {
      const config = await smallConfig({ ...LORA, ...changes });
      const { items, data } = await loadItems(new DiskFiles(), config);
      const { world } = bench;
      const order = promptOrder(config, items);
      const texts = await bench.texts(config);
      const reports = [];
      for (let step = 1; step <= 2; step++) {
        const prompts = await preparePrompts({ config, world, texts, data }, order, step);
        reports.push(await world.trainer!.update(step, prompts));
      }
      const numbers = reports.flatMap((r) => [r.loss, r.gradientNorm, r.positive, r.negative, r.updateRatio]);
      const state: Float32Array[] = [];
      for (const v of bench.pools.flatMap((pool) => pool.variables)) state.push(await world.session.read(v));
      const [text] = await preparePrompts({ config, world, texts, data }, order, 1);
      const [drawn] = await world.drawing.draw([{ ...text!, noise: world.drawing.noise(1, 1) }]);
      return { numbers, state, drawn: drawn!, streamed: world.pipeline.streamed };
    } finally {
      bench.close();
      await bench.world.pipeline.close();
    }
  };

  it.each<Changes>([
    { "align.stacked": "yes", "adapter.dropout": "0.1" },
    { "train.accumulation": "2", "align.branches": "inversion" },
  ])("gives the updates and the pictures of the whole model, with %o", async (changes) => {
    const whole = await update(changes);
    const streamed = await update({ ...changes, "device.offload": "blocks" });
    expect([whole.streamed, streamed.streamed?.slots]).toEqual([null, { double: 2, single: 2 }]);
    whole.numbers.forEach((number, i) => {
      expect(Math.abs(streamed.numbers[i]! - number)).toBeLessThan(ROUNDING * Math.abs(number));
    });
    expect(distance(streamed.state, whole.state)).toBeLessThan(ROUNDING);
    expect(distance([streamed.drawn.picture], [whole.drawn.picture])).toBeLessThan(ROUNDING);
  });
});
