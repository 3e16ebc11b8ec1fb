// Picture statistics on pictures whose answer is known: flat, grey, striped, gridded and random ones.

import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { cosine, diversity, pictureStatistics } from "../../src/evaluation/image_statistics.ts";

const SIZE = 64;
const AREA = SIZE * SIZE;

/** [count, 3, 64, 64] from a function of picture, channel, y and x. */
function batch(count: number, value: (n: number, c: number, y: number, x: number) => number): Float32Array {
  const pixels = new Float32Array(count * 3 * AREA);
  let at = 0;
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < SIZE; y++) for (let x = 0; x < SIZE; x++) pixels[at++] = value(n, c, y, x);
  }
  return pixels;
}

const random = new RandomStream(1, "pictures").uniforms(0, 4 * AREA);
const noise = (n: number, y: number, x: number) => random[n * AREA + y * SIZE + x]!;

describe("picture statistics", () => {
  it("are all 0 for flat grey pictures", () => {
    const flat = pictureStatistics(
      batch(2, () => 0.6),
      2,
      SIZE,
      SIZE,
    );
    for (const value of Object.values(flat)) expect(value).toBeCloseTo(0, 6);
  });

  it("measure saturation as largest minus smallest channel", () => {
    const { saturation } = pictureStatistics(
      batch(2, (n, c) => (n === 0 ? [0.9, 0.5, 0.1][c]! : 0.3)),
      2,
      SIZE,
      SIZE,
    );
    expect(saturation).toBeCloseTo(0.4, 6);
  });

  it("measure contrast as the deviation of the luminance", () => {
    const { contrast } = pictureStatistics(
      batch(1, (_n, _c, y) => (y < 32 ? 0.2 : 0.8)),
      1,
      SIZE,
      SIZE,
    );
    expect(contrast).toBeCloseTo(0.3, 5);
  });

  it("find a sharp edge sharper than a soft one", () => {
    const sharp = pictureStatistics(
      batch(1, (_n, _c, _y, x) => (x < 32 ? 0 : 1)),
      1,
      SIZE,
      SIZE,
    );
    const soft = pictureStatistics(
      batch(1, (_n, _c, _y, x) => x / 63),
      1,
      SIZE,
      SIZE,
    );
    expect(sharp.sharpness).toBeGreaterThan(5 * soft.sharpness);
  });

  it("find no grid in unrelated noise", () => {
    const { grid8, grid16 } = pictureStatistics(
      batch(4, (n, _c, y, x) => noise(n, y, x)),
      4,
      SIZE,
      SIZE,
    );
    expect(Math.abs(grid8)).toBeLessThan(0.006);
    expect(Math.abs(grid16)).toBeLessThan(0.012);
  });

  it("give a pure grid of 8 px all the energy at both periods", () => {
    // Borders are repeated for the Laplacian, so the frame differs a little from a cell inside.
    const { grid8, grid16 } = pictureStatistics(
      batch(2, (_n, _c, _y, x) => (x % 8 === 3 ? 1 : 0)),
      2,
      SIZE,
      SIZE,
    );
    expect(grid8).toBeGreaterThan(0.95);
    expect(grid16).toBeGreaterThan(0.95);
  });

  it("tell a grid of 16 px from one of 8 px", () => {
    const { grid8, grid16 } = pictureStatistics(
      batch(2, (_n, _c, y) => (y % 16 === 5 ? 1 : 0)),
      2,
      SIZE,
      SIZE,
    );
    expect(grid16).toBeGreaterThan(0.95);
    expect(grid8).toBeLessThan(0.6);
  });

  it("find a faint grid under noise beyond the alarm's bound", () => {
    const gridded = batch(4, (n, _c, y, x) => 0.2 * noise(n, y, x) + (x % 8 === 0 || y % 8 === 0 ? 0.12 : 0));
    expect(pictureStatistics(gridded, 4, SIZE, SIZE).grid8).toBeGreaterThan(0.02);
  });

  it("give pictures smaller than two periods no grid", () => {
    const small = new RandomStream(2, "small").uniforms(0, 3 * 64);
    expect(pictureStatistics(small, 1, 8, 8).grid16).toBe(0);
  });
});

describe("diversity", () => {
  it("is 0 for equal, 1 for orthogonal and 2 for opposite features", () => {
    expect(
      diversity([
        [1, 2],
        [2, 4],
      ]),
    ).toBeCloseTo(0, 12);
    expect(
      diversity([
        [1, 0],
        [0, 3],
      ]),
    ).toBeCloseTo(1, 12);
    expect(
      diversity([
        [1, 0],
        [-1, 0],
      ]),
    ).toBeCloseTo(2, 12);
  });

  it("averages over all pairs and is unknown for one picture", () => {
    expect(
      diversity([
        [1, 0],
        [0, 1],
        [1, 0],
      ]),
    ).toBeCloseTo(2 / 3, 12);
    expect(diversity([[1, 0]])).toBeNull();
    expect(cosine([0, 0], [1, 1])).toBe(0);
  });
});
