// Uploads of many words and readback in place: every byte arrives, and mapped memory is given back.

import { expect, test } from "vitest";
import { uploadRingBytes } from "../../src/gpu/transfer.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

async function world(sizes: readonly number[]) {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const pool = session.pool("words", "weights");
  const variables = sizes.map((size, i) => pool.add(`v${i}`, [size], "f32"));
  const halves = pool.add("halves", [5], "f16");
  const words = pool.add("ids", [3], "u32");
  await session.open(gpu);
  return { session, variables, halves, words };
}

test("weights arrive whole through a ring of any size and through the queue", async () => {
  const { session, variables, halves } = await world([1, 3000, 5, 70_001, 64]);
  try {
    for (const [round, ring] of [16384, 1 << 20, 0].entries()) {
      const values = variables.map((v) => Float32Array.from({ length: v.size }, (_, i) => i + round / 4));
      await session.upload(
        4 * 73_071,
        async (write) => {
          await write(halves, Uint16Array.of(1, 2, 3, 4, round));
          for (const [i, variable] of variables.entries()) await write(variable, values[i]!);
        },
        ring,
      );
      for (const [i, variable] of variables.entries()) expect(await session.read(variable)).toEqual(values[i]);
      expect([...new Uint16Array(await session.readBits(halves))]).toEqual([1, 2, 3, 4, round]);
    }
  } finally {
    session.close();
  }
});

test("an upload that fails leaves the session usable", async () => {
  const { session, variables } = await world([8, 2000]);
  try {
    const stop = new Error("the file ended");
    const failing = session.upload(
      8000,
      async (write) => {
        await write(variables[1]!, new Float32Array(2000));
        throw stop;
      },
      4096,
    );
    await expect(failing).rejects.toBe(stop);
    await expect(session.upload(32, async (write) => write(variables[0]!, new Float32Array(7)), 4096)).rejects.toThrow(
      "7 values for 8 places",
    );
    session.write(variables[0]!, new Float32Array(8).fill(3));
    expect([...(await session.read(variables[0]!))]).toEqual(new Array(8).fill(3));
  } finally {
    session.close();
  }
});

test("values are read in place, several at once, and are gone after their release", async () => {
  const sizes = [3000, 7, 900, 4000];
  const { session, variables, halves, words } = await world(sizes);
  try {
    for (const [i, v] of variables.entries()) session.write(v, new Float32Array(v.size).fill(i + 0.5));
    session.write(halves, Uint16Array.of(9, 8, 7, 6, 5));
    session.write(words, Uint32Array.of(1, 2, 4294967295));
    // More than there are places: the later ones wait for a release.
    await Promise.all(
      variables.map(async (v, i) => {
        const mapped = await session.map(v);
        expect(mapped.view).toEqual(new Float32Array(v.size).fill(i + 0.5));
        mapped.release();
        expect(mapped.view.length).toBe(0);
        mapped.release();
      }),
    );
    const [bits, ids] = await Promise.all([session.map(halves), session.map(words)]);
    expect(bits.view).toEqual(Uint16Array.of(9, 8, 7, 6, 5));
    expect(ids.view).toEqual(Uint32Array.of(1, 2, 4294967295));
    bits.release();
    ids.release();
    expect((await session.read(variables[1]!)).length).toBe(7);
  } finally {
    session.close();
  }
});

test("a ring is taken where the adapter has memory of its own and there is much to upload", () => {
  expect(uploadRingBytes(true, 1 << 30)).toBe(0);
  expect(uploadRingBytes(false, 1000)).toBe(0);
  expect(uploadRingBytes(false, 3_000_001)).toBe(3_002_368);
  expect(uploadRingBytes(false, 24e9)).toBe(64 << 20);
});
