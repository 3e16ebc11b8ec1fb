// Values, gradients and folded grids are tested from the table (table.test.ts).

import { describe, expect, it } from "vitest";
import { relu } from "../../src/ops/pointwise.ts";
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

  it("refuses odd sizes on the way down", async () => {
    await expect(runOps([{ shape: [1, 1, 3, 4], values: noise(12) }], ([t]) => [downsampleSum(t!)])).rejects.toThrow(
      "must be even",
    );
  });
});
