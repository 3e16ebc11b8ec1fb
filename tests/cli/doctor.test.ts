// doctor on machines that a test makes up: what it reports, which fixes it names, its exit code.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/base/events.ts";
import type { CommandContext } from "../../src/cli/command.ts";
import { examine, type Machine } from "../../src/cli/doctor/examine.ts";
import { doctorText } from "../../src/cli/doctor/text.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { EnvironmentFacts } from "../../src/platform/environment.ts";
import { DiskFiles } from "../../src/platform/files.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-doctor-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const environment: EnvironmentFacts = {
  longtail: "0.1.0",
  commit: null,
  runtime: { name: "deno", version: "2.9.6", v8: "15", node: "26" },
  dawn: "0.6.2",
  system: { platform: "linux", release: "6", name: "Debian", arch: "x64", container: true },
  processor: { model: "test", cores: 2 },
  memory: { total: 16e9, available: 12e9 },
  variables: {},
  setupError: null,
};

const limits = {
  maxBufferSize: 4 * 2 ** 30,
  maxStorageBufferBindingSize: 2 ** 31,
  maxStorageBuffersPerShaderStage: 10,
  maxComputeWorkgroupStorageSize: 32768,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupsPerDimension: 65535,
};

const adapterOf = (device: string, features: string[]) =>
  ({
    info: { vendor: "test", architecture: "", device, description: `${device} driver 1.2` },
    features: new Set(features),
    limits,
  }) as unknown as GPUAdapter;

const gpuOf = (adapter: GPUAdapter | null) => ({ requestAdapter: () => Promise.resolve(adapter) }) as unknown as GPU;

function machine(changes: Partial<Machine> = {}): Machine {
  let time = 0;
  return {
    openGpu: () => Promise.resolve(gpuOf(adapterOf("Fast Card", ["shader-f16", "subgroups", "timestamp-query"]))),
    openDevice: () => Promise.resolve({ check: () => {}, close: () => {} } as unknown as Gpu),
    environment: () => Promise.resolve(environment),
    selfTests: () =>
      Promise.resolve([{ name: "matmul", run: () => Promise.resolve({ ok: true, error: 1e-6, gflops: 123.4 }) }]),
    now: () => (time += 0.5),
    ...changes,
  };
}

function context(flags: Record<string, string> = {}): CommandContext & { events: RunEvent[] } {
  const events: RunEvent[] = [];
  return {
    arguments: { flags: { folder, ...flags } },
    emit: (event: RunEvent) => events.push(event),
    files: new DiskFiles(),
    signal: new AbortController().signal,
    events,
  } as unknown as CommandContext & { events: RunEvent[] };
}

describe("doctor", () => {
  it("finds nothing to complain about on a good machine and leaves nothing on its disk", async () => {
    const report = await examine(context(), machine());
    expect(report.problems).toEqual([]);
    expect(report.disk.writeBytesPerSecond).toBeGreaterThan(0);
    expect(readdirSync(folder)).toEqual([]);
    const text = doctorText(report, 80);
    expect(text).toContain("Fast Card");
    expect(text).toContain("123");
    expect(text).toContain("No problems found.");
    for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  it("names the fix for a missing adapter in a container", async () => {
    const report = await examine(context(), machine({ openGpu: () => Promise.resolve(gpuOf(null)) }));
    const [problem] = report.problems;
    expect(problem).toMatchObject({ level: "error", code: "E-ENV-001" });
    expect(problem!.fix).toContain("NVIDIA_DRIVER_CAPABILITIES");
    expect(report.selfTests).toEqual([]);
  });

  it("points to the other implementation where Dawn cannot be loaded", async () => {
    const report = await examine(
      context(),
      machine({
        openGpu: ({ backend }) =>
          backend === "dawn"
            ? Promise.reject(new LongtailError("E-ENV-030", { what: "Dawn cannot be loaded" }))
            : Promise.resolve(gpuOf(adapterOf("Fast Card", ["shader-f16"]))),
      }),
    );
    expect(report.problems[0]).toMatchObject({
      level: "error",
      code: "E-ENV-030",
      fix: "use --gpu=deno, which works here",
    });
  });

  it("welcomes a software adapter by name and notes missing f16", async () => {
    const report = await examine(
      context(),
      machine({ openGpu: () => Promise.resolve(gpuOf(adapterOf("llvmpipe", []))) }),
    );
    expect(report.problems.map(({ level, code }) => `${level} ${code}`)).toEqual([
      "warning E-ENV-053",
      "warning E-ENV-054",
    ]);
    expect(doctorText(report)).toContain("software: computes on the CPU");
  });

  it("reports a wrong kernel and one that throws", async () => {
    const report = await examine(
      context(),
      machine({
        selfTests: () =>
          Promise.resolve([
            { name: "matmul", run: () => Promise.resolve({ ok: false, error: 0.3 }) },
            { name: "conv2d", run: () => Promise.reject(new Error("no pipeline")) },
          ]),
      }),
    );
    expect(report.problems.map(({ code }) => code)).toEqual(["E-NUM-091", "E-NUM-091"]);
    expect(report.problems[0]!.what).toContain("3.0e-1");
    expect(doctorText(report)).toContain("WRONG");
  });

  it("tells little memory, an old runtime, an unfinished set-up and a full disk", async () => {
    const files = new DiskFiles();
    files.freeSpace = () => Promise.resolve(5e6);
    const one = context();
    one.files = files;
    const report = await examine(
      one,
      machine({
        environment: () =>
          Promise.resolve({
            ...environment,
            setupError: "no network",
            runtime: { ...environment.runtime, version: "2.1.0" },
            memory: { total: 2e9, available: 1e9 },
          }),
      }),
    );
    expect(report.problems.map(({ code }) => code)).toEqual(["E-ENV-050", "E-ENV-051", "E-ENV-052", "E-ENV-020"]);
    for (const { fix } of report.problems) expect(fix.length).toBeGreaterThan(10);
  });

  it("refuses an unknown implementation with a hint", async () => {
    await expect(examine(context({ gpu: "dwan" }), machine())).rejects.toThrow(/E-ARG-007 .*did you mean dawn\?/);
  });

  it("shows its phases", async () => {
    const one = context();
    await examine(one, machine());
    expect(one.events.at(-1)).toMatchObject({ kind: "phase", done: 5, total: 5 });
  });
});
