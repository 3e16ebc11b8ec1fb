// Facts about the machine and the program, for a run's env.json and for `longtail doctor`. Nothing here names the user,
// the host or a home folder, because env.json is shared with results.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import * as os from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { EnvironmentFacts } from "../runs/environment.ts";

export type { EnvironmentFacts };

/** The folder of the checkout. */
export const projectFolder = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const GPU_VARIABLES = [
  "LONGTAIL_SOFT_GPU",
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "VK_LOADER_DEVICE_SELECT",
  "DRI_PRIME",
  "NVIDIA_VISIBLE_DEVICES",
  "NVIDIA_DRIVER_CAPABILITIES",
  "LP_NUM_THREADS",
  "LP_NATIVE_VECTOR_WIDTH",
];

/** Collects all facts; what cannot be found out is null or empty, and nothing throws. */
export async function environmentFacts(): Promise<EnvironmentFacts> {
  const cpus = os.cpus();
  const [longtail, dawn, commit, name, memory, container] = await Promise.all([
    packageVersion(join(projectFolder, "package.json")),
    packageVersion(join(projectFolder, "node_modules", "webgpu", "package.json")),
    gitCommit(projectFolder),
    systemName(),
    memoryFacts(),
    isContainer(),
  ]);
  const deno = (process.versions as Record<string, string | undefined>)["deno"];
  const variables: Record<string, string> = {};
  for (const variable of GPU_VARIABLES) {
    const value = process.env[variable];
    if (value) variables[variable] = withoutHome(value);
  }
  return {
    longtail: longtail ?? "unknown",
    commit,
    runtime: {
      name: deno ? "deno" : "node",
      version: deno ?? process.versions.node,
      v8: process.versions.v8,
      node: process.versions.node,
    },
    dawn,
    system: { platform: process.platform, release: os.release(), name, arch: process.arch, container },
    processor: { model: cpus[0]?.model.trim() ?? "unknown", cores: os.availableParallelism?.() ?? cpus.length },
    memory,
    variables,
    setupError: process.env["LONGTAIL_SETUP_ERROR"] ?? null,
  };
}

/** Resident memory of this process in bytes. On a software GPU the device's memory is part of it. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** The text with the home folder written as `~`. */
export function withoutHome(text: string): string {
  const home = os.homedir();
  return home.length > 1 ? text.replaceAll(home, "~") : text;
}

async function packageVersion(file: string): Promise<string | null> {
  try {
    return (JSON.parse(await readFile(file, "utf8")) as { version?: string }).version ?? null;
  } catch {
    return null;
  }
}

function output(command: string, args: string[], cwd: string): Promise<string | null> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, timeout: 5000 }, (error, stdout) => resolve(error ? null : stdout.trim()));
  });
}

/** Short commit of the checkout at `folder`; null where git is missing or another checkout merely contains the folder. */
export async function gitCommit(folder: string): Promise<string | null> {
  if ((await output("git", ["rev-parse", "--show-prefix"], folder)) !== "") return null;
  const commit = await output("git", ["rev-parse", "--short=12", "HEAD"], folder);
  if (!commit) return null;
  const changes = await output("git", ["status", "--porcelain", "--untracked-files=no"], folder);
  return changes ? `${commit}+changes` : commit;
}

async function systemName(): Promise<string> {
  try {
    const text = await readFile("/etc/os-release", "utf8");
    return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(text)?.[1] ?? os.type();
  } catch {
    return `${os.type()} ${os.release()}`;
  }
}

async function isContainer(): Promise<boolean> {
  for (const mark of ["/.dockerenv", "/run/.containerenv"]) {
    if ((await readFile(mark).catch(() => null)) !== null) return true;
  }
  return Boolean(process.env["KUBERNETES_SERVICE_HOST"]);
}

/** Bytes of memory that a run may still take. */
export const availableMemory = async (): Promise<number> => (await memoryFacts()).available;

/** Memory of the machine, or of the control group where that is smaller. */
export async function memoryFacts(): Promise<{ total: number; available: number }> {
  let total = os.totalmem();
  let available = os.freemem();
  const number = async (file: string) => Number((await readFile(file, "utf8").catch(() => "")).trim() || Number.NaN);
  const meminfo = await readFile("/proc/meminfo", "utf8").catch(() => "");
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1];
  if (kibibytes) available = Number(kibibytes) * 1024;
  const limit = await number("/sys/fs/cgroup/memory.max");
  if (Number.isFinite(limit) && limit < total) {
    const used = await number("/sys/fs/cgroup/memory.current");
    total = limit;
    if (Number.isFinite(used)) available = Math.min(available, Math.max(0, limit - used));
  }
  return { total, available };
}
