// The page's state against an engine that computes nothing: a run from its start to its end, steering, a failure, and going on
// with what an earlier visit left.

import { afterEach, describe, expect, it, vi } from "vitest";
import { BUNDLED, bundledChoice } from "../../src/web/pictures/bundled.ts";
import { DEFAULT_SETTINGS, PRESETS, trainToml } from "../../src/web/settings.ts";
import {
  activeRun,
  device,
  engine,
  machine,
  onEngineEvent,
  provideEngine,
  readAddress,
  removeStoredRun,
  resumable,
  resumeRun,
  runSource,
  settings,
  startRun,
  storage,
  wireError,
} from "../../src/web/store.ts";
import { createFakeEngine, type FakeOptions } from "../../src/web/testing/fake_engine.ts";

const toml = trainToml({ ...DEFAULT_SETTINGS, updates: 30 }, PRESETS.software);
const request = { command: "train", toml, name: "first", resume: false } as const;

function provide(options: FakeOptions = {}) {
  const fake = createFakeEngine({ speed: 400, ...options });
  provideEngine(async () => ({ engine: fake, source: fake.source }));
  return fake;
}

afterEach(() => {
  activeRun.value = null;
  device.value = null;
  settings.value = { ...DEFAULT_SETTINGS };
});

describe("pictures that take shape", () => {
  it("are asked for where somebody looks who does not want things to stand still", async () => {
    const asked: boolean[] = [];
    const fake = createFakeEngine();
    const still = Object.assign(new EventTarget(), { matches: false });
    const page = Object.assign(new EventTarget(), { visibilityState: "visible" });
    vi.stubGlobal("matchMedia", () => still);
    vi.stubGlobal("document", page);
    try {
      provideEngine(async () => ({ engine: { ...fake, previews: async (on) => void asked.push(on) } }));
      await engine();
      still.matches = true;
      still.dispatchEvent(new Event("change"));
      still.matches = false;
      page.visibilityState = "hidden";
      page.dispatchEvent(new Event("visibilitychange"));
      expect(asked).toEqual([true, false, false]);
    } finally {
      vi.unstubAllGlobals();
    }
  });
});

describe("a run of the tab", () => {
  it("goes from its start to its end, with curves, samples and checkpoints", async () => {
    provide();
    const events: string[] = [];
    const stop = onEngineEvent(({ kind }) => void events.push(kind));
    const run = await startRun(request);
    await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("finished");
    stop();
    expect(run.view.step).toBe(30);
    expect(run.view.series.get("loss")?.steps).toHaveLength(30);
    expect([...run.view.samples.keys()][0]).toBe(0);
    expect(run.saved.value).toBe(30);
    expect(run.memory.value).toHaveProperty("weights");
    expect(new Set(events)).toEqual(new Set(["status", "log", "memory"]));
    await expect
      .poll(() => storage.value?.runs.map(({ name, state }) => `${name} ${state}`))
      .toEqual(["first finished"]);
    expect(await runSource("first").blob([...run.view.samples.get(0)!][0]!.path)).toBeInstanceOf(Blob);
  });

  it("pauses, makes single updates, goes on and stops", async () => {
    provide({ speed: 60 });
    const run = await startRun({ ...request, toml: toml.replace("steps = 30", "steps = 4000") });
    await expect.poll(() => run.view.step, { timeout: 20_000 }).toBeGreaterThan(2);
    await (await engine()).pause();
    await expect.poll(() => run.status.value).toBe("paused");
    const { step } = run.view;
    await (await engine()).step(2);
    await expect.poll(() => [run.status.value, run.view.step]).toEqual(["paused", step + 2]);
    await (await engine()).resume();
    await expect.poll(() => run.status.value).toBe("running");
    await (await engine()).stop();
    await expect.poll(() => run.status.value).toBe("stopped");
    expect(run.active).toBe(false);
    expect((await resumable())?.run.name).toBe("first");
  });

  it("fails with the engine's words", async () => {
    provide({ fail: "E-NUM-001", failAt: 3 });
    const run = await startRun(request);
    await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("failed");
    expect(run.error.value).toMatchObject({ code: "E-NUM-001", fix: expect.stringContaining("lower learning rate") });
  });

  it("that is refused leaves the run before it on the screen", async () => {
    provide();
    const run = await startRun(request);
    await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("finished");
    await expect(startRun(request)).rejects.toMatchObject({ code: "E-CFG-021", where: "first" });
    expect(activeRun.value).toBe(run);
  });

  it("keeps its view and its events while another start is refused", async () => {
    provide();
    const run = await startRun(request);
    const second = startRun({ ...request, name: "second" });
    expect(activeRun.value).toBe(run);
    await expect(second).rejects.toMatchObject({ code: "E-RUN-040" });
    expect(activeRun.value).toBe(run);
    await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("finished");
    expect(run.view.series.get("loss")?.steps).toHaveLength(30);
  });

  it("goes on with the curve of an earlier visit", async () => {
    provide({ stoppedRun: true });
    expect(await resumable()).toMatchObject({ run: { name: "yesterday", state: "stopped" }, elsewhere: false });
    const config = (await runSource("yesterday").text("config.toml"))!;
    const run = await startRun({ command: "train", toml: config, name: "yesterday", resume: true });
    expect(run.view.series.get("loss")?.steps.length).toBe(69);
    await expect.poll(() => run.status.value, { timeout: 20_000 }).toBe("finished");
    const { steps } = run.view.series.get("loss")!;
    expect(steps).toEqual(Array.from({ length: 120 }, (_, i) => i + 1));
  });
});

describe("what an earlier visit left", () => {
  it("is offered by its kind, and resumed with the form that it was started with", async () => {
    const fake = provide({ speed: 60 });
    const own = { ...DEFAULT_SETTINGS, updates: 3000, rank: 8, set: bundledChoice(BUNDLED[1]!) };
    const run = await startRun({ ...request, toml: trainToml(own, PRESETS.hardware) });
    await expect.poll(() => run.view.step, { timeout: 20_000 }).toBeGreaterThan(2);
    await fake.stop();
    await expect.poll(() => run.status.value).toBe("stopped");
    expect(await resumable("align")).toBeNull();
    settings.value = { ...DEFAULT_SETTINGS };
    const again = await resumeRun((await resumable())!.run);
    expect(settings.value).toMatchObject({ rank: 8, updates: 3000, set: { items: own.set.items } });
    await fake.stop();
    await expect.poll(() => again.status.value, { timeout: 20_000 }).toBe("stopped");
    await removeStoredRun(again.name);
    expect(activeRun.value).toBeNull();
  });
});

describe("an address", () => {
  it("without settings leaves the form as it is", () => {
    settings.value = { ...DEFAULT_SETTINGS, rank: 4 };
    readAddress("#mode=train");
    expect(settings.value.rank).toBe(4);
    readAddress("#rank=5");
    expect(settings.value.rank).toBe(5);
  });
});

describe("the machine's preset", () => {
  it("follows what the worker's device is", async () => {
    provide({ software: true });
    expect(machine.value.id).toBe("hardware");
    await startRun(request);
    expect(machine.value.id).toBe("software");
  });
});

describe("anything that was thrown", () => {
  it("becomes the parts that people are shown", () => {
    expect(wireError({ code: "E-X-1", what: "w", fix: "f" })).toEqual({ code: "E-X-1", what: "w", fix: "f" });
    expect(wireError({ code: "E-X-2", parts: { what: "w" } })).toEqual({ code: "E-X-2", what: "w" });
    expect(wireError(new TypeError("no"))).toEqual({ code: "E-RUN-099", what: "no" });
    expect(wireError("text")).toEqual({ code: "E-RUN-099", what: "text" });
  });
});
