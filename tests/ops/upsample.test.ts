// Values, gradients and folded grids are tested from the table (table.test.ts).

import { describe, expect, it } from "vitest";
import { add, mul, relu } from "../../src/ops/pointwise.ts";
import { downsampleSum, upsampleNearest2x } from "../../src/ops/upsample.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";

function up(x: Float64Array, planes: number, h: number, w: number): Float64Array {
  return Float64Array.from({ length: planes * 4 * h * w }, (_, i) => {
    const plane = Math.floor(i / (4 * h * w));
    const y = Math.floor(i / (2 * w)) % (2 * h);
    return x[plane * h * w + (y >> 1) * w + ((i % (2 * w)) >> 1)]!;
  });
}

describe("nearest upsampling", () => {
  it("keeps f16 and runs pointwise steps before its store", async (context) => {
    if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
    const x = noise(2 * 3 * 4, 1);
    const half = await runOps([{ shape: [1, 2, 3, 4], values: x, dtype: "f16" }], ([t]) => [upsampleNearest2x(t!)]);
    expect(relativeError(half.outputs[0]!, up(x, 2, 3, 4))).toBeLessThan(5e-4);
    const fused = await runOps([{ shape: [1, 2, 3, 4], values: x }], ([t]) => [relu(upsampleNearest2x(t!))]);
    expect(fused.calls.length).toBe(1);
    expect(
      relativeError(
        fused.outputs[0]!,
        up(x, 2, 3, 4).map((v) => Math.max(v, 0)),
      ),
    ).toBe(0);
  });

  it("takes operands of every shape before its store, in vectors of four both ways", async () => {
    const [c, h, w] = [3, 4, 8];
    const x = noise(c * h * w, 1);
    const operands = [noise(4 * c * h * w, 2), noise(c, 3)] as const;
    const shapes = [
      [1, c, 2 * h, 2 * w],
      [1, c, 1, 1],
    ];
    const upwards = await runOps(
      [{ shape: [1, c, h, w], values: x }, ...operands.map((values, i) => ({ shape: shapes[i]!, values }))],
      ([t, same, channel]) => [add(mul(upsampleNearest2x(t!), channel!), same!)],
    );
    expect(upwards.calls.length).toBe(1);
    const at = (i: number) => Math.floor(i / (4 * h * w));
    const doubled = up(x, c, h, w);
    expect(
      relativeError(
        upwards.outputs[0]!,
        doubled.map((v, i) => v * operands[1][at(i)]! + operands[0][i]!),
      ),
    ).toBeLessThan(1e-6);
    const down = await runOps(
      [
        { shape: [1, c, 2 * h, 2 * w], values: doubled },
        { shape: [1, c, 1, 1], values: operands[1] },
        { shape: [1, c, h, w], values: x },
      ],
      ([t, channel, same]) => [add(mul(downsampleSum(t!), channel!), same!)],
    );
    expect(down.calls.length).toBe(1);
    const expected = x.map((v, i) => 4 * v * operands[1][Math.floor(i / (h * w))]! + v);
    expect(relativeError(down.outputs[0]!, expected)).toBeLessThan(1e-6);
  });

  it("finds its places beyond 2^22 items, where a quotient is no longer one multiplication", async () => {
    const [h, w] = [1025, 1025];
    const x = Float32Array.from({ length: h * w }, (_, i) => i);
    const { outputs } = await runOps([{ shape: [1, 1, h, w], values: x }], ([t]) => [upsampleNearest2x(t!)]);
    const place = (i: number) => (Math.floor(i / (2 * w)) >> 1) * w + ((i % (2 * w)) >> 1);
    expect(outputs[0]!.findIndex((v, i) => v !== place(i))).toBe(-1);
  });

  it("refuses odd sizes on the way down", async () => {
    await expect(runOps([{ shape: [1, 1, 3, 4], values: noise(12) }], ([t]) => [downsampleSum(t!)])).rejects.toThrow(
      "must be even",
    );
  });
});
