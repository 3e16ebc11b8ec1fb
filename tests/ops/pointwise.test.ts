// Every function is tested from the table (table.test.ts); here is what chains of them do.

import { describe, expect, it } from "vitest";
import { add, affine, mul, relu, sub } from "../../src/ops/pointwise.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";

describe("pointwise functions", () => {
  it("joins a chain into one kernel and gives the same bits as the unfused chain", async () => {
    const x = noise(300, 1);
    const y = noise(30, 2);
    const body: Parameters<typeof runOps>[1] = ([a, b]) => [
      relu(add(mul(affine(reshape(a!, [10, 30]), 2, 0.5), b!), sub(reshape(a!, [10, 30]), b!))),
    ];
    const inputs = [
      { shape: [300], values: x },
      { shape: [30], values: y },
    ];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls.length).toBeLessThan(plain.calls.length);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });

  it("stores f16 and computes in f32", async (context) => {
    if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
    const x = noise(100, 1);
    const { outputs } = await runOps([{ shape: [100], values: x, dtype: "f16" }], ([a]) => [affine(a!, 3, 1)]);
    expect(
      relativeError(
        outputs[0]!,
        x.map((v) => 3 * v + 1),
      ),
    ).toBeLessThan(5e-4);
  });
});
