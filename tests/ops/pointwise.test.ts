import { describe, expect, it } from "vitest";
import { add, affine, clamp, div, geluErf, geluTanh, mul, quickGelu, relu, scaleBy, silu, sub, tanh } from "../../src/ops/pointwise.ts";
import { sumAll, sum } from "../../src/ops/reduce.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

const erf = (x: number): number => {
  // Series in double precision; enough for |x| < 6.
  if (Math.abs(x) > 3.5) return Math.sign(x);
  let sum = x;
  let term = x;
  for (let n = 1; n < 200; n++) {
    term *= -x * x / n;
    sum += term / (2 * n + 1);
  }
  return sum * 2 / Math.sqrt(Math.PI);
};

const UNARY: Record<string, [(x: number) => number, Parameters<typeof runOps>[1]]> = {
  relu: [(x) => Math.max(x, 0), ([x]) => [relu(x!)]],
  silu: [(x) => x / (1 + Math.exp(-x)), ([x]) => [silu(x!)]],
  quick_gelu: [(x) => x / (1 + Math.exp(-1.702 * x)), ([x]) => [quickGelu(x!)]],
  gelu_tanh: [(x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))), ([x]) => [geluTanh(x!)]],
  gelu_erf: [(x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), ([x]) => [geluErf(x!)]],
  tanh: [Math.tanh, ([x]) => [tanh(x!)]],
  clamp: [(x) => Math.min(Math.max(x, -0.5), 1.5), ([x]) => [clamp(x!, -0.5, 1.5)]],
};

describe("pointwise functions", () => {
  for (const [name, [reference, body]] of Object.entries(UNARY)) {
    it(`${name} and its gradient agree with float64 for every count around a workgroup`, async () => {
      for (const n of [1, 63, 64, 65, 257, 1009]) {
        const x = noise(n, n).map((v) => Math.fround(v * 4));
        const dy = noise(n, n + 1);
        const { outputs, gradients } = await runOps([{ shape: [n], values: x }], body, { seeds: [dy] });
        expect(relativeError(outputs[0]!, x.map(reference))).toBeLessThan(1e-6);
        const h = 1e-5;
        const slope = x.map((v, i) => dy[i]! * (reference(v + h) - reference(v - h)) / (2 * h));
        expect(relativeError(gradients[0]!, slope)).toBeLessThan(1e-5);
      }
    });
  }

  it("broadcasts a bias, a gate and a channel vector and sums their gradients back", async () => {
    const cases: [number[], number[]][] = [[[6, 5], [5]], [[2, 7, 5], [2, 1, 5]], [[2, 3, 4, 5], [1, 3, 1, 1]], [[4, 3], [4, 1]], [[3, 2, 2], [1]]];
    for (const [a, b] of cases) {
      const n = a.reduce((x, y) => x * y, 1);
      const m = b.reduce((x, y) => x * y, 1);
      const x = noise(n, 3);
      const y = noise(m, 4).map((v) => v + 2);
      const dy = noise(n, 5);
      const index = (i: number) => {
        let rest = i;
        let at = 0;
        let stride = 1;
        for (let d = a.length - 1; d >= 0; d--) {
          const digit = rest % a[d]!;
          rest = Math.floor(rest / a[d]!);
          const own = b[b.length - a.length + d] ?? 1;
          if (own > 1) at += digit * stride;
          stride *= own;
        }
        return at;
      };
      const { outputs, gradients } = await runOps([{ shape: a, values: x }, { shape: b, values: y }], ([p, q]) => [div(scaleBy(p!, q!), q!)], { seeds: [dy] });
      expect(relativeError(outputs[0]!, x.map((v, i) => v * (1 + y[index(i)]!) / y[index(i)]!))).toBeLessThan(1e-6);
      expect(relativeError(gradients[0]!, dy.map((v, i) => v * (1 + y[index(i)]!) / y[index(i)]!))).toBeLessThan(1e-6);
      const dq = new Float64Array(m);
      dy.forEach((v, i) => (dq[index(i)]! -= v * x[i]! / y[index(i)]! ** 2));
      expect(relativeError(gradients[1]!, dq)).toBeLessThan(1e-5);
    }
  });

  it("joins a chain into one kernel and gives the same bits as the unfused chain", async () => {
    const x = noise(300, 1);
    const y = noise(30, 2);
    const body: Parameters<typeof runOps>[1] = ([a, b]) => [relu(add(mul(affine(reshape(a!, [10, 30]), 2, 0.5), b!), sub(reshape(a!, [10, 30]), b!)))];
    const inputs = [{ shape: [300], values: x }, { shape: [30], values: y }];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls.length).toBeLessThan(plain.calls.length);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });

  it("stores f16 and computes in f32", async () => {
    const x = noise(100, 1);
    const { outputs } = await runOps([{ shape: [100], values: x, dtype: "f16" }], ([a]) => [affine(a!, 3, 1)]);
    expect(relativeError(outputs[0]!, x.map((v) => 3 * v + 1))).toBeLessThan(5e-4);
  });
});

describe("sums", () => {
  it("add any dimension in fixed order and spread the gradient", async () => {
    for (const [shape, d] of [[[5, 1000, 3], 1], [[1, 20000], 1], [[70000], 0], [[3, 4, 129], 2], [[300, 2, 2], 0]] as [number[], number][]) {
      const n = shape.reduce((a, b) => a * b, 1);
      const x = noise(n, 7);
      const { outputs, gradients } = await runOps([{ shape, values: x }], ([a]) => [sum(a!, d)], { seeds: [noise(n / shape[d]!, 8)], repeat: true });
      const inner = shape.slice(d + 1).reduce((a, b) => a * b, 1);
      const expected = new Float64Array(n / shape[d]!);
      const spread = new Float64Array(n);
      const dy = noise(n / shape[d]!, 8);
      for (let i = 0; i < n; i++) {
        const o = Math.floor(i / (inner * shape[d]!)) * inner + i % inner;
        expected[o]! += x[i]!;
        spread[i] = dy[o]!;
      }
      expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-5);
      expect(relativeError(gradients[0]!, spread)).toBeLessThan(1e-7);
    }
  });
  it("sumAll of ones is the count, beyond one dispatch dimension", async () => {
    const n = 65536 * 260;
    const { outputs } = await runOps([{ shape: [1], values: [1] }], ([a]) => [sumAll(add(mul(a!, a!), reshape(sub(a!, a!), [1])))]);
    expect(outputs[0]![0]).toBe(1);
    expect(n).toBeGreaterThan(65535 * 256);
  });
});
