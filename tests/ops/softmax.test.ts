import { describe, expect, it } from "vitest";
import { softmax } from "../../src/ops/softmax.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

function reference(x: ArrayLike<number>, rows: number, length: number): Float64Array {
  const out = new Float64Array(rows * length);
  for (let r = 0; r < rows; r++) {
    const row = Array.from({ length }, (_, i) => x[r * length + i]!);
    const top = Math.max(...row);
    const total = row.reduce((sum, v) => sum + Math.exp(v - top), 0);
    row.forEach((v, i) => (out[r * length + i] = Math.exp(v - top) / total));
  }
  return out;
}

describe("softmax", () => {
  for (const size of [1, 4, 1000]) {
    it(`and its gradient agree with float64 for scores up to ${size}`, async () => {
      for (const [rows, length] of [[1, 1], [3, 2], [5, 63], [2, 64], [7, 65], [3, 257]] as [number, number][]) {
        const x = noise(rows * length, length).map((v) => Math.fround(v * size));
        const dy = noise(rows * length, 2);
        const y = reference(x, rows, length);
        const { outputs, gradients } = await runOps([{ shape: [rows, length], values: x }], ([a]) => [softmax(a!)], { seeds: [dy], repeat: true });
        expect(relativeError(outputs[0]!, y)).toBeLessThan(1e-5);
        const dx = y.map((v, i) => {
          const first = Math.floor(i / length) * length;
          let mean = 0;
          for (let j = first; j < first + length; j++) mean += y[j]! * dy[j]!;
          return v * (dy[i]! - mean);
        });
        const scale = Math.hypot(...y);
        expect(Math.hypot(...dx.map((v, i) => v - gradients[0]![i]!)) / scale).toBeLessThan(1e-5);
      }
    });
  }

  it("has the gradient that finite differences of the float64 forward give", () => {
    const x = noise(7, 1);
    const dy = noise(7, 2);
    const y = reference(x, 1, 7);
    const mean = y.reduce((s, v, i) => s + v * dy[i]!, 0);
    const loss = (values: Float64Array) => reference(values, 1, 7).reduce((s, v, i) => s + v * dy[i]!, 0);
    const slopes = x.map((_, i) => {
      const moved = (by: number) => loss(x.map((v, j) => (i === j ? v + by : v)));
      return (moved(1e-5) - moved(-1e-5)) / 2e-5;
    });
    expect(relativeError(y.map((v, i) => v * (dy[i]! - mean)), slopes)).toBeLessThan(1e-8);
  });
});
