// The page's buttons as a run hears them.

import { expect, it } from "vitest";
import { PageControl } from "../../src/web/worker/page_control.ts";

/** A loop like that of a run: a word at each update, a gate between its submits. */
function loopOf(control: PageControl, updates: number) {
  const controller = new AbortController();
  const state = { updates: 0, submits: 0, words: [] as string[] };
  const done = (async () => {
    while (state.updates < updates && !controller.signal.aborted) {
      const words = await control.take();
      while (words.length > 0) {
        const word = words.shift()!;
        if (word === "pause") words.unshift(...(await control.pause(controller.signal)));
        else state.words.push(word);
      }
      if (controller.signal.aborted) break;
      for (let submit = 0; submit < 4; submit++) {
        await control.gate(controller.signal);
        await new Promise((resolve) => setTimeout(resolve, 2));
        state.submits++;
      }
      state.updates++;
    }
  })();
  return { state, done, stop: () => controller.abort() };
}

const moment = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

it("a pause acts between two submits, and the run goes on where it was", async () => {
  const heard: boolean[] = [];
  const control = new PageControl((paused) => heard.push(paused));
  const { state, done } = loopOf(control, 5);
  while (state.submits < 6) await moment(1);
  control.hold();
  await expect.poll(() => heard).toEqual([true]);
  const { submits } = state;
  expect(submits).toBeLessThan(20);
  await moment(20);
  expect(state.submits).toBe(submits);
  control.resume();
  await done;
  expect(state).toMatchObject({ updates: 5, submits: 20 });
  expect(heard).toEqual([true, false]);
});

it("a step makes as many updates as were asked for, the one under way included, and pauses again", async () => {
  const control = new PageControl(() => {});
  const { state, done } = loopOf(control, 9);
  control.hold();
  for (const [steps, after] of [
    [1, 1],
    [3, 4],
  ] as const) {
    control.step(steps);
    await expect.poll(() => [state.updates, control.isPaused]).toEqual([after, true]);
    await moment(50);
    expect(state.updates).toBe(after);
  }
  control.resume();
  await done;
  expect(state.updates).toBe(9);
});

it("knows whether it waits or is about to, for the run that takes its place", async () => {
  const control = new PageControl(() => {});
  expect(control.holds).toBe(false);
  control.hold();
  expect(control.holds).toBe(true);
  control.step(2);
  expect([control.isPaused, control.holds]).toEqual([false, true]);
  await control.take();
  await control.take();
  expect([control.isPaused, control.holds]).toEqual([true, true]);
  control.resume();
  expect(control.holds).toBe(false);
});

it("words are heard between updates while the run is paused, and a run that ends leaves no one waiting", async () => {
  const control = new PageControl(() => {});
  control.hold();
  const { state, done, stop } = loopOf(control, 9);
  control.say("save");
  await expect.poll(() => state.words).toEqual(["save"]);
  expect(state.submits).toBe(0);
  stop();
  await done;
  expect(state.updates).toBe(0);
});
