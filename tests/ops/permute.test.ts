// Values, gradients and folded grids are tested from the table (table.test.ts).

import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { movesOf, permute } from "../../src/ops/permute.ts";
import { noise, runOps } from "../helpers/gpu.ts";

/** For every value of the output its index in x, by the definition. */
function indices(shape: readonly number[], order: readonly number[]): number[] {
  const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
  let found = [0];
  for (const d of order)
    found = found.flatMap((at) => Array.from({ length: shape[d]! }, (_, i) => at + i * strides[d]!));
  return found;
}

/** The same by what the kernel does with its parameters. */
function moved(shape: readonly number[], order: readonly number[]): { kind: string; found: number[] } {
  const { item, run, block, count, dims, rows, columns } = movesOf(shape, order);
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    let [rest, from, to] = [i, 0, 0];
    dims.forEach((dim, k) => {
      const place = k === dims.length - 1 ? rest : rest % dim.size;
      rest = Math.floor(rest / dim.size);
      from += place * dim.from;
      to += place * dim.to;
    });
    if (!block) for (let e = 0; e < item * run; e++) found[to * item + e] = from * item + e;
    else
      for (let a = 0; a < 4; a++)
        for (let b = 0; b < 4; b++) found[4 * (to + b * columns) + a] = 4 * (from + a * rows) + b;
  }
  return { kind: block ? "blocks" : `items of ${item}`, found };
}

describe("permutations", () => {
  it("move every value once and to its place, in items of one, two and four and in blocks", () => {
    const random = new RandomStream(1, "permutations");
    const kinds = new Map<string, number>();
    for (let t = 0; t < 3000; t++) {
      const rank = 2 + Math.floor(5 * random.uniform(2 * t));
      const sizes = random.uniforms(2 * t, rank, 1);
      const shape = Array.from(sizes, (u) => [1, 2, 3, 4, 5, 6, 8, 12][Math.floor(8 * u)]!);
      const order = Array.from(random.permutation(2 * t + 1, rank));
      const moving = order.filter((d) => shape[d] !== 1);
      if (moving.every((d, i) => i === 0 || d > moving[i - 1]!) || shape.reduce((a, b) => a * b) > 5000) continue;
      const { kind, found } = moved(shape, order);
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      expect(found, `[${shape}] by [${order}]`).toEqual(indices(shape, order));
    }
    for (const kind of ["items of 1", "items of 2", "items of 4", "blocks"])
      expect(kinds.get(kind), kind).toBeGreaterThan(20);
  });

  it("take no kernel where no value moves", async () => {
    const x = noise(24, 1);
    const { calls, outputs } = await runOps([{ shape: [1, 4, 1, 6], values: x }], ([t]) => [permute(t!, [2, 1, 3, 0])]);
    expect(calls).toEqual(["copy"]);
    expect(outputs[0]).toEqual(Float32Array.from(x));
  });

  it("find their places beyond 2^22 items, where a quotient is no longer one multiplication", async () => {
    const [rows, columns] = [2049, 2051];
    const x = Float32Array.from({ length: rows * columns }, (_, i) => i);
    const { outputs } = await runOps([{ shape: [rows, columns], values: x }], ([t]) => [permute(t!, [1, 0])]);
    const wrong = outputs[0]!.findIndex((v, i) => v !== (i % rows) * columns + Math.floor(i / rows));
    expect(wrong).toBe(-1);
  });
});
