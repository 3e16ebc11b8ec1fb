// Fetches pinned npm packages into a cache folder of their own, apart from the project's dependencies, and checks what came
// by its hash. Nothing in them is run: they bring drawings, and one WebAssembly module.

import { spawn } from "node:child_process";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";

export interface PinnedPackage {
  package: string;
  version: string;
  /** A file of the package and its SHA-256. */
  file: string;
  sha256: string;
}

/** Minutes that npm may take. */
const PATIENCE = 15;
const LAST_LINES = 3;

/** Where packages are kept between runs: XDG_CACHE_HOME, else the usual folder. */
export function packageCache(): string {
  const base = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return join(base, "longtail", "emoji");
}

/** Path of a package's file in the cache. */
export const packagePath = (cache: string, name: string, file: string) =>
  join(cache, "node_modules", ...name.split("/"), file);

/**
 * Makes sure that `cache` holds all packages; npm is asked only where one is missing or of another version.
 * @throws LongtailError E-ENV-080 npm is missing or could not fetch them, E-DATA-081 a file is not what was pinned
 */
export async function fetchPackages(
  files: FileStore,
  cache: string,
  packages: readonly PinnedPackage[],
  say: (text: string) => void,
): Promise<void> {
  const missing = [];
  for (const one of packages) if ((await versionOf(files, cache, one.package)) !== one.version) missing.push(one);
  if (missing.length > 0) {
    await files.makeFolder(cache);
    // Without a manifest of its own, npm would install into the nearest folder above that has one.
    await files.writeAtomic(join(cache, "package.json"), `${JSON.stringify({ private: true }, null, 1)}\n`);
    say(`fetching ${missing.map((p) => `${p.package}@${p.version}`).join(", ")} with npm into ${cache}`);
    await npmInstall(
      cache,
      packages.map((p) => `${p.package}@${p.version}`),
    );
  }
  for (const one of packages) await checkFile(files, packagePath(cache, one.package, one.file), one);
}

async function versionOf(files: FileStore, cache: string, name: string): Promise<string | null> {
  const path = packagePath(cache, name, "package.json");
  if (!(await files.exists(path))) return null;
  try {
    return (JSON.parse(await files.readText(path)) as { version?: string }).version ?? null;
  } catch {
    return null;
  }
}

async function checkFile(files: FileStore, path: string, pinned: PinnedPackage): Promise<void> {
  const hash = await sha256(await files.readBytes(path));
  if (hash === pinned.sha256) return;
  throw new LongtailError("E-DATA-081", {
    what: `the file is not that of ${pinned.package} ${pinned.version}`,
    where: path,
    why: `its SHA-256 is ${hash.slice(0, 16)}..., expected ${pinned.sha256.slice(0, 16)}...`,
    fix: "remove the cache folder and run the command again; if it happens again, the registry serves another package",
  });
}

function npmInstall(cache: string, specs: readonly string[]): Promise<void> {
  const refuse = (why: string, cause?: unknown): LongtailError =>
    new LongtailError("E-ENV-080", {
      what: "npm could not fetch the packages with the art",
      where: cache,
      why,
      fix: `connect to a network and run the command again, or run there on a machine that has one: npm install --no-save --ignore-scripts ${specs.join(" ")}, and copy the folder`,
      cause,
    });
  const words = [
    "install",
    "--no-save",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-package-lock",
    "--prefix",
  ];
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  return new Promise((resolve, reject) => {
    const child = spawn(npm, [...words, cache, ...specs], {
      cwd: cache,
      stdio: ["ignore", "ignore", "pipe"],
      shell: process.platform === "win32",
      timeout: PATIENCE * 60_000,
    });
    let errors = "";
    child.stderr.on("data", (chunk) => (errors += String(chunk)));
    child.on("error", (cause) => reject(refuse("npm is not installed or cannot be started", cause)));
    child.on("close", (code) => {
      if (code === 0) return resolve();
      const lines = errors.split("\n").filter((line) => /^npm (error|ERR!)/.test(line) && !/A complete log/.test(line));
      const why = lines
        .slice(0, LAST_LINES)
        .map((line) => line.replace(/^npm (error|ERR!) ?/, ""))
        .join("; ");
      reject(refuse(why || `npm ended with code ${code}`));
    });
  });
}
