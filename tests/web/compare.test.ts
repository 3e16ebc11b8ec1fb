// Compare against an engine that computes nothing: the model as it is before any run, the same noise after one, and pictures before
// training that are kept from run to run.

import { afterEach, expect, test } from "vitest";
import { after, before, changeForm, clearDrawn, drawNow, drawn } from "../../src/web/compare/drawing.ts";
import type { DrawRequest } from "../../src/web/protocol.ts";
import { DEFAULT_SETTINGS, PRESETS, trainToml } from "../../src/web/settings.ts";
import { activeRun, device, provideEngine, startRun } from "../../src/web/store.ts";
import { createFakeEngine } from "../../src/web/testing/fake_engine.ts";

afterEach(() => {
  activeRun.value = null;
  device.value = null;
});

test("the model is drawn before any run, and after one from the same noise", async () => {
  const fake = createFakeEngine({ speed: 400 });
  const asked: string[] = [];
  const engine = {
    ...fake,
    draw: (request: DrawRequest) => {
      asked.push(`${request.run} ${request.strength}`);
      return fake.draw(request);
    },
  };
  provideEngine(async () => ({ engine, source: fake.source }));
  changeForm({ prompt: "noto icon of taco", count: 2, steps: 4 });
  drawNow(null);
  await expect.poll(() => drawn.value?.run, { timeout: 20_000 }).toBeNull();
  expect([before.value?.length, after.value]).toEqual([2, null]);

  const toml = trainToml({ ...DEFAULT_SETTINGS, updates: 5 }, PRESETS.software);
  const run = await startRun({ command: "train", toml, name: "first", resume: false });
  await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("finished");
  const kept = before.value;
  clearDrawn();
  expect(before.value).toBe(kept);
  drawNow("first");
  await expect.poll(() => after.value?.length, { timeout: 20_000 }).toBe(2);
  expect(drawn.value?.run).toBe("first");
  expect(asked).toEqual(["null 0", "first 1"]);
});
