import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { affine } from "../../src/ops/pointwise.ts";
import { randomKey, randomNormal, randomUniform, randomWords } from "../../src/ops/random.ts";
import { runOps } from "../helpers/gpu.ts";

const stream = new RandomStream(2 ** 40 + 12345, "noise");
const key = (step: number, of = stream) => ({
  shape: [4],
  values: Array.from(randomKey(of, step)),
  dtype: "u32" as const,
});
const largest = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let worst = a.length === b.length ? 0 : Number.NaN;
  for (let i = 0; i < a.length; i++) if (!(Math.abs(a[i]! - b[i]!) <= worst)) worst = Math.abs(a[i]! - b[i]!);
  return worst;
};
/** Outputs come back as f32; their bits are the words. */
const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);

describe("random numbers on the device", () => {
  it("have the same words as the TypeScript twin for every count around a block and a workgroup", async () => {
    for (const n of [1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1009]) {
      const { outputs } = await runOps([key(n)], ([k]) => [randomWords(k!, [n]), randomWords(k!, [n], 8)]);
      expect([...bits(outputs[0]!)]).toEqual([...stream.words(n, n)]);
      expect([...bits(outputs[1]!)]).toEqual([...stream.words(n, n, 8)]);
    }
  });

  it("give the same uniform numbers and normal numbers within 1e-6", async () => {
    for (const [n, seed] of [
      [1, 0],
      [63, 1],
      [1009, 2 ** 33 + 1],
      [200_000, 7],
    ] as const) {
      const of = new RandomStream(seed, "draws");
      const { outputs } = await runOps([key(3, of)], ([k]) => [randomUniform(k!, [n]), randomNormal(k!, [n])], {
        repeat: true,
      });
      expect(largest(outputs[0]!, of.uniforms(3, n))).toBe(0);
      expect(largest(outputs[1]!, of.normals(3, n))).toBeLessThan(1e-6);
    }
  });

  it("depend on seed, stream and step alone", async () => {
    const draw = async (spec: ReturnType<typeof key>) =>
      (await runOps([spec], ([k]) => [randomUniform(k!, [8])])).outputs[0]!;
    const first = await draw(key(1));
    expect(await draw(key(1))).toEqual(first);
    for (const other of [
      key(2),
      key(1, new RandomStream(2 ** 40 + 12345, "other")),
      key(1, new RandomStream(12345, "noise")),
    ]) {
      expect(await draw(other)).not.toEqual(first);
    }
  });

  it("take a scale and an offset before the store", async () => {
    const { outputs, calls } = await runOps([key(5)], ([k]) => [affine(randomNormal(k!, [130]), 2, 1)]);
    expect(calls).toEqual(["random_normal"]);
    expect(
      largest(
        outputs[0]!,
        stream.normals(5, 130).map((v) => 2 * v + 1),
      ),
    ).toBeLessThan(3e-6);
  });

  it("reach the elements beyond one dispatch dimension", async () => {
    const n = 65536 * 256 + 7;
    const { outputs } = await runOps([key(9)], ([k]) => [randomUniform(k!, [n])]);
    for (const at of [0, 65535 * 256 - 4, 65535 * 256, n - 7, n - 1])
      expect(outputs[0]![at]).toBe(stream.uniform(9, at));
    expect(outputs[0]!.every((v) => v >= 0 && v < 1)).toBe(true);
  });

  it("refuse a key of another type", async () => {
    await expect(runOps([{ shape: [4], values: [1, 2, 3, 4] }], ([k]) => [randomUniform(k!, [8])])).rejects.toThrow(
      "u32 [4]",
    );
  });
});
