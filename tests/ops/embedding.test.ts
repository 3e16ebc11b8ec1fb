// Values and gradients are tested from the table (table.test.ts); here are the edges.

import { describe, expect, it } from "vitest";
import { embedding } from "../../src/ops/embedding.ts";
import { gatherRows } from "../../src/ops/gather_rows.ts";
import { add } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

describe("embedding", () => {
  it("gives a zero row for an id outside the table", async () => {
    const inputs = [
      { shape: [3, 4], values: noise(12) },
      { shape: [1, 2], values: [3, 0xffffffff], dtype: "u32" as const },
    ];
    const { outputs, gradients } = await runOps(inputs, ([t, i]) => [embedding(t!, i!)], { seeds: [noise(8, 2)] });
    expect(Array.from(outputs[0]!)).toEqual(new Array(8).fill(0));
    expect(Array.from(gradients[0]!)).toEqual(new Array(12).fill(0));
  });

  it("adds positions in the same kernel", async () => {
    const [table, positions] = [noise(5 * 8, 1), noise(3 * 8, 2)];
    const inputs = [
      { shape: [5, 8], values: table },
      { shape: [2, 3], values: [0, 4, 2, 1, 1, 3], dtype: "u32" as const },
      { shape: [3, 8], values: positions },
    ];
    const { outputs, calls } = await runOps(inputs, ([t, i, q]) => [add(embedding(t!, i!), q!)]);
    expect(calls).toEqual(["embedding"]);
    const expected = [0, 4, 2, 1, 1, 3].flatMap((id, n) =>
      Array.from({ length: 8 }, (_, d) => table[id * 8 + d]! + positions[(n % 3) * 8 + d]!),
    );
    expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-6);
  });

  it("refuses a table that is no matrix and ids that are no whole numbers", async () => {
    const ids = { shape: [2], values: [0, 1], dtype: "u32" as const };
    await expect(runOps([{ shape: [4], values: noise(4) }, ids], ([t, i]) => [embedding(t!, i!)])).rejects.toThrow(
      /entries, width/,
    );
    await expect(
      runOps(
        [
          { shape: [2, 2], values: noise(4) },
          { shape: [2], values: [0, 1] },
        ],
        ([t, i]) => [embedding(t!, i!)],
      ),
    ).rejects.toThrow(/u32/);
  });
});

describe("gatherRows", () => {
  it("gives zeros for a row outside, and refuses an index of another length", async () => {
    const x = { shape: [2, 3, 4], values: noise(24) };
    const { outputs } = await runOps([x, { shape: [2], values: [3, 0], dtype: "u32" }], ([a, i]) => [
      gatherRows(a!, i!),
    ]);
    expect(Array.from(outputs[0]!.slice(0, 4))).toEqual([0, 0, 0, 0]);
    await expect(
      runOps([x, { shape: [3], values: [0, 0, 0], dtype: "u32" }], ([a, i]) => [gatherRows(a!, i!)]),
    ).rejects.toThrow(/not u32\[2\]/);
  });
});
