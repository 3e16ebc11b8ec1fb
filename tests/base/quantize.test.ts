// Encoders and decoders of stored weights against their definitions in float64.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import {
  CODES_PER_WORD,
  type CompactStorage,
  encodeWeight,
  NF4,
  QUANTIZATION_BLOCK,
  quantizeInt8,
  storedBytes,
} from "../../src/base/quantize.ts";
import { decodeWeight } from "../helpers/decode_weight.ts";
import { noise } from "../helpers/gpu.ts";

const STORAGES = ["f16", "bf16", "int8", "nf4"] as const;

const roundTrip = (storage: CompactStorage, values: Float32Array) =>
  decodeWeight(storage, encodeWeight("w", storage, values), values.length);

/** Values whose blocks have very different sizes. */
const sample = (count: number, seed = 1) =>
  Float32Array.from(noise(count, seed), (v, i) => v * 10 ** (Math.floor(i / 50) % 5));

function thrown(body: () => unknown): LongtailError {
  try {
    body();
  } catch (error) {
    return error as LongtailError;
  }
  throw new Error("nothing was thrown");
}

/** x with P(X < x) = p of a standard normal X, by bisection on erf's series. */
function normalQuantile(p: number): number {
  const below = (x: number) => {
    let term = x;
    let sum = x;
    for (let n = 1; n < 200; n++) {
      term *= (-x * x) / (2 * n);
      sum += term / (2 * n + 1);
    }
    return 0.5 + sum / Math.sqrt(2 * Math.PI);
  };
  let [low, high] = [-5, 5];
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (below(middle) < p) low = middle;
    else high = middle;
  }
  return low;
}

describe("NormalFloat4", () => {
  it("is eight quantiles of the normal distribution above zero, seven below, and zero, as the paper makes them", () => {
    // The outermost quantile lies in the middle of 1 - 1/30 and 1 - 1/32, where seven and eight steps would begin.
    const end = 1 - (1 / 30 + 1 / 32) / 2;
    const steps = (count: number) =>
      Array.from({ length: count }, (_, i) => normalQuantile(end + ((0.5 - end) * i) / count));
    const all = [...steps(7).map((x) => -x), 0, ...steps(8).reverse()];
    const most = normalQuantile(end);
    all.forEach((x, i) => expect(Math.abs(x / most - NF4[i]!), `code ${i}`).toBeLessThan(1e-6));
  });

  it("takes the nearest code of every value, measured in float64", () => {
    const values = sample(64 * 40 + 17);
    const decoded = roundTrip("nf4", values);
    for (let i = 0; i < values.length; i++) {
      const from = i - (i % QUANTIZATION_BLOCK);
      const block = values.subarray(from, from + QUANTIZATION_BLOCK);
      const scale = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      const best = NF4.reduce((m, code) => Math.min(m, Math.abs(code * scale - values[i]!)), Infinity);
      expect(Math.abs(decoded[i]! - values[i]!)).toBeLessThanOrEqual(best + 1e-7 * scale);
    }
  });

  it("gives its own values back unchanged", () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => Math.fround(NF4[i % 16]! * 0.375));
    expect([...roundTrip("nf4", values)]).toEqual([...values]);
  });
});

describe("8-bit integers", () => {
  it("are off by at most half a step of their block, and the largest value is exact to rounding", () => {
    const values = sample(64 * 40 + 17, 2);
    const decoded = roundTrip("int8", values);
    for (let from = 0; from < values.length; from += QUANTIZATION_BLOCK) {
      const block = values.subarray(from, from + QUANTIZATION_BLOCK);
      const most = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      block.forEach((v, i) => expect(Math.abs(decoded[from + i]! - v)).toBeLessThanOrEqual((most / 127) * 0.50001));
      const at = from + block.findIndex((v) => Math.abs(v) === most);
      expect(Math.abs(decoded[at]! - values[at]!)).toBeLessThanOrEqual(2e-7 * most);
    }
  });

  it("round ties to the even code", () => {
    const { codes, scales } = quantizeInt8(Float32Array.of(127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5));
    expect(scales[0]).toBe(1);
    expect([...codes]).toEqual([127, 0, 2, 2, 0, -2, -2]);
  });

  it("in blocks of 64 have a smaller error than with one scale a row", () => {
    // Normal values, as weights have: the largest of 64 is smaller than the largest of 1024.
    const [a, b] = [noise(256 * 1024, 3), noise(256 * 1024, 4)];
    const normal = Float32Array.from(
      a,
      (v, i) => Math.sqrt(-2 * Math.log(Math.max(1e-9, (v + 1) / 2))) * Math.cos(Math.PI * b[i]!),
    );
    const error = (block: number) => {
      const { codes, scales } = quantizeInt8(normal, block);
      return normal.reduce((sum, v, i) => sum + (codes[i]! * scales[Math.floor(i / block)]! - v) ** 2, 0);
    };
    expect(Math.sqrt(error(1024) / error(64))).toBeGreaterThan(1.25);
  });
});

describe("encoded weights", () => {
  it("have the bytes that the plan counts, words for any number of values, and zeros behind the last code", () => {
    for (const storage of STORAGES) {
      for (const count of [1, 2, 3, 7, 8, 63, 64, 65, 130, 37 * 5]) {
        const { codes, scales } = encodeWeight("w", storage, new Float32Array(count).fill(-0.75));
        expect(codes.byteLength + (scales?.byteLength ?? 0), `${storage} ${count}`).toBe(storedBytes(storage, count));
        const used = (count % CODES_PER_WORD[storage]) * (32 / CODES_PER_WORD[storage]);
        if (used > 0) expect(codes.at(-1)! >>> used, `${storage} ${count}`).toBe(0);
      }
    }
  });

  it("are the same bits each time, from a view into a larger buffer too", () => {
    const values = sample(1000, 5);
    const room = new Float32Array(1010);
    room.set(values, 7);
    for (const storage of STORAGES)
      expect(encodeWeight("w", storage, room.subarray(7, 1007))).toEqual(encodeWeight("w", storage, values));
  });

  it("keep a block of zeros as zeros, also beside a block of numbers", () => {
    for (const storage of STORAGES) {
      expect([...roundTrip(storage, new Float32Array(70))], storage).toEqual(new Array(70).fill(0));
      const half = new Float32Array(128).fill(0.5, 64);
      expect([...roundTrip(storage, half).subarray(0, 64)], storage).toEqual(new Array(64).fill(0));
      expect(Math.abs(roundTrip(storage, half)[64]! - 0.5), storage).toBeLessThan(1e-7);
    }
  });

  it("lose the small values of a block with one huge value, and of no other block", () => {
    const values = new Float32Array(128).fill(0.01);
    values[3] = 1e30;
    for (const storage of ["int8", "nf4"] as const) {
      const decoded = roundTrip(storage, values);
      expect(decoded[3]! / 1e30, storage).toBeCloseTo(1, 6);
      expect(decoded[4], storage).toBe(0);
      expect(decoded[64], storage).toBeCloseTo(0.01, 6);
    }
  });

  it("stay finite at both ends of f32", () => {
    const most = Math.fround(3.4028234663852886e38);
    for (const storage of ["int8", "nf4"] as const) {
      const large = roundTrip(storage, Float32Array.of(most, -most, 1));
      expect(large[0]! / most, storage).toBeCloseTo(1, 6);
      expect(large[1], storage).toBe(-large[0]!);
      const small = roundTrip(storage, Float32Array.of(2 ** -149, -(2 ** -140), 0));
      for (const v of small) expect(Math.abs(v), storage).toBeLessThanOrEqual(2 ** -139);
    }
  });

  it("have the relative error of their format", () => {
    const values = Float32Array.from(noise(64 * 64, 6), (v, i) => v * (noise(1, i + 9)[0]! + 1.5));
    const error = (storage: CompactStorage) => {
      const decoded = roundTrip(storage, values);
      const norm = Math.hypot(...values);
      return Math.hypot(...decoded.map((v, i) => v - values[i]!)) / norm;
    };
    expect(error("f16")).toBeLessThan(2.5e-4);
    expect(error("bf16")).toBeLessThan(2e-3);
    expect(error("int8")).toBeLessThan(8e-3);
    expect(error("nf4")).toBeLessThan(0.12);
  });

  it("decode to f32 values that are the rounded float64 product of code and scale", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 200 }),
        (list) => {
          const values = Float32Array.from(list);
          const { codes, scales } = encodeWeight("w", "int8", values);
          const bytes = new Int8Array(codes.buffer, codes.byteOffset, values.length);
          const decoded = decodeWeight("int8", { codes, scales }, values.length);
          decoded.forEach((v, i) => expect(v).toBe(Math.fround(bytes[i]! * scales![Math.floor(i / 64)]!)));
        },
      ),
      { numRuns: 100, seed: 1 },
    );
  });

  it("are refused with the tensor's name where a value is NaN or infinite", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      for (const storage of STORAGES) {
        const values = new Float32Array(70);
        values[69] = bad;
        const error = thrown(() => encodeWeight("blocks.3.attn.to_q.weight", storage, values));
        expect(error.code).toBe("E-FILE-036");
        expect(error.message).toContain("blocks.3.attn.to_q.weight");
        expect(error.message).toContain("value 69");
        expect(error.exitCode).toBe(4);
      }
    }
  });

  it("are refused where a 16-bit float would become infinite", () => {
    const f16 = thrown(() => encodeWeight("a.weight", "f16", Float32Array.of(1, -65520)));
    expect([f16.code, f16.message.includes("a.weight"), f16.message.includes("bf16")]).toEqual([
      "E-FILE-037",
      true,
      true,
    ]);
    expect(thrown(() => encodeWeight("a.weight", "bf16", Float32Array.of(3.4e38))).code).toBe("E-FILE-037");
    expect([...roundTrip("f16", Float32Array.of(65504, -65519))]).toEqual([65504, -65504]);
  });
});
