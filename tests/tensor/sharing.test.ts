// Plans that differ in their variables alone share kernels, uniforms and places in the arena.

import { expect, test } from "vitest";
import { matmul } from "../../src/ops/matmul.ts";
import { add, affine, silu } from "../../src/ops/pointwise.ts";
import type { Graph } from "../../src/tensor/graph.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

/** out = silu(x W) W + 2 x W */
function declare(session: Session) {
  const x = session.data("x", [3, 8]);
  const layers = ["first", "second"].map((name) => {
    const pool = session.pool(name, "weights");
    return { weight: pool.add(`${name}.weight`, [8, 8], "f32"), out: session.data(`${name}.out`, [3, 8]) };
  });
  const body =
    ({ weight, out }: (typeof layers)[number], factor = 2) =>
    (graph: Graph) => {
      const w = graph.read(weight);
      const y = matmul(graph.read(x), w);
      graph.assign(out, add(matmul(silu(y), w), affine(y, factor, 0)));
    };
  return { x, layers, body };
}

test("a plan of the same calls on other variables shares, one with another constant does not", () => {
  const session = new Session(portableTarget());
  const { layers, body } = declare(session);
  const first = session.plan("first", body(layers[0]!));
  const before = session.memory();
  const second = session.plan("second", body(layers[1]!), first);
  expect(second.like).toBe(first);
  expect(second.placement.arenaBytes).toBe(first.placement.arenaBytes);
  expect(session.memory().uniforms).toBe(before.uniforms);
  expect(session.memory().bindings).toBeGreaterThan(before.bindings);
  // The like of a like is the first.
  expect(session.plan("third", body(layers[0]!), second).like).toBe(first);
  expect(session.plan("other", body(layers[1]!, 3), first).like).toBeNull();
});

test("shared plans compute what plans of their own compute", async () => {
  const gpu = await testGpu();
  const results: Float32Array[][] = [];
  for (const share of [false, true]) {
    const session = new Session(targetOf(gpu));
    const { x, layers, body } = declare(session);
    const first = session.plan("first", body(layers[0]!));
    const second = session.plan("second", body(layers[1]!), share ? first : null);
    await session.open(gpu);
    session.write(
      x,
      Float32Array.from({ length: 24 }, (_, i) => Math.sin(i)),
    );
    layers.forEach(({ weight }, k) =>
      session.write(
        weight,
        Float32Array.from({ length: 64 }, (_, i) => Math.cos(i + k)),
      ),
    );
    for (const plan of [second, first, second]) {
      session.poison();
      session.run(plan);
    }
    results.push([await session.read(layers[0]!.out), await session.read(layers[1]!.out)]);
    session.close();
  }
  expect(results[1]).toEqual(results[0]);
  expect(results[0]![0]).not.toEqual(results[0]![1]);
});
