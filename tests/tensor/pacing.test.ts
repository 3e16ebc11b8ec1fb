// Replays that a gate may hold up: what reaches the device, in which pieces and how many at a time, on a queue whose work
// ends when the test says so; and the same bits as without a gate on a real one.

import { describe, expect, it } from "vitest";
import type { Gpu } from "../../src/gpu/device.ts";
import { matmul } from "../../src/ops/matmul.ts";
import type { Executable } from "../../src/tensor/executable.ts";
import { Pacer } from "../../src/tensor/pacing.ts";
import { Profiler } from "../../src/tensor/profile.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { GRID, snapshotBits, withRun } from "../helpers/flow.ts";
import { noise, testGpu } from "../helpers/gpu.ts";

const pass = () => Promise.resolve();
/** Lets everything that can go on do so. */
const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 5));

/** A queue that finishes a submit when it is told to, and executables that only say what they would submit. */
function fakeDevice() {
  const submitted: string[] = [];
  const ends: (() => void)[] = [];
  const queue = { onSubmittedWorkDone: () => new Promise<void>((resolve) => ends.push(resolve)) };
  const gpu = { device: { queue }, wait: (p: Promise<unknown>) => p, check: () => {} } as unknown as Gpu;
  const executable = (name: string, count: number, cost: number) =>
    ({
      count,
      after: (from: number, work: number) => {
        const to = Math.min(count, from + Math.max(1, Math.floor(work / cost)));
        return { to, work: (to - from) * cost };
      },
      submit: (from: number, to: number) => submitted.push(`${name} ${from}-${to}`),
    }) as unknown as Executable;
  return { submitted, gpu, executable, finishOldest: () => ends.shift()?.(), pending: () => ends.length };
}

describe("a paced replay", () => {
  it("keeps at most two submits in flight, over the ends of plans too", async () => {
    const { submitted, gpu, executable, finishOldest } = fakeDevice();
    const pacer = new Pacer(gpu);
    // Every call is more than a piece, so each makes a submit of its own.
    const both = Promise.all([
      pacer.replay(executable("a", 3, 1e12), pass),
      pacer.replay(executable("b", 2, 1e12), pass),
    ]);
    await settle();
    expect(submitted).toEqual(["a 0-1", "a 1-2"]);
    finishOldest();
    await settle();
    expect(submitted).toEqual(["a 0-1", "a 1-2", "a 2-3"]);
    finishOldest();
    await settle();
    expect(submitted).toEqual(["a 0-1", "a 1-2", "a 2-3", "b 0-1"]);
    finishOldest();
    await both;
    expect(submitted.at(-1)).toBe("b 1-2");
  });

  it("submits nothing while the gate is closed, and ends with the gate's error", async () => {
    const { submitted, gpu, executable, finishOldest } = fakeDevice();
    const pacer = new Pacer(gpu);
    let open = () => {};
    let asked = 0;
    const gate = () => {
      if (++asked === 2) return new Promise<void>((resolve) => (open = resolve));
      return asked === 3 ? Promise.reject(new Error("stopped")) : Promise.resolve();
    };
    const replay = pacer.replay(executable("a", 4, 1e12), gate).catch((error: Error) => error.message);
    await settle();
    expect(submitted).toEqual(["a 0-1"]);
    expect(pacer.busy).toBe(true);
    open();
    await settle();
    expect(submitted).toHaveLength(2);
    finishOldest();
    expect(await replay).toBe("stopped");
    expect(pacer.busy).toBe(false);
    // The next replay is not held up by the one that was stopped.
    finishOldest();
    await pacer.replay(executable("b", 1, 1), pass);
    expect(submitted.at(-1)).toBe("b 0-1");
  });

  it("makes pieces as large as the device does in a moment", async () => {
    const { submitted, gpu, executable, finishOldest, pending } = fakeDevice();
    const pacer = new Pacer(gpu);
    // 2e7 of work in 10 ms would be 2e9 a second: 1e8, five calls, in 50 ms. The first piece holds ten.
    const device = setInterval(() => pending() > 0 && finishOldest(), 100);
    try {
      await pacer.replay(executable("a", 30, 2e7), pass);
    } finally {
      clearInterval(device);
    }
    const sizes = submitted.map((text) => {
      const [from, to] = text.slice(2).split("-").map(Number) as [number, number];
      return to - from;
    });
    expect(sizes[0]).toBe(10);
    expect(sizes.at(-2)).toBeLessThan(8);
    expect(sizes.reduce((a, b) => a + b)).toBe(30);
  });
});

async function chain(): Promise<{ session: Session; plan: Plan; read: () => Promise<Float32Array> }> {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const [x, w, y] = ["x", "w", "y"].map((name) => session.data(name, [256, 256])) as [never, never, never];
  const plan = session.plan("chain", (graph) => {
    let value = graph.read(x);
    for (let i = 0; i < 24; i++) value = matmul(value, graph.read(w));
    graph.assign(y, value);
  });
  await session.open(gpu);
  session.write(x, Float32Array.from(noise(256 * 256, 1)));
  session.write(
    w,
    Float32Array.from(noise(256 * 256, 2), (v) => v / 9),
  );
  return { session, plan, read: () => session.read(y) };
}

describe("a session with a gate", () => {
  it("asks it between pieces and gives the same bits as without one", async () => {
    const { session, plan, read } = await chain();
    session.run(plan);
    const expected = await read();
    let asked = 0;
    session.gate = async () => {
      asked++;
      await settle();
    };
    session.poison();
    await session.replay(plan);
    expect(await read()).toEqual(expected);
    expect(asked).toBeGreaterThan(2);
    session.close();
  });

  it("lets nothing run in the middle of a plan, and lines up what is replayed meanwhile", async () => {
    const { session, plan, read } = await chain();
    session.run(plan);
    const expected = await read();
    session.gate = settle;
    const both = [session.replay(plan), session.replay(plan)];
    await Promise.resolve();
    expect(() => session.run(plan)).toThrow("in the middle of another one");
    await Promise.all(both);
    expect(await read()).toEqual(expected);
    session.close();
  });

  it("ends a replay that waits at the gate when it is closed", async () => {
    const { session, plan } = await chain();
    let open = () => {};
    session.gate = () => new Promise<void>((resolve) => (open = resolve));
    const replay = session.replay(plan);
    await settle();
    session.close();
    open();
    await expect(replay).rejects.toThrow("not open");
  });

  it("still lets a profiler time whole plans", async () => {
    const { session, plan } = await chain();
    const profiler = new Profiler(session);
    session.gate = settle;
    await session.replay(plan);
    const [profile] = await profiler.finish();
    expect(profile).toMatchObject({ name: "chain", runs: 1 });
    session.close();
  });

  it.each([
    ["whole", {}],
    ["streamed", { slots: { double: 2, single: 2 } }],
  ])("is asked by an update of a %s model, whose numbers stay the same", async (_, options) => {
    const update = (gate: (() => Promise<void>) | null) =>
      withRun(options, async (run) => {
        run.session.gate = gate;
        const { loss } = await run.trainer.step(1, [run.sample(1), run.sample(2)], GRID);
        return { loss, bits: snapshotBits(await run.read()) };
      });
    const free = await update(null);
    let asked = 0;
    const gated = await update(async () => {
      asked++;
    });
    expect(gated).toEqual(free);
    expect(asked).toBeGreaterThanOrEqual("slots" in options ? 6 : 1);
  });
});
