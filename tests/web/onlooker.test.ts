// Pictures that are shown while they take shape: nearer and nearer to what is drawn, which no look changes, and seldom enough.

import { afterEach, expect, test, vi } from "vitest";
import { DiskFiles } from "../../src/platform/files.ts";
import type { EngineEvent } from "../../src/web/protocol.ts";
import { DrawDesk } from "../../src/web/worker/draw_desk.ts";
import { Lookout } from "../../src/web/worker/onlooker.ts";
import { testGpu } from "../helpers/gpu.ts";

afterEach(() => {
  vi.useRealTimers();
});

test("what is shown comes nearer to the picture with every step, and looking on changes no bit of it", async () => {
  const gpu = await testGpu();
  const shown: { first: number; done: number; steps: number; bytes: number[] }[] = [];
  const request = { run: null, prompts: ["noto icon of taco", "noto icon of dog"], seed: 5, first: 0, strength: 1 };
  const onlooker = () => ({
    wanted: () => true,
    show: (pictures: readonly Float32Array[], first: number, done: number, steps: number) =>
      void shown.push({ first, done, steps, bytes: [...pictures[0]!].map((x) => 255 * x) }),
  });
  const watched = new DrawDesk(new DiskFiles(), gpu, { lookout: { onlooker } });
  const alone = new DrawDesk(new DiskFiles(), gpu);
  const steps = 5;
  const drawn = await watched.draw({ ...request, steps });
  await watched.close();
  expect(drawn).toEqual(await alone.draw({ ...request, steps }));
  await alone.close();
  expect(shown.map(({ first, done }) => [first, done])).toEqual([0, 1].flatMap((n) => [1, 2, 3, 4].map((i) => [n, i])));
  for (const n of [0, 1]) {
    const { rgba, width } = drawn[n]!;
    const far = shown
      .filter(({ first }) => first === n)
      .map(({ bytes }) => {
        const size = width * width;
        let sum = 0;
        for (let c = 0; c < 3; c++)
          for (let i = 0; i < size; i++) sum += Math.abs(bytes[c * size + i]! - rgba[4 * i + c]!);
        return sum / bytes.length;
      });
    console.log(`picture ${n}: ${far.map((x) => x.toFixed(1)).join(", ")} of 255 from the end`);
    expect(far).toEqual([...far].sort((a, b) => b - a));
    expect(far.at(-1)!).toBeLessThan(far[0]! / 2);
  }
});

test("nothing is shown before the page asks for it, then a few times a second, and on a slow device more seldom", () => {
  vi.useFakeTimers({ toFake: ["performance"], now: 1000 });
  const posted: EngineEvent[] = [];
  const lookout = new Lookout((event) => void posted.push(event));
  const onlooker = lookout.onlooker("mine", 25, ["a", "b", "c"]);
  vi.advanceTimersByTime(1000);
  expect(onlooker.wanted()).toBe(false);
  lookout.on = true;
  expect(onlooker.wanted()).toBe(true);
  onlooker.show([new Float32Array(12).fill(1), new Float32Array(12)], 1, 3, 8, 10);
  expect(onlooker.wanted()).toBe(false);
  vi.advanceTimersByTime(250);
  expect(onlooker.wanted()).toBe(true);
  // Where showing takes long it waits the longer.
  onlooker.show([], 0, 4, 8, 500);
  vi.advanceTimersByTime(3900);
  expect(onlooker.wanted()).toBe(false);
  vi.advanceTimersByTime(200);
  expect(onlooker.wanted()).toBe(true);
  expect(posted.slice(0, 1)).toMatchObject([
    { kind: "preview", run: "mine", step: 25, done: 3, total: 8, pictures: [{ index: 1, item: "b" }, { index: 2 }] },
  ]);
  expect(posted[0]).toMatchObject({
    pictures: [{ width: 2, height: 2, rgba: new Uint8ClampedArray(16).fill(255) }, {}],
  });
});
