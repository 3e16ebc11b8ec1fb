// The debug mode that runs a plan call by call and names the first one that makes a value which is not finite.

import { describe, expect, it } from "vitest";
import { linear } from "../../src/ops/matmul.ts";
import { affine } from "../../src/ops/pointwise.ts";
import { concat } from "../../src/ops/slab.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

async function open() {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu), { fuse: false });
  const [x, other, weight] = [session.data("x", [4, 8]), session.data("other", [4, 8]), session.data("weight", [8, 8])];
  const y = session.data("y", [4, 16]);
  const plan = session.plan("pieces", (graph) => {
    const first = graph.scope("first", () => affine(graph.read(other), 2, 1));
    const second = graph.scope("second", () => linear(graph.read(x), graph.read(weight)));
    const third = graph.scope("third", () => affine(second, 3, 0));
    graph.assign(
      y,
      graph.scope("join", () => concat([first, third], 1)),
    );
  });
  await session.open(gpu);
  const fill = (value: number) => {
    for (const v of [x, other, weight]) session.write(v, new Float32Array(v.size).fill(value));
  };
  return { session, plan, x, other, weight, fill };
}

describe("the search for the first value that is not finite", () => {
  it("finds nothing where all values are finite", async () => {
    const { session, plan, fill } = await open();
    fill(0.5);
    expect(await session.firstNotFinite(plan)).toBeNull();
    session.close();
  });

  it.each([
    ["a NaN among the weights", Number.NaN],
    ["a product that leaves the range", 3e38],
  ])("names the call and its scope: %s", async (_name, value) => {
    const { session, plan, weight, fill } = await open();
    fill(2);
    session.write(weight, new Float32Array(64).fill(value));
    session.run(plan);
    // What the run left in memory must not be blamed on calls that fill another part of the same tensor.
    for (let i = 0; i < 2; i++) {
      const found = await session.firstNotFinite(plan);
      expect(found).toMatchObject({
        scope: expect.stringContaining("second"),
        label: expect.stringContaining("matmul"),
      });
    }
    session.close();
  });

  it("does not blame a call for what was there before it", async () => {
    const { session, plan, x, weight, fill } = await open();
    fill(2);
    session.write(weight, new Float32Array(64).fill(Number.NaN));
    session.run(plan);
    session.write(weight, new Float32Array(64).fill(1));
    session.write(x, new Float32Array(32).fill(1));
    expect(await session.firstNotFinite(plan)).toBeNull();
    session.close();
  });
});
