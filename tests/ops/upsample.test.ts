import { describe, expect, it } from "vitest";
import { relu } from "../../src/ops/pointwise.ts";
import { downsampleSum, upsampleNearest2x } from "../../src/ops/upsample.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

function up(x: Float64Array, planes: number, h: number, w: number): Float64Array {
  return Float64Array.from({ length: planes * 4 * h * w }, (_, i) => {
    const plane = Math.floor(i / (4 * h * w));
    const y = Math.floor(i / (2 * w)) % (2 * h);
    return x[plane * h * w + (y >> 1) * w + ((i % (2 * w)) >> 1)]!;
  });
}

function down(dy: Float64Array, planes: number, h: number, w: number): Float64Array {
  const out = new Float64Array(planes * h * w);
  up(
    Float64Array.from(out, (_, i) => i),
    planes,
    h,
    w,
  ).forEach((at, i) => (out[at]! += dy[i]!));
  return out;
}

describe("nearest upsampling", () => {
  it("copies each pixel four times and adds the four gradients", async () => {
    for (const [n, c, h, w] of [
      [1, 1, 1, 1],
      [1, 1, 1, 63],
      [2, 3, 8, 8],
      [1, 5, 13, 1],
      [3, 1, 7, 37],
      [1, 2, 1009, 1],
    ] as const) {
      const x = noise(n * c * h * w, w);
      const dy = noise(4 * n * c * h * w, h);
      const { outputs, gradients } = await runOps(
        [{ shape: [n, c, h, w], values: x }],
        ([t]) => [upsampleNearest2x(t!)],
        { seeds: [dy], repeat: true },
      );
      expect(relativeError(outputs[0]!, up(x, n * c, h, w))).toBe(0);
      expect(relativeError(gradients[0]!, down(dy, n * c, h, w))).toBeLessThan(1e-7);
    }
  });

  it("keeps f16 and runs pointwise steps before its store", async () => {
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

  it("sums squares of four beyond one dispatch dimension and spreads them back", async () => {
    const w = 2 * (65536 * 8 + 3);
    const x = noise(8 * w, 2);
    const { outputs, gradients } = await runOps([{ shape: [1, 1, 8, w], values: x }], ([t]) => [downsampleSum(t!)], {
      seeds: [noise(2 * w, 3)],
    });
    expect(relativeError(outputs[0]!, down(x, 1, 4, w / 2))).toBeLessThan(1e-6);
    expect(relativeError(gradients[0]!, up(noise(2 * w, 3), 1, 4, w / 2))).toBe(0);
  });

  it("refuses odd sizes on the way down", async () => {
    await expect(runOps([{ shape: [1, 1, 3, 4], values: noise(12) }], ([t]) => [downsampleSum(t!)])).rejects.toThrow(
      "must be even",
    );
  });
});
