import { describe, expect, it } from "vitest";
import { linear, matmul } from "../../src/ops/matmul.ts";
import { add, geluTanh, mul } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

/** C = op(A) op(B) in float64. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, M: number, N: number, K: number, ta = false, tb = false): Float64Array {
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a[ta ? k * M + m : m * K + k]! * b[tb ? n * K + k : k * N + n]!;
      c[m * N + n] = sum;
    }
  }
  return c;
}

const SIZES = [[1, 1, 1], [1, 300, 17], [4, 7, 129], [15, 31, 33], [16, 32, 64], [17, 33, 65], [61, 67, 71], [80, 4, 300], [3, 256, 1]] as const;

describe("matrix products", () => {
  for (const [ta, tb] of [[false, false], [false, true], [true, false], [true, true]] as const) {
    it(`${ta ? "T" : "N"}${tb ? "T" : "N"} and both gradients agree with float64`, async () => {
      for (const [M, N, K] of SIZES) {
        const a = noise(M * K, 1);
        const b = noise(K * N, 2);
        const dc = noise(M * N, 3);
        const { outputs, gradients } = await runOps(
          [{ shape: ta ? [1, K, M] : [1, M, K], values: a }, { shape: tb ? [1, N, K] : [1, K, N], values: b }],
          ([x, y]) => [matmul(x!, y!, { transposeA: ta, transposeB: tb })],
          { seeds: [dc], repeat: true },
        );
        const bound = 2e-7 * Math.sqrt(K) + 1e-6;
        expect(relativeError(outputs[0]!, product(a, b, M, N, K, ta, tb))).toBeLessThan(bound);
        const da = ta ? product(b, dc, K, M, N, tb, true) : product(dc, b, M, K, N, false, !tb);
        const db = tb ? product(dc, a, N, K, M, true, ta) : product(a, dc, K, N, M, !ta, false);
        expect(relativeError(gradients[0]!, da)).toBeLessThan(2e-7 * Math.sqrt(N) + 1e-6);
        expect(relativeError(gradients[1]!, db)).toBeLessThan(2e-7 * Math.sqrt(M) + 1e-6);
      }
    });
  }

  it("multiplies batches pairwise", async () => {
    const a = noise(3 * 5 * 7, 1);
    const b = noise(3 * 7 * 6, 2);
    const { outputs } = await runOps([{ shape: [3, 5, 7], values: a }, { shape: [3, 7, 6], values: b }], ([x, y]) => [matmul(x!, y!)]);
    const expected = [0, 1, 2].flatMap((i) => [...product(a.subarray(i * 35, i * 35 + 35), b.subarray(i * 42, i * 42 + 42), 5, 6, 7)]);
    expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-6);
  });

  it("multiplies a matrix by its own transpose, one buffer bound twice", async () => {
    const a = noise(12 * 9, 1);
    const { outputs } = await runOps([{ shape: [1, 12, 9], values: a }], ([x]) => [matmul(x!, x!, { transposeB: true })]);
    expect(relativeError(outputs[0]!, product(a, a, 12, 12, 9, false, true))).toBeLessThan(1e-6);
  });

  it("reads f16 weights", async () => {
    const a = noise(20 * 40, 1);
    const w = noise(24 * 40, 2).map((v) => Math.round(v * 512) / 512);
    const { outputs } = await runOps([{ shape: [20, 40], values: a }, { shape: [24, 40], values: w, dtype: "f16" }], ([x, y]) => [linear(x!, y!)]);
    expect(relativeError(outputs[0]!, product(a, w, 20, 24, 40, false, true))).toBeLessThan(2e-6);
  });

  it("runs bias, activation, gate and residual in the product's own kernel with the same result", async () => {
    const [B, L, K, N] = [2, 9, 16, 24];
    const inputs = [
      { shape: [B, L, K], values: noise(B * L * K, 1) },
      { shape: [N, K], values: noise(N * K, 2) },
      { shape: [N], values: noise(N, 3) },
      { shape: [B, 1, N], values: noise(B * N, 4) },
      { shape: [B, L, N], values: noise(B * L * N, 5) },
    ];
    const body: Parameters<typeof runOps>[1] = ([x, w, b, g, r]) => [add(r!, mul(geluTanh(linear(x!, w!, b!)), g!))];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls).toHaveLength(1);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });
});
