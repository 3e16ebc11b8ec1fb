// Pictures through affine maps on the device, against the host's version and against cases that can be read off.

import { describe, expect, it } from "vitest";
import { affineSample } from "../../src/ops/affine_sample.ts";
import { sampleAffine } from "../../src/training/pretrain/augment.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

const IDENTITY = [1, 0, 0, 0, 1, 0];

describe("affineSample", () => {
  it("agrees with the host's version for turned, shifted and scaled pictures", async () => {
    const side = 13;
    const maps = [IDENTITY, [0.9, -0.3, 0.1, 0.3, 0.9, -0.2], [1.2, 0.1, 0.4, -0.1, 1.2, 0], [0.2, 0, 3, 0, 0.2, 3]];
    const pictures = noise(maps.length * 3 * side * side, 4).map((v) => 0.5 + v / 4);
    const { outputs } = await runOps(
      [
        { shape: [maps.length, 3, side, side], values: pictures },
        { shape: [maps.length, 6], values: maps.flat() },
      ],
      ([x, m]) => [affineSample(x!, m!, 1)],
    );
    const size = 3 * side * side;
    maps.forEach((map, n) => {
      const planes = Float32Array.from(pictures.slice(n * size, (n + 1) * size));
      const expected = sampleAffine(planes, side, Float32Array.from(map));
      expect(relativeError(outputs[0]!.slice(n * size, (n + 1) * size), expected)).toBeLessThan(2e-6);
    });
    // The last map looks far outside: nothing but the fill.
    expect(outputs[0]!.slice(3 * size).every((v) => v === 1)).toBe(true);
  });

  it("shifts by whole pixels exactly on pictures that are not square", async () => {
    const [height, width] = [3, 4];
    const values = Array.from({ length: height * width }, (_, i) => i / 16);
    const { outputs } = await runOps(
      [
        { shape: [1, 1, height, width], values },
        { shape: [1, 6], values: [1, 0, 2 / width, 0, 1, -2 / height] },
      ],
      ([x, m]) => [affineSample(x!, m!, 0)],
    );
    // One pixel to the left and one down.
    const expected = [0, 0, 0, 0, 1, 2, 3, 0, 5, 6, 7, 0].map((v) => v / 16);
    outputs[0]!.forEach((v, i) => expect(v).toBeCloseTo(expected[i]!, 6));
  });

  it("refuses maps that do not belong to the pictures", async () => {
    const picture = { shape: [2, 1, 2, 2], values: noise(8) };
    const run = runOps([picture, { shape: [1, 6], values: IDENTITY }], ([x, m]) => [affineSample(x!, m!, 0)]);
    await expect(run).rejects.toThrow(/maps \[1, 6\] must be \[2, 6\]/);
  });
});
