// Every kind of adapter on one Linear layer against float64: outputs and gradients, with and without dropout, with many
// rows, over stored weights; how each begins, and which masks it draws.

import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import { RandomStream } from "../../src/base/random.ts";
import { memorySource } from "../../src/base/tensor_source.ts";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { mergedWeight } from "../../src/nn/adapters/merge.ts";
import { kroneckerShape } from "../../src/nn/adapters/targets.ts";
import { Adapter, type AdapterShape, adaptersOf } from "../../src/nn/adapters.ts";
import { Linear } from "../../src/nn/linear.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { markTraining } from "../../src/nn/training_mode.ts";
import { backward } from "../../src/ops/backward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { arraysOf, forward64, gradients64, rowNorms, widen } from "../helpers/adapter_reference.ts";
import { noise, relativeError, testGpu } from "../helpers/gpu.ts";

const SEED = 11;
const STEP = 3;

interface Options {
  inputs: number;
  outputs: number;
  rows: number;
  bias?: boolean;
  storage?: "f32" | "f16" | "bf16" | "int8" | "nf4";
  /** Trace the layer as a checkpointed segment. */
  checkpoint?: boolean;
  /** Mark the plan as one that trains; true by default. */
  training?: boolean;
}

interface Parts {
  session: Session;
  adapter: Adapter;
  /** The weight as products read it, [out, in]. */
  weight: Float64Array;
  bias: Float64Array | null;
  x: Float64Array;
  seed: Float64Array;
  run: () => Promise<{ y: Float32Array; gradients: Float32Array[] }>;
}

/** One layer "proj" with an adapter on the device, and the plan that differentiates sum(seed · y). */
async function onDevice(shape: AdapterShape, options: Options, body: (parts: Parts) => Promise<void>): Promise<void> {
  const { inputs, outputs, rows } = options;
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const parameters = new Parameters(session.pool("weights", "weights"), { storage: options.storage ?? "f32" });
    const layer = new Linear(parameters.at("proj"), inputs, outputs, { bias: options.bias });
    const adapter = new Adapter(session, parameters, new Map([["proj", shape]]));
    const pools = adapter.groups().map(({ pool }) => pool);
    const twins = pools.map((pool, k) => session.adopt(pool.twin(`gradients ${k}`, "gradients", ".grad")));
    pools.forEach((pool, k) => pool.variables.forEach((v, i) => (v.gradient = twins[k]!.variables[i]!)));
    const variable = {
      x: session.data("x", [rows, inputs]),
      y: session.data("y", [rows, outputs]),
      seed: session.data("seed", [rows, outputs]),
      dx: session.data("dx", [rows, inputs]),
      weight: session.data("weight read", [outputs, inputs]),
    };
    const plan = session.plan("linear", (graph) => {
      if (options.training !== false) markTraining(graph);
      const x = graph.read(variable.x, true);
      const y = options.checkpoint
        ? graph.checkpoint([x], ([inner]) => [layer.forward(graph, inner!)])[0]!
        : layer.forward(graph, x);
      graph.assign(variable.y, y);
      const [dx] = backward(graph, [[y, graph.read(variable.seed)]], [x]);
      graph.assign(variable.dx, dx!);
    });
    const look = session.plan("weight", (graph) => graph.assign(variable.weight, layer.weightTensor(graph)));
    await session.open(gpu);
    const [w, b] = [values(inputs * outputs, 1), values(outputs, 2)];
    const tensors = new Map([
      ["proj.weight", { shape: [outputs, inputs], data: w }],
      ["proj.bias", { shape: [outputs], data: b }],
    ]);
    await loadParameters(session, parameters, memorySource("test", tensors));
    const [x, seed] = [noise(rows * inputs, 3), noise(rows * outputs, 4)];
    session.write(variable.x, Float32Array.from(x));
    session.write(variable.seed, Float32Array.from(seed));
    session.run(look);
    const weight = Float64Array.from(await session.read(variable.weight));
    const run = async () => {
      for (const pool of twins) session.clear(pool);
      session.poison();
      session.run(plan);
      await session.finish();
      const gradients: Float32Array[] = [];
      for (const v of pools.flatMap((pool) => pool.variables)) gradients.push(await session.read(v.gradient!));
      gradients.push(await session.read(variable.dx));
      return { y: await session.read(variable.y), gradients };
    };
    adapter.writeDropout(session, SEED, STEP);
    const bias = options.bias === false ? null : Float64Array.from(b);
    await body({ session, adapter, weight, bias, x, seed, run });
  } finally {
    session.close();
  }
}

const values = (count: number, seed: number, scale = 1) => Float32Array.from(noise(count, seed), (v) => v * scale);

function lora(inputs: number, outputs: number, rank: number, scale: number, magnitude = false): LoraLayer {
  return {
    rank,
    inputs,
    outputs,
    down: values(rank * inputs, 5),
    up: values(outputs * rank, 6),
    scale,
    ...(magnitude ? { magnitude: values(outputs, 7).map((v) => 2 + v) } : {}),
  };
}

function lokr(
  inputs: number,
  outputs: number,
  rank: number,
  options: { factor?: number; decomposeBoth?: boolean } = {},
): LokrLayer {
  const { first, second, scale } = kroneckerShape(inputs, outputs, { rank, scale: 0.7, ...options });
  const make = ({ rows, columns, rank: own }: typeof first, seed: number) =>
    own === null
      ? { rows, columns, whole: values(rows * columns, seed) }
      : { rows, columns, rank: own, left: values(rows * own, seed), right: values(own * columns, seed + 1) };
  return { inputs, outputs, first: make(first, 8), second: make(second, 10), scale };
}

function maskOf(rate: number, rows: number, inputs: number): Float64Array {
  const uniforms = new RandomStream(SEED, "adapter dropout").uniforms(STEP, rows * inputs);
  return Float64Array.from(uniforms, (u) => (u >= rate ? 1 / (1 - rate) : 0));
}

const shapeOf = (layer: LoraLayer | LokrLayer, dropout = 0): AdapterShape =>
  adaptersOf(new Map([["proj", layer]]), { dropout }).get("proj")!;

describe("an adapter on one layer agrees with float64 in its output and all gradients:", () => {
  const cases: [string, LoraLayer | LokrLayer, Partial<Options> & { dropout?: number; strength?: number }][] = [
    ["LoRA", lora(20, 12, 3, 1.5), {}],
    ["LoRA with dropout", lora(20, 12, 3, 1.5), { dropout: 0.3 }],
    ["DoRA", lora(20, 12, 3, 1.5, true), {}],
    ["DoRA without bias", lora(20, 12, 3, 1.5, true), { bias: false }],
    ["DoRA at another strength", lora(20, 12, 3, 1.5, true), { strength: 0.4 }],
    ["DoRA with dropout", lora(20, 12, 3, 1.5, true), { dropout: 0.3 }],
    ["DoRA over bf16 weights", lora(24, 12, 3, 1.5, true), { storage: "bf16" }],
    ["DoRA over int8 weights with dropout", lora(64, 12, 2, 1.5, true), { storage: "int8", dropout: 0.5 }],
    ["DoRA over nf4 weights", lora(64, 12, 2, 1.5, true), { storage: "nf4" }],
    ["LoKr with a product as second factor", lokr(24, 40, 2), {}],
    ["LoKr with two products and dropout", lokr(24, 40, 1, { decomposeBoth: true }), { dropout: 0.3 }],
    ["LoKr with two whole factors, the second on the input's side", lokr(36, 12, 64), { strength: 0.4 }],
    ["LoKr with two whole factors, the first on the input's side", lokr(12, 36, 64), {}],
    ["LoKr of a factor 2", lokr(24, 40, 3, { factor: 2 }), {}],
    ["LoKr of sizes that are prime", lokr(7, 13, 2), {}],
  ];
  for (const [name, layer, { dropout = 0, strength = 1, ...options }] of cases) {
    it(name, async () => {
      const [inputs, outputs, rows] = [layer.inputs, layer.outputs, 5];
      await onDevice(shapeOf(layer, dropout), { inputs, outputs, rows, ...options }, async (parts) => {
        parts.adapter.load(parts.session, new Map([["proj", layer]]), "test");
        parts.adapter.setStrength(parts.session, strength);
        const { weight, bias, x, seed } = parts;
        const given = { layer: widen(layer), weight, bias, x, mask: maskOf(dropout, rows, inputs), strength };
        const { y, gradients } = await parts.run();
        expect(relativeError(y, forward64(given, rowNorms(given)))).toBeLessThan(2e-6);
        const expected = gradients64(given, seed);
        expect(gradients.length).toBe(expected.length);
        expected.forEach((wanted, k) => {
          expect(relativeError(gradients[k]!, wanted), `gradient ${k}`).toBeLessThan(4e-6);
        });
      });
    });
  }

  it("LoKr over so many rows that the factors' gradients are summed in parts", async () => {
    const layer = lokr(6, 9, 1);
    const rows = 2304;
    await onDevice(shapeOf(layer), { inputs: 6, outputs: 9, rows }, async (parts) => {
      parts.adapter.load(parts.session, new Map([["proj", layer]]), "test");
      const { weight, bias, x, seed } = parts;
      const given = { layer: widen(layer), weight, bias, x, mask: new Float64Array(x.length).fill(1), strength: 1 };
      const { y, gradients } = await parts.run();
      expect(relativeError(y, forward64(given, rowNorms(given)))).toBeLessThan(2e-6);
      gradients64(given, seed, false).forEach((wanted, k) => {
        expect(relativeError(gradients[k]!, wanted), `gradient ${k}`).toBeLessThan(4e-6);
      });
    });
  });
});

describe("dropout of an adapter", () => {
  it("gives the same bits when the layer is a checkpointed segment that is traced twice", async () => {
    for (const layer of [lora(20, 12, 3, 1.5), lora(20, 12, 3, 1.5, true), lokr(24, 40, 2)]) {
      const runs: { y: Float32Array; gradients: Float32Array[] }[] = [];
      for (const checkpoint of [false, true]) {
        const { inputs, outputs } = layer;
        await onDevice(shapeOf(layer, 0.4), { inputs, outputs, rows: 7, checkpoint }, async (parts) => {
          parts.adapter.load(parts.session, new Map([["proj", layer]]), "test");
          runs.push(await parts.run());
        });
      }
      expect(runs[1]!.y).toEqual(runs[0]!.y);
      runs[0]!.gradients.forEach((wanted, k) => {
        expect(runs[1]!.gradients[k]).toEqual(wanted);
      });
    }
  });

  it("is absent from plans that do not train", async () => {
    const layer = lora(20, 12, 3, 1.5);
    const outputs: Float32Array[] = [];
    for (const dropout of [0, 0.4]) {
      const options = { inputs: 20, outputs: 12, rows: 7, training: false };
      await onDevice(shapeOf(layer, dropout), options, async (parts) => {
        expect(parts.adapter.drops).toBe(dropout > 0);
        parts.adapter.load(parts.session, new Map([["proj", layer]]), "test");
        outputs.push((await parts.run()).y);
      });
    }
    expect(outputs[1]).toEqual(outputs[0]);
  });

  it("draws another mask for every module, step and seed, and drops the share that is asked for", async () => {
    const [width, rows, rate] = [64, 200, 0.3];
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      // A is the identity, B too, and the weight is zero: the output shows the mask itself.
      const parameters = new Parameters(session.pool("weights", "weights"));
      const layers = ["one", "two"].map((name) => new Linear(parameters.at(name), width, width, { bias: false }));
      const shape: AdapterShape = { rank: width, scale: 1, dropout: rate };
      const adapter = new Adapter(session, parameters, new Map(["one", "two"].map((name) => [name, shape] as const)));
      const x = session.data("x", [rows, width]);
      const outputs = layers.map((_, i) => session.data(`y${i}`, [rows, width]));
      const plan = session.plan("masks", (graph) => {
        markTraining(graph);
        layers.forEach((layer, i) => graph.assign(outputs[i]!, layer.forward(graph, graph.read(x))));
      });
      await session.open(gpu);
      for (const weight of parameters.variables.values()) session.write(weight, new Float32Array(width * width));
      const identity = Float32Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 1 : 0));
      const factors = { rank: width, inputs: width, outputs: width, down: identity, up: identity, scale: 1 };
      adapter.load(session, new Map(["one", "two"].map((name) => [name, factors] as const)), "test");
      session.write(x, new Float32Array(rows * width).fill(1));
      const masks: string[] = [];
      const draw = async (seed: number, step: number) => {
        adapter.writeDropout(session, seed, step);
        session.run(plan);
        for (const output of outputs) {
          const mask = await session.read(output);
          const kept = mask.filter((v) => v !== 0);
          expect(kept.every((v) => Math.abs(v - 1 / (1 - rate)) < 1e-6)).toBe(true);
          expect(kept.length / mask.length).toBeGreaterThan(1 - rate - 0.02);
          expect(kept.length / mask.length).toBeLessThan(1 - rate + 0.02);
          masks.push(mask.join());
        }
      };
      await draw(1, 0);
      await draw(1, 1);
      await draw(2, 0);
      expect(new Set(masks).size).toBe(6);
      await draw(1, 0);
      expect(masks.slice(6)).toEqual(masks.slice(0, 2));
    } finally {
      session.close();
    }
  });
});

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
