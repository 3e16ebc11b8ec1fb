// Every kind of adapter on one Linear layer against float64: outputs and gradients, with and without dropout, with many
// rows, over stored weights; and which masks dropout draws.

import { describe, expect, it } from "vitest";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { Adapter, type AdapterShape } from "../../src/nn/adapters.ts";
import { Linear } from "../../src/nn/linear.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { markTraining } from "../../src/nn/training_mode.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { lokr, lora, maskOf, type Options, onDevice, shapeOf } from "../helpers/adapter_on_device.ts";
import { forward64, gradients64, rowNorms, widen } from "../helpers/adapter_reference.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";

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
