// Collects what doctor reports: environment, both WebGPU implementations, disk, self-tests, and the problems that follow.

import { dirname, join, resolve } from "node:path";
import { LongtailError, nearestName } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { type AdapterFacts, adapterFacts, type Gpu, openDevice } from "../../gpu/device.ts";
import { type GpuBackend, openGpu } from "../../platform/adapters.ts";
import { type EnvironmentFacts, environmentFacts } from "../../platform/environment.ts";
import { rest } from "../../platform/rest.ts";
import type { CommandContext } from "../command.ts";
// Adds the kernels to the self-tests.
import "../align/speed.ts";
import { type SelfTest, type SelfTestResult, selfTests } from "../self_tests.ts";
import { diskProblems, environmentProblems, gpuProblems, selfTestProblems } from "./problems.ts";

export const BACKENDS = ["dawn", "deno"] as const;

/** Limits that decide what fits. */
export const LIMITS_THAT_MATTER = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

export interface BackendReport {
  backend: GpuBackend;
  /** Null where there is no adapter. */
  facts: AdapterFacts | null;
  limits: Record<string, number>;
  /** Why there is no adapter, or why its device could not be opened. */
  error: { code: string; text: string } | null;
}

export interface DiskReport {
  path: string;
  freeBytes: number | null;
  writeBytesPerSecond: number | null;
  error: { code: string; text: string } | null;
}

export interface Problem {
  /** error: a run could not start or would be wrong; warning: it would be slower or smaller. */
  level: "error" | "warning";
  code: string;
  what: string;
  fix: string;
}

export interface DoctorReport {
  environment: EnvironmentFacts;
  /** The implementation that was tested in depth. */
  backend: GpuBackend;
  backends: BackendReport[];
  disk: DiskReport;
  selfTests: ({ name: string; seconds: number } & SelfTestResult)[];
  problems: Problem[];
}

/** What doctor asks the machine; tests answer in its place. */
export interface Machine {
  openGpu: typeof openGpu;
  openDevice(gpu: GPU): Promise<Gpu>;
  environment(): Promise<EnvironmentFacts>;
  selfTests(gpu: Gpu): Promise<SelfTest[]>;
  now(): number;
}

const THIS_MACHINE: Machine = {
  openGpu,
  openDevice: (gpu) => openDevice(gpu, { rest: gpu === globalThis.navigator?.gpu ? undefined : rest }),
  environment: environmentFacts,
  selfTests,
  now: () => performance.now() / 1000,
};

/** Bytes written to measure the disk: enough to leave the drive's own cache behind, little enough for a slow one. */
const PROBE_BYTES = 64 * 2 ** 20;
const PROBE_CHUNK = 4 * 2 ** 20;

/** Examines the machine. Only a wrong --gpu throws (E-ARG-007); everything found wrong is in `problems`. */
export async function examine(context: CommandContext, machine: Machine = THIS_MACHINE): Promise<DoctorReport> {
  const { flags } = context.arguments;
  const backend = backendOf(flags.gpu);
  const folder = typeof flags.folder === "string" ? flags.folder : "runs";
  const phases = BACKENDS.length + 3;
  let done = 0;
  const step = (note: string) =>
    context.emit({ kind: "phase", name: "examining", done: done++, total: phases, unit: "checks", note });

  step("runtime");
  const environment = await machine.environment();
  const backends: BackendReport[] = [];
  for (const one of BACKENDS) {
    step(one);
    backends.push(await examineBackend(one, machine));
  }
  step("disk");
  const disk = await examineDisk(context.files, folder, machine);
  step("kernels");
  const tested = await runSelfTests(backend, backends, machine, context);
  context.emit({ kind: "phase", name: "examining", done: phases, total: phases, unit: "checks" });
  const problems = [
    ...environmentProblems(environment),
    ...gpuProblems(backends, backend, environment),
    ...diskProblems(disk),
    ...selfTestProblems(tested),
  ];
  return { environment, backend, backends, disk, selfTests: tested, problems };
}

function backendOf(flag: string | true | undefined): GpuBackend {
  if (flag === undefined) return "dawn";
  if (flag === "dawn" || flag === "deno") return flag;
  const near = nearestName(String(flag), BACKENDS);
  throw new LongtailError("E-ARG-007", {
    where: "--gpu",
    what: `${JSON.stringify(flag)} is no WebGPU implementation`,
    fix: near ? `did you mean ${near}?` : "use dawn or deno",
  });
}

const errorParts = (error: unknown) =>
  error instanceof LongtailError
    ? { code: error.code, text: error.message }
    : { code: "E-ENV-039", text: `E-ENV-039 ${error instanceof Error ? error.message : String(error)}` };

async function examineBackend(backend: GpuBackend, machine: Machine): Promise<BackendReport> {
  try {
    const gpu = await machine.openGpu({ backend, robust: false });
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) {
      return {
        backend,
        facts: null,
        limits: {},
        error: { code: "E-ENV-001", text: "E-ENV-001 no WebGPU adapter was found" },
      };
    }
    const limits: Record<string, number> = {};
    for (const name of LIMITS_THAT_MATTER)
      limits[name] = Number((adapter.limits as unknown as Record<string, number>)[name] ?? 0);
    return { backend, facts: adapterFacts(adapter), limits, error: null };
  } catch (error) {
    return { backend, facts: null, limits: {}, error: errorParts(error) };
  }
}

async function examineDisk(files: FileStore, folder: string, machine: Machine): Promise<DiskReport> {
  // The folder of runs may not exist yet, and doctor leaves nothing behind: the nearest one that exists is measured.
  let place = resolve(folder);
  while (!(await files.exists(place)) && dirname(place) !== place) place = dirname(place);
  const freeBytes = await files.freeSpace(place);
  const report: DiskReport = { path: folder, freeBytes, writeBytesPerSecond: null, error: null };
  if (freeBytes !== null && freeBytes < 2 * PROBE_BYTES) return report;
  const probe = join(place, ".longtail-write-probe");
  const chunk = new Uint8Array(PROBE_CHUNK).map((_, i) => (i * 2654435761) >>> 24);
  try {
    const start = machine.now();
    await files.writeAtomic(
      probe,
      Array.from({ length: PROBE_BYTES / PROBE_CHUNK }, () => chunk),
    );
    report.writeBytesPerSecond = PROBE_BYTES / Math.max(1e-6, machine.now() - start);
  } catch (error) {
    report.error = errorParts(error);
  } finally {
    await files.remove(probe).catch(() => {});
  }
  return report;
}

async function runSelfTests(
  backend: GpuBackend,
  backends: BackendReport[],
  machine: Machine,
  context: CommandContext,
): Promise<DoctorReport["selfTests"]> {
  const report = backends.find((one) => one.backend === backend)!;
  if (!report.facts) return [];
  let device: Gpu | null = null;
  const results: DoctorReport["selfTests"] = [];
  try {
    device = await machine.openDevice(await machine.openGpu({ backend, robust: false }));
    for (const test of await machine.selfTests(device)) {
      if (context.signal.aborted) break;
      const start = machine.now();
      const result = await test.run().catch((error: unknown) => ({ ok: false, error: errorParts(error).text }));
      results.push({ name: test.name, seconds: machine.now() - start, ...result });
    }
    device.check();
  } catch (error) {
    report.error = errorParts(error);
  } finally {
    device?.close();
  }
  return results;
}
