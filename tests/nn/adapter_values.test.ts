// What an adapter holds: how each kind begins, what the host makes of it when it merges, and what a file must have to be
// loaded into it.

import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { kroneckerShape } from "../../src/nn/adapters/targets.ts";
import { Adapter, type AdapterShape } from "../../src/nn/adapters.ts";
import { Linear } from "../../src/nn/linear.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { lokr, lora, onDevice, shapeOf, values } from "../helpers/adapter_on_device.ts";
import { arraysOf } from "../helpers/adapter_reference.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";
import { mergedWeight } from "../helpers/merged_weight.ts";

describe("an adapter begins", () => {
  const options = { inputs: 24, outputs: 40, rows: 4, training: false };

  it("without effect, whatever its kind, and can be trained from there", async () => {
    const shapes: AdapterShape[] = [
      { rank: 3, scale: 2 },
      { kind: "dora", rank: 3, scale: 2 },
      kroneckerShape(24, 40, { rank: 2, scale: 2 }),
      kroneckerShape(24, 40, { rank: 1, scale: 2, decomposeBoth: true }),
      kroneckerShape(24, 40, { rank: 64, scale: 2 }),
    ];
    for (const shape of shapes) {
      await onDevice(shape, options, async ({ session, adapter, run }) => {
        adapter.initialise(session, 1);
        const began = await run();
        expect(began.gradients.some((g) => g.some((v) => v !== 0))).toBe(true);
        adapter.setStrength(session, 0);
        expect(relativeError(began.y, (await run()).y)).toBeLessThan(3e-7);
        const moved = began.gradients.slice(0, -1).filter((g) => g.some((v) => v !== 0));
        expect(moved.length, "some factor has a gradient").toBeGreaterThan(0);
      });
    }
  });

  it("DoRA with the row norms of the weight as it is stored", async () => {
    for (const storage of ["f32", "nf4"] as const) {
      const dora: AdapterShape = { kind: "dora", rank: 3, scale: 2 };
      await onDevice(dora, { ...options, inputs: 64, storage }, async ({ session, adapter, weight }) => {
        adapter.initialise(session, 1);
        const { magnitude } = (await adapter.read(session)).get("proj")!;
        const norms = Float64Array.from({ length: 40 }, (_, o) =>
          Math.sqrt(weight.slice(64 * o, 64 * (o + 1)).reduce((sum, v) => sum + v * v, 0)),
        );
        expect(relativeError(magnitude!, norms)).toBeLessThan(1e-6);
      });
    }
  });

  it("LoKr the same for a seed and a module, and otherwise for another", async () => {
    await onDevice(kroneckerShape(24, 40, { rank: 2, scale: 2 }), options, async ({ session, adapter }) => {
      const begin = async (seed: number) => {
        adapter.initialise(session, seed);
        return (await adapter.readLokr(session)).get("proj")!;
      };
      const first = await begin(1);
      expect(await begin(2)).not.toEqual(first);
      expect(await begin(1)).toEqual(first);
      // Even in ± 1 / √columns, as PyTorch begins matrices; what is multiplied with x first is zero.
      const { whole } = first.first as { whole: Float32Array };
      expect(Math.max(...whole.map(Math.abs))).toBeLessThanOrEqual(1 / Math.sqrt(first.first.columns));
      expect((first.second as { right: Float32Array }).right.every((v) => v === 0)).toBe(true);
    });
  });
});

describe("merging on the host", () => {
  it("gives the weight that the device acts with, at any strength", async () => {
    for (const layer of [lora(24, 40, 3, 1.5), lora(24, 40, 3, 1.5, true), lokr(24, 40, 2), lokr(24, 40, 99)]) {
      const options = { inputs: 24, outputs: 40, rows: 4, training: false };
      await onDevice(shapeOf(layer), options, async ({ session, adapter, weight, bias, x, run }) => {
        adapter.load(session, new Map([["proj", layer]]), "test");
        for (const strength of [1, 0.3]) {
          adapter.setStrength(session, strength);
          const merged = mergedWeight(layer, weight, strength);
          const { y } = await run();
          const expected = Float64Array.from(y, (_, i) => {
            const [r, o] = [Math.floor(i / 40), i % 40];
            let sum = bias![o]!;
            for (let k = 0; k < 24; k++) sum += x[24 * r + k]! * merged[24 * o + k]!;
            return sum;
          });
          expect(relativeError(y, expected)).toBeLessThan(2e-6);
        }
      });
    }
  });

  it("refuses a weight of another size", () => {
    expect(() => mergedWeight(lora(24, 40, 3, 1), new Float32Array(10))).toThrow("40 × 24");
  });

  it("keeps every array of a layer in the order of the adapter's variables", () => {
    expect(arraysOf(lora(4, 6, 2, 1, true)).map((a) => a.length)).toEqual([8, 12, 6]);
    expect(arraysOf(lokr(24, 40, 2)).map((a) => a.length)).toEqual([4 * 5, 8 * 2, 2 * 6]);
  });
});

describe("a file", () => {
  const where = "x.safetensors";
  const refused = async (shape: AdapterShape, layer: LoraLayer | LokrLayer): Promise<LongtailError> => {
    let found: LongtailError | null = null;
    await onDevice(shape, { inputs: 24, outputs: 40, rows: 1, training: false }, async ({ session, adapter }) => {
      try {
        adapter.load(session, new Map([["proj", layer]]), where);
      } catch (error) {
        found = error as LongtailError;
      }
    });
    expect(found!.code).toBe("E-FILE-060");
    expect(found!.message).toContain("proj");
    expect(found!.message).toContain(where);
    return found!;
  };

  it("of another kind, form, size or scale than the adapter is refused with what was expected", async () => {
    const plain: AdapterShape = { rank: 3, scale: 1.5 };
    expect((await refused(plain, lora(24, 40, 3, 1.5, true))).message).toContain("magnitude");
    expect((await refused(plain, lokr(24, 40, 2))).message).toContain("LoKr");
    expect((await refused({ kind: "dora", rank: 3, scale: 1.5 }, lora(24, 40, 3, 1.5))).message).toContain(
      "plain LoRA",
    );
    const shape = kroneckerShape(24, 40, { rank: 2, scale: 0.7 });
    expect((await refused(shape, lora(24, 40, 3, 1.5))).message).toContain("LoRA");
    expect((await refused(shape, lokr(24, 40, 99))).message).toContain("8 × 6 of rank 2");
    expect((await refused(shape, lokr(24, 40, 2, { factor: 2 }))).message).toContain("5 × 4");
    expect((await refused(shape, { ...lokr(24, 40, 2), scale: 3 })).message).toContain("0.7");
  });

  it("comes back as it was written, and modules that it does not name begin without effect", async () => {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      const parameters = new Parameters(session.pool("weights", "weights"));
      for (const name of ["one", "two"]) new Linear(parameters.at(name), 24, 40);
      const layer = lora(24, 40, 3, 1.5, true);
      const shape = shapeOf(layer);
      const adapter = new Adapter(session, parameters, new Map([["one", shape] as const, ["two", shape] as const]));
      await session.open(gpu);
      for (const v of parameters.variables.values()) session.write(v, values(v.size, 1));
      adapter.load(session, new Map([["two", layer]]), where, 9);
      const read = await adapter.read(session);
      expect(read.get("two")).toEqual(layer);
      const other = read.get("one")!;
      expect(other.up.every((v) => v === 0)).toBe(true);
      expect(other.down.some((v) => v !== 0)).toBe(true);
      adapter.initialise(session, 9);
      expect((await adapter.read(session)).get("one")).toEqual(other);
      await expect(adapter.readLokr(session)).rejects.toThrow("LoRA");
    } finally {
      session.close();
    }
  });
});
