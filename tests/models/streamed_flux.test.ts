// A streamed FLUX transformer against the whole one on the same numbers: velocities and gradients of the LoRA.

import { describe, expect, test } from "vitest";
import { encodeWeight } from "../../src/base/quantize.ts";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { type FluxConfig, fluxConfig } from "../../src/models/flux/config.ts";
import { GeneratedBlocks } from "../../src/models/flux/streamed/generated.ts";
import { CachedBlocks, fileBlocks } from "../../src/models/flux/streamed/sources.ts";
import { chooseSlots, pieceBytes, StreamedFlux } from "../../src/models/flux/streamed/streamed.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { ConditioningVariables } from "../../src/models/velocity_network.ts";
import { Adapter, type AdapterSettings, chooseAdapters } from "../../src/nn/adapters.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { Pool } from "../../src/tensor/variable.ts";
import { dump } from "../helpers/dumps.ts";
import { relativeError } from "../helpers/gpu.ts";
import { numbersOf, runStreamed, runWhole, type StreamResult, type StreamTask } from "../helpers/streamed.ts";

const LORA: AdapterSettings = { targets: "diffusers", rank: 4, alpha: 4 };

const SMALL: FluxConfig = {
  inChannels: 16,
  outChannels: 16,
  doubleBlocks: 4,
  singleBlocks: 5,
  headSize: 16,
  heads: 2,
  width: 32,
  jointWidth: 24,
  pooledWidth: 16,
  guidance: true,
  ropeAxes: [4, 6, 6],
  ropeTheta: 10000,
  mlpRatio: 4,
};

function generated(config: FluxConfig, deviation = 0.15): GeneratedBlocks {
  const parameters = new Parameters(new Pool("weights", "weights", 2 ** 30));
  new FluxTransformer(parameters, config);
  return new GeneratedBlocks(parameters.tensors, { seed: 11, deviation });
}

function expectEqual(actual: StreamResult, expected: StreamResult, bound = 1e-6): void {
  expect(expected.velocity.every(Number.isFinite)).toBe(true);
  expect(relativeError(actual.velocity, expected.velocity)).toBeLessThan(bound);
  expect([...actual.gradients.keys()]).toEqual([...expected.gradients.keys()]);
  for (const [name, gradient] of expected.gradients) {
    expect(
      gradient.some((x) => x !== 0),
      name,
    ).toBe(true);
    expect(relativeError(actual.gradients.get(name)!, gradient), name).toBeLessThan(bound);
  }
}

/** Uploads of `blocks` blocks through `slots` slots in so many rounds there and back. */
function uploadsOf(blocks: number, slots: number, rounds: number): number {
  const there = Array.from({ length: blocks }, (_, i) => i);
  const held = new Map<number, number>();
  let uploads = 0;
  for (let round = 0; round < rounds; round++) {
    for (const block of [...there, ...there.toReversed()]) {
      const slot = block % Math.min(slots, blocks);
      if (held.get(slot) !== block) uploads++;
      held.set(slot, block);
    }
  }
  return uploads;
}

describe("the streamed transformer", () => {
  const base: StreamTask = { config: SMALL, storage: "f32", adapter: LORA, batch: 2, textTokens: 3, grid: [2, 3] };

  test.each([
    { storage: "bf16" as const, slots: [1, 2, 3] },
    { storage: "nf4" as const, slots: [2] },
  ])(
    "gives the velocity and the gradients of the whole one from $slots slots of $storage",
    async ({ storage, slots }) => {
      const task: StreamTask = { ...base, storage };
      const source = generated(SMALL);
      const whole = await runWhole(task, numbersOf(source, []));
      for (const count of slots) {
        const streamed = await runStreamed(task, source, { double: count, single: count }, { repeat: true });
        expectEqual(streamed, whole);
        // The first block of a kind has plans of its own, all others share them.
        expect(streamed.shared).toBe(2 * (4 + 5 - 2));
      }
    },
  );

  test.skipIf(!dump("flux1_small"))(
    "with split matrices is the unsplit one, and a block is uploaded only where its slot holds another",
    async () => {
      const subject = dump("flux1_small")!;
      const config = fluxConfig(subject.config, subject.folder);
      const file = await subject.open("weights");
      // Matrices of 384 x 64 and 64 x 320 take more than 64 KiB as f32.
      const maxBindingBytes = 65536;
      const unsplit: StreamTask = { ...base, config, storage: "bf16", batch: 1, textTokens: 8, grid: [4, 6] };
      const task = { ...unsplit, maxBindingBytes };
      const whole = await runWhole(unsplit, file);
      const piece = pieceBytes(config, "bf16", maxBindingBytes);
      for (const count of [1, 2]) {
        const streamed = await runStreamed(task, fileBlocks(file), { double: count, single: count }, { repeat: true });
        expectEqual(streamed, whole);
        const uploads = {
          double: uploadsOf(config.doubleBlocks, count, 2),
          single: uploadsOf(config.singleBlocks, count, 2),
        };
        const bytes = uploads.double * piece.double + uploads.single * piece.single;
        expect(Math.abs(streamed.streamed / bytes - 1)).toBeLessThan(0.05);
      }
    },
  );

  test("keeps block inputs in host memory where that is asked for, beside a pass that only samples", async () => {
    const source = generated(SMALL);
    const whole = await runWhole(base, numbersOf(source, []));
    const streamed = await runStreamed(base, source, { double: 2, single: 2 }, { spill: true });
    expectEqual(streamed, whole);
    expect(streamed.sampled).toEqual(streamed.velocity);
    const kept = await runStreamed(base, new CachedBlocks(source, 2 ** 16), { double: 2, single: 2 });
    expect(kept.memory.variables.data).toBeGreaterThan(streamed.memory.variables.data);
  });

  test("trains adapters outside of blocks, and leaves out the blocks below the first adapter", async () => {
    const source = generated(SMALL);
    const some = ["single_transformer_blocks.3.attn.to_q", "norm_out.linear"];
    for (const adapter of [
      { ...LORA, targets: "all-linear" as const },
      { ...LORA, kind: "lokr" as const, targets: some },
    ]) {
      const task: StreamTask = { ...base, adapter };
      const whole = await runWhole(task, numbersOf(source, []));
      expectEqual(await runStreamed(task, source, { double: 2, single: 2 }), whole, 2e-6);
    }
  });

  test("stays finite and exact where the residual stream is far above the range of f16", async () => {
    const task: StreamTask = { ...base, storage: "bf16", magnitude: 2e5 };
    const source = generated(SMALL);
    const whole = await runWhole(task, numbersOf(source, []));
    expect(whole.largest).toBeGreaterThan(1e5);
    expectEqual(await runStreamed(task, source, { double: 2, single: 2 }), whole);
  });

  test("names the kernel that first leaves the range of f32", async () => {
    const task: StreamTask = { ...base, storage: "bf16", magnitude: 1e37 };
    const streamed = await runStreamed(task, generated(SMALL, 40), { double: 2, single: 2 }, { locate: true });
    expect(streamed.velocity.every(Number.isFinite)).toBe(false);
    expect(streamed.located!.plan).toMatch(/^pass (embed|transformer_blocks\.\d+)$/);
  });

  test("refuses a DoRA by name", () => {
    const session = new Session(portableTarget());
    const model = new StreamedFlux(session, SMALL, { storage: "bf16", slots: { double: 2, single: 2 } });
    const { parameters } = model;
    new Adapter(session, parameters, chooseAdapters(parameters, { ...LORA, kind: "dora" }));
    const conditioning = new ConditioningVariables(session, "pass", SMALL, 1, 2);
    const rotary = () => expect.fail("nothing is traced");
    const shape = { name: "pass", conditioning, rotary, imageTokens: 4, training: true };
    expect(() => model.pass(shape)).toThrow(/E-CFG-044.*transformer_blocks\.0\.attn\.to_q/s);
  });
});

test("a file's bytes are taken as they are where they have the storage, and encoded where not", async () => {
  const values = Float32Array.of(1, -2.5, 0.1, 3);
  const words = new Uint16Array(values.buffer).filter((_, i) => i % 2 === 1);
  let loads = 0;
  const file: RangedSource = {
    name: "file",
    names: () => ["there.w"],
    has: (name) => name === "there.w",
    shape: () => [2, 2],
    dtype: () => "BF16",
    load: () => {
      loads++;
      return Promise.resolve(values);
    },
    loadRange: () => Promise.reject(new Error("not asked for")),
    loadBytes: () => Promise.resolve(new Uint8Array(words.buffer)),
    close: () => Promise.resolve(),
  };
  const source = new CachedBlocks(
    fileBlocks(file, (name) => `there.${name}`),
    100,
  );
  expect([source.has("w"), source.has("v"), source.shape("w")]).toEqual([true, false, [2, 2]]);
  expect((await source.read("w", "bf16")).codes).toEqual(new Uint32Array(words.buffer));
  expect(loads).toBe(0);
  for (let i = 0; i < 3; i++)
    expect((await source.read("w", "nf4")).codes).toEqual(encodeWeight("w", "nf4", values).codes);
  expect((await source.read("w", "f32")).codes).toEqual(values);
  expect(loads).toBe(2);
  expect(source.bytes).toBe(8 + 8 + 16);
  const picky = new CachedBlocks(
    fileBlocks(file, (name) => `there.${name}`),
    100,
    (name) => name !== "w",
  );
  await picky.read("w", "f32");
  expect(picky.bytes).toBe(0);
});

describe("slots", () => {
  test("say which tensors take turns in them", () => {
    const session = new Session(portableTarget());
    const slots = { double: 2, single: SMALL.singleBlocks };
    const model = new StreamedFlux(session, SMALL, { storage: "bf16", slots });
    const turning = [...model.parameters.tensors.keys()].filter((name) => model.takesTurns(name));
    expect(new Set(turning.map((name) => name.split(".")[0]))).toEqual(new Set(["transformer_blocks"]));
    const piece = pieceBytes(SMALL, "bf16", portableTarget().maxBindingBytes);
    expect(model.turningBytes() / (SMALL.doubleBlocks * piece.double)).toBeCloseTo(1, 1);
    // Room for a single block more than there are goes to the doubles, and no room takes it back.
    expect(model.slotsWith(piece.double)).toEqual({ double: 3, single: SMALL.singleBlocks });
    expect(model.slotsWith(-piece.single)).toEqual({ double: 2, single: SMALL.singleBlocks - 1 });
  });

  test("fill the memory that is given, two of each kind at least, and never exceed the blocks", () => {
    const dev: FluxConfig = { ...SMALL, doubleBlocks: 19, singleBlocks: 38, headSize: 128, heads: 24, width: 3072 };
    const config = { ...dev, inChannels: 64, outChannels: 64, jointWidth: 4096, pooledWidth: 768 };
    const piece = pieceBytes(config, "bf16", 128 << 20);
    expect(piece.double / 680e6).toBeCloseTo(1, 2);
    expect(piece.single / 283e6).toBeCloseTo(1, 2);
    expect(chooseSlots(config, "bf16", 128 << 20, 0)).toEqual({ double: 2, single: 2 });
    expect(chooseSlots(config, "nf4", 128 << 20, 2 ** 40)).toEqual({ double: 19, single: 38 });
    const { double, single } = chooseSlots(config, "bf16", 128 << 20, 16 * 2 ** 30);
    expect(double * piece.double + single * piece.single + piece.resident).toBeLessThan(16 * 2 ** 30);
    expect(single).toBe(38);
  });
});
