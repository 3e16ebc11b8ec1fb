// How pictures are cut into tiles for an autoencoder.

import { describe, expect, it } from "vitest";
import { joinTiles, tileStarts, tileWithin } from "../../src/models/vae/tiling.ts";

describe("the places of tiles", () => {
  it("begin every three quarters of a tile, the last one shifted inwards", () => {
    expect(tileStarts(64, 64)).toEqual([0]);
    expect(tileStarts(10, 4)).toEqual([0, 3, 6]);
    expect(tileStarts(64, 44)).toEqual([0, 20]);
    expect(tileStarts(64, 20)).toEqual([0, 15, 30, 44]);
  });

  it("cover every length, each tile overlapping the one before by a quarter or more", () => {
    for (let length = 4; length <= 70; length++) {
      for (let tile = 4; tile < length; tile += 4) {
        const starts = tileStarts(length, tile);
        expect(starts[0]).toBe(0);
        expect(starts.at(-1)).toBe(length - tile);
        for (const [i, start] of starts.entries()) {
          if (i === 0) continue;
          expect(start).toBeGreaterThan(starts[i - 1]!);
          expect(start).toBeLessThanOrEqual(starts[i - 1]! + 0.75 * tile);
        }
      }
    }
  });
});

describe("the size of tiles", () => {
  it("is the largest of sides that divide by four", () => {
    expect(tileWithin({ rows: 64, columns: 64 }, 2048)).toEqual({ rows: 44, columns: 44 });
    expect(tileWithin({ rows: 64, columns: 64 }, 512)).toEqual({ rows: 20, columns: 24 });
  });

  it("follows a picture that is narrower than a square tile, or nearly fits", () => {
    expect(tileWithin({ rows: 18, columns: 128 }, 1024)).toEqual({ rows: 18, columns: 56 });
    expect(tileWithin({ rows: 128, columns: 18 }, 1024)).toEqual({ rows: 56, columns: 18 });
    expect(tileWithin({ rows: 64, columns: 64 }, 4095)).toEqual({ rows: 60, columns: 64 });
  });

  it("never exceeds what fits, but for the least tile", () => {
    for (const tokens of [16, 23, 100, 511, 2047]) {
      for (const columns of [5, 17, 64]) {
        const tile = tileWithin({ rows: 64, columns }, tokens);
        expect(tile.rows * tile.columns).toBeLessThanOrEqual(Math.max(tokens, 4 * Math.min(columns, 4)));
      }
    }
    expect(tileWithin({ rows: 64, columns: 64 }, 1)).toEqual({ rows: 4, columns: 4 });
  });
});

describe("joined tiles", () => {
  const geometry = { rows: 7, columns: 9 };
  const tile = { rows: 4, columns: 4 };

  it("are the picture where all tiles agree", async () => {
    const at = (c: number, y: number, x: number) => 1000 * c + 30 * y + x;
    const joined = await joinTiles(geometry, tile, 2, 2, async ({ row, column }) =>
      Float32Array.from({ length: 2 * 8 * 8 }, (_, i) =>
        at(Math.floor(i / 64), 2 * row + (Math.floor(i / 8) % 8), 2 * column + (i % 8)),
      ),
    );
    const expected = Array.from({ length: 2 * 14 * 18 }, (_, i) =>
      at(Math.floor(i / 252), Math.floor(i / 18) % 14, i % 18),
    );
    joined.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 2);
    });
  });

  it("fade linearly from one into the next", async () => {
    let count = 0;
    const row = await joinTiles({ rows: 4, columns: 6 }, tile, 1, 2, async () => new Float32Array(64).fill(count++));
    // Columns 2 and 3 of the tokens belong to both.
    expect([...row.subarray(0, 12)]).toEqual([0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]);
  });
});
