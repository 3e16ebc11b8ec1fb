import { describe, expect, it } from "vitest";
import { embedding } from "../../src/ops/embedding.ts";
import { gatherRows } from "../../src/ops/gather_rows.ts";
import { add } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

describe("embedding", () => {
  it("copies the rows that the ids name and sums their gradients in the table", async () => {
    for (const [entries, width, count] of [[1, 1, 1], [7, 63, 5], [5, 64, 40], [300, 65, 31]] as [number, number, number][]) {
      const table = noise(entries * width, 1);
      const ids = Array.from({ length: count }, (_, n) => (n * 7 + (n >> 1)) % entries);
      const dy = noise(count * width, 2);
      const inputs = [{ shape: [entries, width], values: table }, { shape: [count], values: ids, dtype: "u32" as const }];
      const { outputs, gradients } = await runOps(inputs, ([t, i]) => [embedding(t!, i!)], { seeds: [dy], repeat: true });
      const out = new Float64Array(count * width);
      const dtable = new Float64Array(entries * width);
      ids.forEach((id, n) => {
        for (let d = 0; d < width; d++) {
          out[n * width + d] = table[id * width + d]!;
          dtable[id * width + d]! += dy[n * width + d]!;
        }
      });
      expect(Array.from(outputs[0]!)).toEqual(Array.from(out));
      expect(relativeError(gradients[0]!, dtable)).toBeLessThan(1e-6);
    }
  });

  it("gives a zero row for an id outside the table", async () => {
    const inputs = [{ shape: [3, 4], values: noise(12) }, { shape: [1, 2], values: [3, 0xffffffff], dtype: "u32" as const }];
    const { outputs, gradients } = await runOps(inputs, ([t, i]) => [embedding(t!, i!)], { seeds: [noise(8, 2)] });
    expect(Array.from(outputs[0]!)).toEqual(new Array(8).fill(0));
    expect(Array.from(gradients[0]!)).toEqual(new Array(12).fill(0));
  });

  it("adds positions in the same kernel", async () => {
    const [table, positions] = [noise(5 * 8, 1), noise(3 * 8, 2)];
    const inputs = [{ shape: [5, 8], values: table }, { shape: [2, 3], values: [0, 4, 2, 1, 1, 3], dtype: "u32" as const }, { shape: [3, 8], values: positions }];
    const { outputs, calls } = await runOps(inputs, ([t, i, q]) => [add(embedding(t!, i!), q!)]);
    expect(calls).toEqual(["embedding"]);
    const expected = [0, 4, 2, 1, 1, 3].flatMap((id, n) => Array.from({ length: 8 }, (_, d) => table[id * 8 + d]! + positions[(n % 3) * 8 + d]!));
    expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-6);
  });

  it("refuses a table that is no matrix and ids that are no whole numbers", async () => {
    const ids = { shape: [2], values: [0, 1], dtype: "u32" as const };
    await expect(runOps([{ shape: [4], values: noise(4) }, ids], ([t, i]) => [embedding(t!, i!)])).rejects.toThrow(/entries, width/);
    await expect(runOps([{ shape: [2, 2], values: noise(4) }, { shape: [2], values: [0, 1] }], ([t, i]) => [embedding(t!, i!)])).rejects.toThrow(/u32/);
  });
});

describe("gatherRows", () => {
  it("picks one row per batch element and puts the gradient back there", async () => {
    for (const [batch, length, width] of [[1, 1, 1], [2, 5, 63], [3, 7, 64], [5, 77, 65]] as [number, number, number][]) {
      const x = noise(batch * length * width, 1);
      const pick = Array.from({ length: batch }, (_, b) => (b * 3 + 2) % length);
      const dy = noise(batch * width, 2);
      const inputs = [{ shape: [batch, length, width], values: x }, { shape: [batch], values: pick, dtype: "u32" as const }];
      const { outputs, gradients } = await runOps(inputs, ([a, i]) => [gatherRows(a!, i!)], { seeds: [dy], repeat: true });
      const dx = new Float64Array(x.length);
      const out = dy.map((g, n) => {
        const at = (Math.floor(n / width) * length + pick[Math.floor(n / width)]!) * width + n % width;
        dx[at] = g;
        return x[at]!;
      });
      expect(Array.from(outputs[0]!)).toEqual(Array.from(out));
      expect(Array.from(gradients[0]!)).toEqual(Array.from(dx));
    }
  });

  it("gives zeros for a row outside, and refuses an index of another length", async () => {
    const x = { shape: [2, 3, 4], values: noise(24) };
    const { outputs } = await runOps([x, { shape: [2], values: [3, 0], dtype: "u32" }], ([a, i]) => [gatherRows(a!, i!)]);
    expect(Array.from(outputs[0]!.slice(0, 4))).toEqual([0, 0, 0, 0]);
    await expect(runOps([x, { shape: [3], values: [0, 0, 0], dtype: "u32" }], ([a, i]) => [gatherRows(a!, i!)])).rejects.toThrow(/not u32\[2\]/);
  });
});
