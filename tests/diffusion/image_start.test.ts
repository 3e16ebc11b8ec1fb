// Where drawing from a picture begins, against the numbers of FluxImg2ImgPipeline.get_timesteps and scale_noise (diffusers
// 0.42.1, evaluated in Python).

import { describe, expect, test } from "vitest";
import { firstStep, noisedLatents } from "../../src/diffusion/image_start.ts";

describe("the first step", () => {
  test("is diffusers' for all strengths, their rounding included", () => {
    const table: [number, number, number][] = [
      [1, 0.0, 1],
      [1, 0.1, 0],
      [1, 0.2, 0],
      [1, 0.29, 0],
      [1, 0.5, 0],
      [1, 0.6, 0],
      [1, 0.7, 0],
      [1, 0.95, 0],
      [1, 1.0, 0],
      [4, 0.0, 4],
      [4, 0.1, 3],
      [4, 0.2, 3],
      [4, 0.29, 2],
      [4, 0.5, 2],
      [4, 0.6, 1],
      [4, 0.7, 1],
      [4, 0.95, 0],
      [4, 1.0, 0],
      [8, 0.0, 8],
      [8, 0.1, 7],
      [8, 0.2, 6],
      [8, 0.29, 5],
      [8, 0.5, 4],
      [8, 0.6, 3],
      [8, 0.7, 2],
      [8, 0.95, 0],
      [8, 1.0, 0],
      [25, 0.0, 25],
      [25, 0.1, 22],
      [25, 0.2, 20],
      [25, 0.29, 17],
      [25, 0.5, 12],
      [25, 0.6, 10],
      [25, 0.7, 7],
      [25, 0.95, 1],
      [25, 1.0, 0],
      [28, 0.0, 28],
      [28, 0.1, 25],
      [28, 0.2, 22],
      [28, 0.29, 19],
      [28, 0.5, 14],
      [28, 0.6, 11],
      [28, 0.7, 8],
      [28, 0.95, 1],
      [28, 1.0, 0],
      [50, 0.0, 50],
      [50, 0.1, 45],
      [50, 0.2, 40],
      [50, 0.29, 35],
      [50, 0.5, 25],
      [50, 0.6, 20],
      [50, 0.7, 15],
      [50, 0.95, 2],
      [50, 1.0, 0],
    ];
    for (const [steps, strength, first] of table)
      expect(firstStep(steps, strength), `${steps} ${strength}`).toBe(first);
  });
});

describe("latents with noise", () => {
  test("are (1 - sigma) x + sigma noise in float32", () => {
    const [x, noise] = [Float32Array.of(1, -2, 0.3, 5e4), Float32Array.of(0.5, 1, -1, 2)];
    expect([...noisedLatents(x, noise, 1)]).toEqual([...noise]);
    expect([...noisedLatents(x, noise, 0)]).toEqual([...x]);
    expect([...noisedLatents(x, noise, Math.fround(0.6))]).toEqual([
      0.699999988079071, -0.19999992847442627, -0.48000001907348633, 20001.197265625,
    ]);
  });

  test("of two sizes are refused", () => {
    expect(() => noisedLatents(new Float32Array(3), new Float32Array(4), 1)).toThrow(/3 latents and 4/);
  });
});
