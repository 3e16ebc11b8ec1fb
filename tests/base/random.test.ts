import { describe, expect, test } from "vitest";
import { multiplyHigh, normalPair, normalPairF32, philox, RandomStream, streamId } from "../../src/base/random.ts";

const hex = (words: Uint32Array) => Array.from(words, (word) => word.toString(16).padStart(8, "0")).join(" ");

describe("Philox4x32-10", () => {
  test("gives the known answers published with the paper's reference code", () => {
    const ones = 0xffffffff;
    expect(hex(philox([0, 0, 0, 0], [0, 0]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
    expect(hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]))).toBe(
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    );
  });

  test("the upper half of a product equals that of whole-number arithmetic", () => {
    const samples = new RandomStream(3, "products").words(0, 2000);
    const edges = [0, 1, 0xffff, 0x10000, 0xffffffff];
    const pairs = [
      ...edges.flatMap((a) => edges.map((b) => [a, b])),
      ...Array.from({ length: 1000 }, (_, i) => [samples[2 * i]!, samples[2 * i + 1]!]),
    ];
    for (const [a, b] of pairs) expect(multiplyHigh(a!, b!)).toBe(Number((BigInt(a!) * BigInt(b!)) >> 32n));
  });
});

describe("a random stream", () => {
  test("follows the documented mapping from seed, stream, step and index to words", () => {
    const seed = 5 * 2 ** 32 + 7;
    const stream = new RandomStream(seed, "noise");
    const block = philox([2, 9, 5, 0], [7, streamId("noise")]);
    expect([...stream.words(9, 4, 8)]).toEqual([...block]);
    expect(streamId("")).toBe(0x811c9dc5);
    expect(streamId("foobar")).toBe(0xbf9cf968);
  });

  test("an element does not depend on how many are asked for or where the request begins", () => {
    const stream = new RandomStream(1, "noise");
    const words = stream.words(4, 37);
    const normals = stream.normals(4, 37);
    for (let first = 0; first < 9; first++) {
      for (const count of [0, 1, 2, 5, 28]) {
        expect([...stream.words(4, count, first)]).toEqual([...words.slice(first, first + count)]);
        expect([...stream.normals(4, count, first)]).toEqual([...normals.slice(first, first + count)]);
      }
    }
  });

  test("seeds, names and steps give different numbers", () => {
    const found = [
      new RandomStream(1, "a").words(0, 4),
      new RandomStream(2, "a").words(0, 4),
      new RandomStream(1 + 2 ** 32, "a").words(0, 4),
      new RandomStream(1, "b").words(0, 4),
      new RandomStream(1, "a").words(1, 4),
    ];
    expect(new Set(found.map(hex)).size).toBe(found.length);
  });

  test("normals have the moments and the independence of a standard normal", () => {
    const n = 200_000;
    const z = new RandomStream(11, "moments").normals(0, n);
    let [sum, square, fourth, neighbours, evenOdd] = [0, 0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      sum += z[i]!;
      square += z[i]! ** 2;
      fourth += z[i]! ** 4;
      neighbours += z[i]! * z[(i + 1) % n]!;
      if (i % 2 === 0) evenOdd += z[i]! ** 2 * z[i + 1]! ** 2;
    }
    const deviation = 1 / Math.sqrt(n);
    expect(Math.abs(sum / n)).toBeLessThan(4 * deviation);
    expect(Math.abs(square / n - 1)).toBeLessThan(4 * Math.SQRT2 * deviation);
    expect(Math.abs(fourth / n - 3)).toBeLessThan(4 * Math.sqrt(96) * deviation);
    expect(Math.abs(neighbours / n)).toBeLessThan(4 * deviation);
    expect(Math.abs(evenOdd / (n / 2) - 1)).toBeLessThan(4 * Math.sqrt(16) * deviation);
  });

  test("the float32 evaluation of normals stays within 1e-6 of the exact one, extremes included", () => {
    const words = new RandomStream(5, "pairs").words(0, 40_000);
    const pairs: [number, number][] = Array.from({ length: 20_000 }, (_, i) => [words[2 * i]!, words[2 * i + 1]!]);
    const extremes = [
      0, 0x100, 0x1ff, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0xb504f333, 0xfffffe00, 0xffffffff,
    ];
    for (const a of extremes) for (const b of extremes) pairs.push([a, b]);
    let worst = 0;
    for (const [a, b] of pairs) {
      const [x, y] = normalPair(a, b);
      const [fx, fy] = normalPairF32(a, b);
      worst = Math.max(worst, Math.abs(x - fx), Math.abs(y - fy));
    }
    expect(worst).toBeLessThan(1e-6);
  });

  test("uniforms lie in [0, 1) and integers fill their range with both ends", () => {
    const stream = new RandomStream(2, "range");
    const uniforms = stream.uniforms(0, 10_000);
    expect(Math.min(...uniforms)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniforms)).toBeLessThan(1);
    expect(stream.uniform(0, 77)).toBe(uniforms[77]);
    const seen = new Set(Array.from({ length: 400 }, (_, i) => stream.integer(1, i, -2, 3)));
    expect([...seen].sort((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2, 3]);
    expect(() => stream.integer(1, 0, 3, 2)).toThrow(RangeError);
  });

  test("a permutation holds every number once and differs between steps", () => {
    const stream = new RandomStream(2, "order");
    expect([...stream.permutation(0, 100)].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect([...stream.permutation(0, 100)]).not.toEqual([...stream.permutation(1, 100)]);
  });

  test("a seed that is not a whole number is refused", () => {
    for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => new RandomStream(seed, "x")).toThrow(RangeError);
  });
});
