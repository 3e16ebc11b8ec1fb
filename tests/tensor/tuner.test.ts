// The tuner: what it measures and for how long, what it remembers for whom, and that no variant is chosen whose result is
// wrong. Drivers that compile a kernel wrongly are made up by changing its text on the way to the device.

import { afterEach, describe, expect, it, vi } from "vitest";
import type { Gpu } from "../../src/gpu/device.ts";
import { subgroupLanes, vectorLanes } from "../../src/gpu/kernel_limits.ts";
import { linear } from "../../src/ops/matmul.ts";
import { chooseFromLadder } from "../../src/runs/align/ladder.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import { projectSources } from "../../src/runs/project.ts";
import { buildTuned } from "../../src/runs/tuning.ts";
import { Executable } from "../../src/tensor/executable.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { chooseFrom, tune } from "../../src/tensor/tuner.ts";
import { MemoryFiles, NodeFiles } from "../helpers/files.ts";
import { noise, testGpu } from "../helpers/gpu.ts";

async function plannedProduct(choices = {}) {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu, chooseFrom(choices)));
  const [x, w] = [session.data("x", [96, 64]), session.data("w", [128, 64])];
  const y = session.data("y", [96, 128]);
  const plan = session.plan("product", (graph) => graph.assign(y, linear(graph.read(x), graph.read(w))));
  return { gpu, session, plan };
}

describe("the kernel tuner", () => {
  it("measures each choice once, names only variants that the adapter can run, and skips what is known", async () => {
    const { gpu, session, plan } = await plannedProduct();
    const asked = plan.lowered.choices;
    expect(asked).toHaveLength(1);
    const first = await tune(gpu, session.target, [plan], {}, 60);
    const [key, name] = Object.entries(first.measured)[0]!;
    expect(key).toBe(`matmul|${asked[0]!.key}`);
    expect(["", ...asked[0]!.variants]).toContain(name);
    const second = await tune(gpu, session.target, [plan], first.measured, 60);
    expect(second.measured).toEqual({});
  });

  it("leaves choices for later when its budget is spent", async () => {
    const { gpu, session, plan } = await plannedProduct();
    const report = await tune(gpu, session.target, [plan], {}, -1);
    expect(report).toMatchObject({ measured: {}, left: 1 });
  });

  it("makes plans use what was chosen, and ignores a variant that this adapter does not have", async () => {
    const { plan } = await plannedProduct();
    const key = `matmul|${plan.lowered.choices[0]!.key}`;
    const tiled = await plannedProduct({ [key]: "tiled_32x32x16" });
    expect(tiled.plan.lowered.calls[0]!.source).toContain("var<workgroup>");
    const unknown = await plannedProduct({ [key]: "of another version" });
    expect(unknown.plan.lowered.calls[0]!.constants).toEqual(plan.lowered.calls[0]!.constants);
  });
});

afterEach(() => void vi.restoreAllMocks());

/** Runs `body` while every kernel's text goes through `change` on its way to the device. */
async function withDriver<T>({ device }: Gpu, change: (code: string) => string, body: () => Promise<T>): Promise<T> {
  const create = device.createShaderModule.bind(device);
  Object.defineProperty(device, "createShaderModule", {
    configurable: true,
    value: (descriptor: GPUShaderModuleDescriptor) => create({ ...descriptor, code: change(descriptor.code) }),
  });
  try {
    return await body();
  } finally {
    Reflect.deleteProperty(device, "createShaderModule");
  }
}

const LANES = vectorLanes(targetOf(await testGpu()).kernels);
const FAST = `direct_32x4x${LANES}_broadcast`;
const withBroadcasts = it.runIf(subgroupLanes(targetOf(await testGpu()).kernels) > 0);
/** What a driver that loses half of every sum in kernels with subgroup operations makes of them. */
const wrongBroadcasts = (code: string) =>
  /subgroupBroadcast\(/.test(code) ? code.replace("var v = sum;", "var v = 0.5 * sum;") : code;

/** Tunes a product whose default is `slow`, on a clock by which `FAST` takes a millisecond and everything else ten. */
async function tuneSlowDefault(slow: string, change: (code: string) => string = (code) => code) {
  const gpu = await testGpu();
  const target: Target = targetOf(gpu, (_, __, variants) => (variants.includes(slow) ? slow : null));
  const session = new Session(target);
  const [x, w] = [session.data("x", [256, 256]), session.data("w", [256, 256])];
  const y = session.data("y", [256, 256]);
  const plan = session.plan("product", (graph) => graph.assign(y, linear(graph.read(x), graph.read(w))));
  let clock = 0;
  vi.spyOn(performance, "now").mockImplementation(() => clock);
  const replay = Executable.prototype.replay;
  vi.spyOn(Executable.prototype, "replay").mockImplementation(function (this: Executable) {
    replay.call(this);
    // Tiles of 32 rows and of four columns a lane make so many workgroups of 256x256 values; no other variant does.
    const { grids } = this as unknown as { grids: Uint32Array };
    clock += grids[0]! * grids[1]! === 512 / LANES ? 1 : 10;
  });
  const report = await withDriver(gpu, change, () => tune(gpu, target, [plan], {}, 600));
  vi.restoreAllMocks();
  return { name: Object.values(report.measured)[0], faulty: report.faulty.map(({ name }) => name) };
}

describe("a driver that compiles variants wrongly", () => {
  withBroadcasts("does not get them, however fast they are", async () => {
    expect(await tuneSlowDefault("direct_1x1x8")).toEqual({ name: FAST, faulty: [] });
    const wrong = await tuneSlowDefault("direct_1x1x8", wrongBroadcasts);
    expect(wrong.name).not.toBe(FAST);
    expect(wrong.faulty).toEqual([FAST]);
  });

  withBroadcasts("gives up a default that is wrong, also for a slower kernel", async () => {
    const { name, faulty } = await tuneSlowDefault(`direct_16x4x${LANES}_broadcast`, wrongBroadcasts);
    expect(name).toBe("tiled_64x64x16");
    expect(faulty).toEqual([""]);
  });

  withBroadcasts("is named in a warning of the run, whose products are right", async () => {
    const gpu = await testGpu();
    const codes: string[] = [];
    // A busy machine would spend the budget first.
    vi.spyOn(performance, "now").mockReturnValue(0);
    const values = await withDriver(gpu, wrongBroadcasts, async () => {
      const { world } = await tunedProduct(gpu, new MemoryFiles(), (code) => codes.push(code));
      const { session, x, w, y, plan } = world;
      await session.open(gpu);
      session.write(x, Float32Array.from(noise(x.size, 1)));
      session.write(w, Float32Array.from(noise(w.size, 2)));
      session.run(plan);
      const result = await session.read(y);
      session.close();
      return result;
    });
    expect(codes).toEqual(["E-ENV-062"]);
    const [a, b] = [noise(96 * 64, 1), noise(128 * 64, 2)];
    const first = Array.from({ length: 64 }, (_, k) => a[k]! * b[k]!).reduce((s, v) => s + v, 0);
    expect(values[0]).toBeCloseTo(first, 4);
  });
});

/** A run's world of one product, with kernels as a run chooses them. */
async function tunedProduct(
  gpu: Gpu,
  files: MemoryFiles,
  warn: (code: string) => void = () => {},
  tuner: "on" | "off" = "on",
  fixed?: Record<string, string>,
) {
  const { config } = await loadConfig({ source: "lora" }, projectSources(new NodeFiles()));
  const build = (target: Target) => {
    const session = new Session(target);
    const [x, w] = [session.data("x", [96, 64]), session.data("w", [128, 64])];
    const y = session.data("y", [96, 128]);
    const plan = session.plan("product", (graph) => graph.assign(y, linear(graph.read(x), graph.read(w))));
    return Promise.resolve({ session, x, w, y, plan });
  };
  return await buildTuned(files, { ...config, device: { ...config.device, tuner } }, gpu, build, {
    tables: "tables",
    emit: (event) => event.kind === "warning" && warn(event.code),
    fixed,
  });
}

describe("what a run remembers of kernels", () => {
  it("belongs to an adapter and its driver, and is measured anew for others and where the table is damaged", async () => {
    const gpu = await testGpu();
    const files = new MemoryFiles();
    const texts = async (other: Gpu = gpu) => (await tunedProduct(other, files)).text;
    expect(await texts()).toMatch(/^kernels: 1 shapes measured/);
    expect(await texts()).toMatch(/^kernels: 1 choices remembered/);
    const newer = { ...gpu, facts: { ...gpu.facts, key: `${gpu.facts.key}, a newer driver` } };
    expect(await texts(newer)).toMatch(/^kernels: 1 shapes measured/);
    expect(await texts(newer)).toMatch(/^kernels: 1 choices remembered/);
    expect(files.content.size).toBe(2);
    for (const path of files.content.keys()) await files.writeAtomic(path, "{");
    expect(await texts()).toMatch(/^kernels: 1 shapes measured/);
  });

  it("is not asked where the tuner is off or a run goes on: those choices are the same every time", async () => {
    const gpu = await testGpu();
    const files = new MemoryFiles();
    expect((await tunedProduct(gpu, files, () => {}, "off")).choices).toEqual({});
    const fixed = { "matmul|of a run": "tiled_32x32x16" };
    expect((await tunedProduct(gpu, files, () => {}, "on", fixed)).choices).toBe(fixed);
    expect(files.content.size).toBe(0);
    // Devices of tests have no tuner: their targets answer with defaults.
    expect(targetOf(gpu).choose("matmul", "any", ["tiled_32x32x16"])).toBe(null);
  });
});

describe("the time of tuning", () => {
  it("goes to the costliest shapes first and ends after the variant in which the budget is spent", async () => {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const [x, small, large] = [session.data("x", [64, 32]), session.data("s", [16, 32]), session.data("l", [96, 32])];
    const [y, z] = [session.data("y", [64, 16]), session.data("z", [64, 96])];
    const plan = session.plan("products", (graph) => {
      graph.assign(y, linear(graph.read(x), graph.read(small)));
      graph.assign(z, linear(graph.read(x), graph.read(large)));
    });
    // Time stands still, but for two seconds that each compilation takes.
    let seconds = 0;
    vi.spyOn(performance, "now").mockImplementation(() => 1000 * seconds);
    let compiled = 0;
    const slowly = (code: string) => {
      compiled++;
      seconds += 2;
      return code;
    };
    const report = await withDriver(gpu, slowly, () => tune(gpu, session.target, [plan], {}, 3));
    expect(compiled).toBe(2);
    const { key } = plan.lowered.choices[1]!;
    expect(Object.keys(report.measured)).toEqual([`matmul|${key}`]);
    expect(report.left).toBe(1);
    expect(report.seconds).toBe(4);
  });
});

describe("the ladder of updates", () => {
  it("takes the longest rung that fits two minutes, and the shortest where none does", () => {
    const perUpdate = 56e9;
    expect(chooseFromLadder([40, 80, 160], 10e9, perUpdate).steps).toBe(40);
    expect(chooseFromLadder([40, 80, 160], 25e9, perUpdate).steps).toBe(40);
    expect(chooseFromLadder([40, 80, 160], 40e9, perUpdate).steps).toBe(80);
    expect(chooseFromLadder([40, 80, 160], 4e12, perUpdate).steps).toBe(160);
  });
});
