// What a replay costs the host besides its dispatches: submits, and what stays on the heap.

import { expect, it } from "vitest";
import { matmul } from "../../src/ops/matmul.ts";
import { affine } from "../../src/ops/pointwise.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { noise, testGpu } from "../helpers/gpu.ts";
import { heapUsed } from "../helpers/heap.ts";

it("cuts a plan into as many submits as its device time wants, of about the same work, with the same result", async () => {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const [x, y] = [session.data("x", [64, 64]), session.data("y", [64, 64])];
  const plan = session.plan("chain", (graph) => {
    let value = graph.read(x);
    for (let i = 0; i < 24; i++) value = affine(matmul(value, graph.read(x)), 0.2, 0);
    graph.assign(y, value);
  });
  await session.open(gpu);
  session.write(x, Float32Array.from(noise(64 * 64)));
  const { queue } = gpu.device;
  const submit = queue.submit.bind(queue);
  let submits = 0;
  queue.submit = (buffers) => {
    submits++;
    submit(buffers);
  };
  try {
    const results = new Map<number, Float32Array>();
    // Seconds that the plan is said to take; 75 ms make a submit, and a quarter more.
    for (const [seconds, expected] of [
      [0.001, 1],
      [0.09, 1],
      [0.28, 4],
      [60, plan.lowered.calls.length],
    ] as const) {
      plan.executable!.setRate(plan.flops / seconds);
      session.poison();
      submits = 0;
      session.run(plan);
      expect(submits).toBe(plan.executable!.submits);
      expect(submits).toBe(expected);
      results.set(expected, await session.read(y));
    }
    for (const values of results.values()) expect(values).toEqual(results.get(1));
  } finally {
    queue.submit = submit;
    session.close();
  }
});

it("leaves nothing on the heap over a thousand replays", async () => {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const [x, y] = [session.data("x", [8, 8]), session.data("y", [8, 8])];
  const plan = session.plan("chain", (graph) => {
    let value = graph.read(x);
    for (let i = 0; i < 16; i++) value = matmul(value, graph.read(x));
    graph.assign(y, value);
  });
  await session.open(gpu);
  session.write(x, new Float32Array(64));
  const replays = async (count: number) => {
    for (let i = 0; i < count; i++) {
      session.run(plan);
      if (i % 50 === 49) await session.finish();
    }
  };
  await replays(200);
  const before = heapUsed();
  await replays(1000);
  // A single small object a replay would be more.
  expect(heapUsed() - before).toBeLessThan(48 * 1024);
  session.close();
});
