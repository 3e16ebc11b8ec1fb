// Matrices above one binding: parts by rows give what the whole gives.

import { describe, expect, test } from "vitest";
import type { Storage } from "../../src/base/quantize.ts";
import { RandomStream } from "../../src/base/random.ts";
import { memorySource } from "../../src/base/tensor_source.ts";
import { Linear } from "../../src/nn/linear.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { matrixRows, SplitMatrix } from "../../src/nn/split_matrix.ts";
import { backward } from "../../src/ops/backward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";

describe("rows of the parts", () => {
  test("fit the limit as f32, hold whole blocks of 64 values, and are nearly equal", () => {
    expect(matrixRows([18432, 3072], 128 << 20)).toEqual([9216, 9216]);
    expect(matrixRows([10, 48], 48 * 4 * 9)).toEqual([8, 2]);
    expect(matrixRows([100, 50], 2 ** 20)).toEqual([100]);
    for (const [rows, inputs, limit] of [
      [97, 24, 4096],
      [1000, 7, 2048],
      [33, 128, 1024],
    ] as const) {
      const parts = matrixRows([rows, inputs], limit);
      expect(parts.reduce((a, b) => a + b, 0)).toBe(rows);
      for (const part of parts) expect(part * inputs * 4).toBeLessThanOrEqual(limit);
      for (const part of parts.slice(0, -1)) expect((part * inputs) % 64).toBe(0);
    }
    expect(() => matrixRows([100, 7], 256)).toThrow("64 rows of 7 values");
  });
});

const INPUTS = 24;
const OUTPUTS = 77;
const ROWS = 5;

/** Product, gradient of x, and of weight and bias where they are kept as f32. */
async function run(storage: Storage, limit: number | null) {
  const gpu = await testGpu();
  const own = targetOf(gpu);
  const session = new Session({ ...own, maxBindingBytes: limit ?? own.maxBindingBytes });
  try {
    const pool = session.pool("weights", "weights");
    const parameters = new Parameters(pool, { storage });
    const layer = new Linear(parameters.at("layer"), INPUTS, OUTPUTS);
    const trained = storage === "f32";
    if (trained) {
      const gradients = session.adopt(pool.twin("gradients", "gradients", ".gradient"));
      pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
    }
    const [x, dx] = ["x", "dx"].map((name) => session.data(name, [ROWS, INPUTS]));
    const [y, dy] = ["y", "dy"].map((name) => session.data(name, [ROWS, OUTPUTS]));
    const plan = session.plan("layer", (graph) => {
      const input = graph.read(x!, true);
      const output = layer.forward(graph, input);
      graph.assign(y!, output);
      graph.assign(dx!, backward(graph, [[output, graph.read(dy!)]], [input])[0]!);
    });
    await session.open(gpu);
    const stream = new RandomStream(1, "split");
    const values = new Map([
      ["layer.weight", { shape: [OUTPUTS, INPUTS], data: stream.normals(0, OUTPUTS * INPUTS) }],
      ["layer.bias", { shape: [OUTPUTS], data: stream.normals(1, OUTPUTS) }],
    ]);
    await loadParameters(session, parameters, memorySource("numbers", values));
    session.write(x!, stream.normals(2, ROWS * INPUTS));
    session.write(dy!, stream.normals(3, ROWS * OUTPUTS));
    if (trained) for (const v of pool.variables) session.write(v.gradient!, new Float32Array(v.size));
    session.poison();
    session.run(plan);
    const parts: number[] = [];
    for (const v of pool.variables) if (v.gradient) parts.push(...(await session.read(v.gradient)));
    return {
      split: layer.weight instanceof SplitMatrix ? layer.weight.parts.length : 1,
      y: await session.read(y!),
      dx: await session.read(dx!),
      gradients: parts,
      bytes: parameters.bytesByStorage,
      count: parameters.count,
    };
  } finally {
    session.close();
  }
}

test.each(["f32", "f16", "bf16", "int8", "nf4"] as const)(
  "a layer of %s in parts gives the product to the bit, and its gradients",
  async (storage) => {
    const whole = await run(storage, null);
    const parts = await run(storage, 2560);
    expect(whole.split).toBe(1);
    expect(parts.split).toBe(4);
    expect(parts.y).toEqual(whole.y);
    expect(relativeError(parts.dx, whole.dx)).toBeLessThan(1e-6);
    // Parts lie one behind the other, the bias after them.
    expect(relativeError(parts.gradients, whole.gradients)).toBeLessThan(1e-6);
    expect(parts.bytes).toEqual(whole.bytes);
    expect(parts.count).toBe(whole.count);
  },
);
