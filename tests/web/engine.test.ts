// The engine of the page in a real browser's worker, without the page around it: what it trains, how it is steered, what it
// keeps, and that it computes what the command line computes.

import { afterAll, beforeAll, expect, test } from "vitest";
import { DiskFiles } from "../../src/platform/files.ts";
import type { DrawRequest, Engine, EngineEvent, LogLine, StartRequest, WireError } from "../../src/web/protocol.ts";
import { parseLog } from "../../src/web/run_source.ts";
import { DrawDesk } from "../../src/web/worker/draw_desk.ts";
import { testGpu } from "../helpers/gpu.ts";
import { describeInBrowser, type OpenPage, openPage } from "./browser.ts";
import { enginePage } from "./engine_page/build.ts";
import { listStored, readStoredText } from "./opfs.ts";
import { serveFolder } from "./server.ts";

/** The smallest run that has everything: validation, samples and checkpoints on the way. */
const SMALL = `preset = "lora"
[data]
[[data.sets]]
path = "embedded"
items = ["taco", "sushi"]
styles = ["noto"]
[train]
steps = 8
batch = 1
validate_every = 0
validation_pictures = 1
[sample]
every = 0
items = 1
steps = 2
[save]
every = 2
`;
const STATES = ["finished", "failed", "stopped"];

const request = (name: string, more: Partial<StartRequest> = {}): StartRequest => ({
  command: "train",
  toml: SMALL,
  name,
  resume: false,
  ...more,
});

async function ready(url: string, options: Parameters<typeof openPage>[1] = {}): Promise<OpenPage> {
  const open = await openPage(url, options);
  await open.page.waitForFunction(() => document.title === "ready");
  return open;
}

/** Calls the engine; what it throws comes back as it is. */
async function call<K extends keyof Engine>(
  { page }: OpenPage,
  method: K,
  ...args: Parameters<Engine[K]>
): Promise<Awaited<ReturnType<Engine[K]>> | { error: WireError }> {
  return (await page.evaluate(
    async ([name, values]) => {
      try {
        return await (window.engine[name as keyof Engine] as (...all: unknown[]) => unknown)(...(values as unknown[]));
      } catch (error) {
        return { error };
      }
    },
    [method, args] as const,
  )) as never;
}

const events = ({ page }: OpenPage): Promise<EngineEvent[]> => page.evaluate(() => window.events);

/** Waits until `found` finds something in the events, and gives it. */
async function until<T>(open: OpenPage, what: string, found: (all: EngineEvent[]) => T | undefined): Promise<T> {
  for (let wait = 0; ; wait++) {
    const hit = found(await events(open));
    if (hit !== undefined) return hit;
    if (wait > 1500) throw new Error(`${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const stepOf = (all: EngineEvent[], run: string): number =>
  Math.max(0, ...all.flatMap((e) => (e.kind === "log" && e.run === run ? e.lines.map((l) => trained(l)) : [])));
const trained = (line: LogLine): number => (line.kind === "metric" && "loss" in line.values ? line.step : 0);
const statuses = (all: EngineEvent[], run: string) =>
  all.flatMap((e) => (e.kind === "status" && e.run === run ? [e.status] : []));

const reached = (open: OpenPage, run: string, step: number) =>
  until(open, `update ${step} of ${run}`, (all) => (stepOf(all, run) >= step ? true : undefined));
const ended = (open: OpenPage, run: string) =>
  until(open, `the end of ${run}`, (all) => statuses(all, run).find((s) => STATES.includes(s)));

/** Losses by update; where an update was repeated, its last. */
async function losses(open: OpenPage, run: string): Promise<Map<number, number>> {
  const lines = parseLog(await readStoredText(open.page, `runs/${run}/log.jsonl`));
  return new Map(
    lines.flatMap((l) => (l.kind === "metric" && "loss" in l.values ? [[l.step, l.values["loss"]!]] : [])),
  );
}

describeInBrowser("the engine in a browser's worker", () => {
  let page: Awaited<ReturnType<typeof enginePage>>;
  let url = "";
  beforeAll(async () => {
    page = await enginePage();
    url = (await serveFolder(page.folder)).url;
  });
  afterAll(() => page?.remove());

  test("draws the picture that the command line draws from the same seed", async () => {
    const drawing: DrawRequest = {
      run: null,
      prompts: ["noto icon of taco"],
      seed: 5,
      first: 0,
      strength: 1,
      steps: 6,
    };
    const open = await ready(url);
    const here = await open.page.evaluate(
      async (wanted) => (await window.engine.draw(wanted)).map((p) => ({ ...p, rgba: [...p.rgba] })),
      drawing,
    );
    await open.close();
    const gpu = await testGpu();
    const desk = new DrawDesk(new DiskFiles(), gpu);
    const there = await desk.draw(drawing);
    await desk.close();
    expect(here[0]!.width).toBe(there[0]!.width);
    const far = here[0]!.rgba.map((value, i) => Math.abs(value - there[0]!.rgba[i]!));
    const most = Math.max(...far);
    const mean = far.reduce((a, b) => a + b, 0) / far.length;
    console.log(`page and command line differ by at most ${most} of 255, ${mean.toFixed(3)} in the mean`);
    expect(most).toBeLessThanOrEqual(2);
    expect(mean).toBeLessThan(0.05);
  });

  test("trains to the same losses in one go, and with pauses, a lost device and a closed tab on the way", async () => {
    const first = await ready(url);
    expect(await call(first, "start", request("whole"))).toBeUndefined();
    expect(await ended(first, "whole")).toBe("finished");
    const expected = await losses(first, "whole");
    expect([...expected.keys()]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const stored = (await listStored(first.page, "runs/whole")).map(({ path }) => path);
    for (const name of ["whole.safetensors", "whole.kohya.safetensors", "report.html", "README.md", "config.toml"])
      expect(stored).toContain(`runs/whole/${name}`);

    await call(first, "start", request("broken"));
    await reached(first, "broken", 1);
    const paused = performance.now();
    await call(first, "pause");
    await until(first, "a pause", (all) => (statuses(all, "broken").at(-1) === "paused" ? true : undefined));
    console.log(`paused ${(performance.now() - paused).toFixed(0)} ms after the button`);
    // Lines of updates before the pause are told a moment later.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const before = stepOf(await events(first), "broken");
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(stepOf(await events(first), "broken")).toBe(before);
    await call(first, "step", 1);
    await reached(first, "broken", before + 1);
    await until(first, "a second pause", (all) => (statuses(all, "broken").at(-1) === "paused" ? true : undefined));
    expect(stepOf(await events(first), "broken")).toBeLessThanOrEqual(before + 2);
    await call(first, "resume");
    await reached(first, "broken", 3);
    await call(first, "loseDevice");
    const lost = await until(first, "news of the loss", (all) => all.find((e) => e.kind === "device-lost"));
    expect(lost).toMatchObject({ run: "broken", recovering: true });
    await until(first, "the run to go on", (all) => {
      const after = all.slice(all.findIndex((e) => e.kind === "device-lost"));
      return stepOf(after, "broken") >= 3 ? true : undefined;
    });
    // As a browser that crashes: nothing of the page is asked.
    await first.close({ keepContext: true });

    const second = await ready(url, { context: first.context });
    const facts = await call(second, "storage");
    expect(facts).toMatchObject({
      runs: [
        { name: "broken", state: "running" },
        { name: "whole", state: "finished" },
      ],
    });
    await call(second, "start", request("broken", { resume: true }));
    expect(await ended(second, "broken")).toBe("finished");
    expect(await losses(second, "broken")).toEqual(expected);
    await second.close();
  }, 600_000);

  test("lets one tab at a time write a run, and says so to the other", async () => {
    const one = await ready(url);
    // Far more updates than the other tab takes to come up.
    await call(one, "start", request("mine", { toml: SMALL.replace("steps = 8", "steps = 400") }));
    const other = await ready(url, { context: one.context });
    expect(await call(other, "start", request("mine", { resume: true }))).toMatchObject({
      error: { code: "E-RUN-015" },
    });
    expect(await call(one, "start", request("second"))).toMatchObject({ error: { code: "E-RUN-016" } });
    await call(one, "stop");
    expect(await ended(one, "mine")).toBe("stopped");
    await other.close({ keepContext: true });
    await one.close();
  });

  test("leaves a run alone when the device reports an error in a drawing beside it, and draws again afterwards", async () => {
    const open = await ready(url, { expected: [/WriteBuffer|buffer/i] });
    await call(open, "start", request("beside"));
    await reached(open, "beside", 1);
    await call(open, "pause");
    await until(open, "a pause", (all) => (statuses(all, "beside").at(-1) === "paused" ? true : undefined));
    const drawn = () =>
      call(open, "draw", { run: null, prompts: ["noto icon of taco"], seed: 5, first: 0, strength: 1, steps: 1 });
    const [worker] = open.page.workers();
    // While the run is paused the drawing alone writes to its device; beside each write is one that WebGPU does not allow.
    await worker!.evaluate(() => {
      const { writeBuffer } = GPUQueue.prototype;
      const spoilt = function (this: GPUQueue, buffer: GPUBuffer, ...rest: [number, GPUAllowSharedBufferSource]) {
        writeBuffer.call(this, buffer, buffer.size, new Uint8Array(4));
        writeBuffer.call(this, buffer, ...rest);
      };
      Object.assign(globalThis, { repair: () => Object.assign(GPUQueue.prototype, { writeBuffer }) });
      Object.assign(GPUQueue.prototype, { writeBuffer: spoilt });
    });
    expect(await drawn()).toMatchObject({ error: { code: "E-NUM-090" } });
    await worker!.evaluate(() => (globalThis as unknown as { repair(): void }).repair());
    expect(await drawn()).toMatchObject([{ width: 64, height: 64 }]);
    await call(open, "resume");
    expect(await ended(open, "beside")).toBe("finished");
    await open.close();
  });

  test("draws with what a paused run has learnt, and with the same when it was stopped there", async () => {
    const open = await ready(url);
    await call(open, "previews", true);
    await call(open, "start", request("half"));
    await reached(open, "half", 1);
    // The samples before training took shape before they were there.
    const all = await events(open);
    const isSample = (e: EngineEvent) => e.kind === "log" && e.lines.some(({ kind }) => kind === "sample");
    const first = all.find((e) => e.kind === "preview");
    expect(first).toMatchObject({ run: "half", step: 0, done: 1, total: 2, pictures: [{ index: 0, width: 64 }] });
    expect(all.indexOf(first!)).toBeLessThan(all.findIndex(isSample));
    await call(open, "step", 2);
    await until(open, "a pause", (all) => (statuses(all, "half").at(-1) === "paused" ? true : undefined));
    const drawn = (strength: number) =>
      open.page.evaluate(
        async (much) => {
          const prompts = ["noto icon of taco"];
          const request = { run: "half", prompts, seed: 5, first: 0, strength: much, steps: 2 };
          const [picture] = await window.engine.draw(request);
          return { step: picture!.step, rgba: [...picture!.rgba].join() };
        },
        // Two updates change little; exaggerated they show.
        strength,
      );
    const paused = await drawn(20);
    const { rgba: without } = await drawn(0);
    expect(paused.step).toBeGreaterThanOrEqual(2);
    expect(paused.rgba).not.toBe(without);
    await call(open, "stop");
    expect(await ended(open, "half")).toBe("stopped");
    const stored = (await listStored(open.page, "runs/half/ckpt")).map(({ path }) => path);
    expect(stored.some((path) => path.includes(`step-${String(paused.step).padStart(6, "0")}/`))).toBe(true);
    expect(await drawn(20)).toEqual(paused);
    await open.close();
  });

  test("refuses a configuration with the words of the command line", async () => {
    const open = await ready(url);
    await call(open, "start", request("wrong", { toml: `${SMALL}\n[adapter]\nrnak = 4\n` }));
    expect(await ended(open, "wrong")).toBe("failed");
    const failed = (await events(open)).find((e) => e.kind === "status" && e.status === "failed");
    expect(failed).toMatchObject({
      error: { code: "E-CFG-001", what: expect.stringContaining("rnak"), where: "config.toml line 20" },
    });
    expect(await call(open, "pause")).toMatchObject({ error: { code: "E-RUN-017" } });
    await open.close();
  });
});
