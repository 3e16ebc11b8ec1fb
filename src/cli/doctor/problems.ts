// What doctor's findings mean: each problem with its stable code and the one thing to do about it.

import { bytes } from "../../evaluation/format.ts";
import type { GpuBackend } from "../../platform/adapters.ts";
import type { EnvironmentFacts } from "../../platform/environment.ts";
import type { BackendReport, DiskReport, DoctorReport, Problem } from "./examine.ts";

/** Deno from this version on has everything that is used of it. */
const OLDEST_DENO = [2, 9] as const;
/** Device memory and resident memory of the embedded experiment together, rounded up. */
const NEEDED_MEMORY = 3 * 2 ** 30;
/** A run folder of the embedded experiment: two checkpoints with optimizer state, weights, pictures. */
const NEEDED_DISK = 2 ** 30;
/** Slower disks make a checkpoint of the embedded model take longer than an update. */
const SLOW_DISK = 20e6;
/** The largest matrix of the embedded model and of FLUX.1 in 16 bits fits below this. */
const SMALL_BINDING = 128 * 2 ** 20;

export function environmentProblems(environment: EnvironmentFacts): Problem[] {
  const problems: Problem[] = [];
  if (environment.setupError) {
    problems.push({
      level: "warning",
      code: "E-ENV-050",
      what: `the set-up could not finish: ${environment.setupError}`,
      fix: "correct that and run npm start again",
    });
  }
  if (environment.runtime.name === "deno") {
    const [major = 0, minor = 0] = environment.runtime.version.split(".").map(Number);
    if (major < OLDEST_DENO[0] || (major === OLDEST_DENO[0] && minor < OLDEST_DENO[1])) {
      problems.push({
        level: "error",
        code: "E-ENV-051",
        what: `Deno ${environment.runtime.version} is too old`,
        fix: "run npm ci, which brings the right one, and start through npx longtail",
      });
    }
  }
  if (environment.memory.available < NEEDED_MEMORY) {
    problems.push({
      level: "warning",
      code: "E-ENV-052",
      what: `${bytes(environment.memory.available)} of memory are available`,
      fix: `the embedded experiment wants ${bytes(NEEDED_MEMORY)} on a software GPU: close other programs`,
    });
  }
  return problems;
}

const adapterFix = (environment: EnvironmentFacts) => {
  if (environment.system.platform === "linux") {
    return environment.system.container
      ? "give the container the GPU and its Vulkan driver (on NVIDIA: NVIDIA_DRIVER_CAPABILITIES=all), or start through npm start, which sets up a software GPU"
      : "install the GPU's Vulkan driver (mesa-vulkan-drivers for AMD and Intel, NVIDIA's own), or start through npm start, which sets up a software GPU";
  }
  if (environment.system.platform === "win32") return "install the graphics driver of the GPU's maker; D3D12 is needed";
  return "update macOS; Metal is needed";
};

export function gpuProblems(
  backends: readonly BackendReport[],
  chosen: GpuBackend,
  environment: EnvironmentFacts,
): Problem[] {
  const main = backends.find(({ backend }) => backend === chosen)!;
  const other = backends.find(({ backend }) => backend !== chosen);
  const problems: Problem[] = [];
  if (main.error) {
    const missing = main.error.code === "E-ENV-001";
    problems.push({
      level: "error",
      code: main.error.code,
      what: main.error.text.replace(`${main.error.code} `, ""),
      fix: missing
        ? adapterFix(environment)
        : other?.facts
          ? `use --gpu=${other.backend}, which works here`
          : "see the line above",
    });
  }
  if (!main.facts) return problems;
  const { facts, limits } = main;
  if (facts.software) {
    problems.push({
      level: "warning",
      code: "E-ENV-053",
      what: `${facts.name} computes on the CPU`,
      fix: `fine for the embedded model (minutes); for larger ones ${adapterFix(environment).replace(/, or start through.*$/, "")}`,
    });
  }
  if (!facts.f16) {
    problems.push({
      level: "warning",
      code: "E-ENV-054",
      what: "shader-f16 is missing",
      fix: "nothing to do for the embedded model, which runs in f32; a newer driver may add it",
    });
  }
  const binding = limits.maxStorageBufferBindingSize ?? 0;
  if (binding < SMALL_BINDING) {
    problems.push({
      level: "warning",
      code: "E-ENV-055",
      what: `a storage binding holds only ${bytes(binding)}`,
      fix: "enough for the embedded model; update the driver for larger ones",
    });
  }
  if (other?.error) {
    problems.push({
      level: "warning",
      code: other.error.code,
      what: `${other.backend} cannot be used: ${other.error.text.replace(`${other.error.code} `, "")}`,
      fix: `nothing to do while ${chosen} works`,
    });
  }
  return problems;
}

export function diskProblems(disk: DiskReport): Problem[] {
  if (disk.error)
    return [
      {
        level: "error",
        code: disk.error.code,
        what: disk.error.text.replace(`${disk.error.code} `, ""),
        fix: "set run.folder to another disk",
      },
    ];
  const problems: Problem[] = [];
  if (disk.freeBytes !== null && disk.freeBytes < NEEDED_DISK) {
    problems.push({
      level: "error",
      code: "E-ENV-020",
      what: `only ${bytes(disk.freeBytes)} are free at ${disk.path}`,
      fix: `free ${bytes(NEEDED_DISK)}, or set run.folder to another disk`,
    });
  }
  if (disk.writeBytesPerSecond !== null && disk.writeBytesPerSecond < SLOW_DISK) {
    problems.push({
      level: "warning",
      code: "E-ENV-056",
      what: `${disk.path} takes only ${bytes(disk.writeBytesPerSecond)} a second`,
      fix: "set run.folder to a faster disk, or save less often (save.every)",
    });
  }
  return problems;
}

export function selfTestProblems(tests: DoctorReport["selfTests"]): Problem[] {
  return tests
    .filter(({ ok }) => !ok)
    .map(({ name, error }) => ({
      level: "error",
      code: "E-NUM-091",
      what: `the kernel ${name} computes wrongly here (${typeof error === "number" ? `relative error ${error.toExponential(1)}` : (error ?? "no details")})`,
      fix: "update the graphics driver, or try --gpu=deno; please report it with longtail doctor --json",
    }));
}
