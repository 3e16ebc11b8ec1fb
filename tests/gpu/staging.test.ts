// Uploads through mapped buffers that are used again: any size, in the queue's order.

import { expect, test } from "vitest";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

test("staged words arrive whole through a ring that is much smaller than they are", async () => {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const pool = session.pool("words", "weights");
  const sizes = [1, 3000, 5, 70_001, 64];
  const variables = sizes.map((size, i) => pool.add(`v${i}`, [size], "f32"));
  const halves = pool.add("halves", [5], "f16");
  const before = session.memory().staging;
  session.reserveStaging(16384);
  session.reserveStaging(4096);
  expect(session.memory().staging - before).toBe(16384);
  await session.open(gpu);
  try {
    for (const round of [1, 2]) {
      const values = sizes.map((size) => Float32Array.from({ length: size }, (_, i) => i * round));
      for (const [i, variable] of variables.entries()) await session.stage(variable, values[i]!);
      await session.stage(halves, Uint16Array.of(1, 2, 3, 4, round));
      session.flushStaged();
      for (const [i, variable] of variables.entries()) expect(await session.read(variable)).toEqual(values[i]);
      expect([...new Uint16Array(await session.readBits(halves))]).toEqual([1, 2, 3, 4, round]);
    }
    await expect(session.stage(halves, Uint16Array.of(1))).rejects.toThrow("1 values for 5 places");
  } finally {
    session.close();
  }
});
