// The worker's side without a browser around it: how runs begin, end and take one another's place, whatever is pressed meanwhile.
// What computes is left out; the engine in a real worker is tested in engine.test.ts.

import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import type { EngineEvent, StartRequest } from "../../src/web/protocol.ts";
import { PageEngine } from "../../src/web/worker/engine.ts";
import { RunJob } from "../../src/web/worker/run_job.ts";

const request = (name: string): StartRequest => ({ command: "train", toml: 'preset = "lora"\n', name, resume: false });
const lost = () => new LongtailError("E-MEM-002", { what: "the GPU device was lost" });
/** Until as many runs have begun to compute. */
const begun = (count: number) => expect.poll(() => parts.length).toBe(count);

/** A run's part that computes, in the hands of a test. */
interface Part {
  job: RunJob;
  end: (error?: unknown) => void;
}

let parts: Part[] = [];

beforeEach(() => {
  parts = [];
  const limits = {
    maxStorageBuffersPerShaderStage: 8,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupStorageSize: 16384,
  };
  const device = { lost: new Promise(() => {}), destroy() {} };
  const adapter = { features: new Set(), limits, info: {}, requestDevice: async () => device };
  const locked = (_name: string, _options: unknown, work: (lock: object) => unknown) => Promise.resolve(work({}));
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => adapter }, locks: { request: locked } });
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no network")));
  vi.spyOn(RunJob.prototype, "run").mockImplementation(function (this: RunJob) {
    return new Promise((resolve) => {
      const end = (error?: unknown) => {
        if (!error) this.tell("finished");
        resolve(error);
      };
      parts.push({ job: this, end });
    });
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** Until a run's end is through, and its buttons have nothing to act on any more. */
const isFree = (engine: PageEngine) =>
  expect.poll(() => engine.pause().then(null, ({ code }) => code)).toBe("E-RUN-017");

it("of two starts at once takes one, and can take another when that has ended", async () => {
  const engine = new PageEngine("https://page.test/");
  const starts = await Promise.allSettled([engine.start(request("one")), engine.start(request("two"))]);
  expect(starts.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
  expect(starts[1]).toMatchObject({ reason: { code: "E-RUN-016", where: "one" } });
  await begun(1);
  parts[0]!.end();
  // At once, as a page does that goes on when it hears of the end.
  await engine.start(request("two"));
  await begun(2);
  expect(parts.map(({ job }) => job.request.name)).toEqual(["one", "two"]);
});

it("takes up a run whose device was lost, paused where it was, and is free when that has ended", async () => {
  const engine = new PageEngine("https://page.test/");
  await engine.start(request("one"));
  await begun(1);
  await engine.pause();
  parts[0]!.end(lost());
  await begun(2);
  const { job, end } = parts[1]!;
  expect(job.request).toMatchObject({ name: "one", resume: true });
  expect(job.control.isPaused).toBe(true);
  await engine.resume();
  expect(job.control.isPaused).toBe(false);
  end();
  await isFree(engine);
  await engine.start(request("two"));
});

it("does not take up a run that was being stopped", async () => {
  const engine = new PageEngine("https://page.test/");
  await engine.start(request("one"));
  await begun(1);
  await engine.stop();
  parts[0]!.end(lost());
  await isFree(engine);
  expect(parts).toHaveLength(1);
});

/** A run's job with what it tells of its state. */
function jobOf(): { job: RunJob; told: string[] } {
  const told: string[] = [];
  const post = (event: EngineEvent) => {
    if (event.kind === "status") told.push(event.status);
  };
  return { job: new RunJob({ files: new DiskFiles(), request: request("never"), post }), told };
}

it("a run that is stopped before it begins ends there, and is not called running", async () => {
  vi.restoreAllMocks();
  const { job, told } = jobOf();
  job.stop();
  expect(await job.run({ facts: { software: true } } as Gpu)).toMatchObject({ code: "E-RUN-001" });
  expect(told).toEqual(["stopping", "stopped"]);
  expect(job.isOver).toBe(true);
});

it("a paused run that is stopped wakes up to save, and is not called running", async () => {
  const { job, told } = jobOf();
  job.control.hold();
  const gate = job.control.gate(new AbortController().signal);
  await expect.poll(() => told).toEqual(["paused"]);
  job.stop();
  await gate;
  expect(told).toEqual(["paused", "stopping"]);
});
