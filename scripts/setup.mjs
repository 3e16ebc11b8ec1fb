// Brings a fresh clone to where it can run: npm packages, then a GPU adapter, asked for where it will be used (Dawn inside
// Deno), with a software GPU where Linux has none. The answer is remembered, so that a second start reads two files and
// goes on; it is asked again when packages, drivers or devices change.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { installSoftGpu } from "./soft-gpu.mjs";
import {
  cacheFolder,
  lastLines,
  progress,
  projectRoot,
  readJson,
  runLogged,
  SetupError,
  withLock,
  writeJson,
} from "./tools.mjs";

const modules = path.join(projectRoot, "node_modules");
const stateFile = path.join(modules, ".longtail-ready.json");
const hash = (text) => createHash("sha256").update(text).digest("hex").slice(0, 16);

/**
 * Makes everything ready that `needs` names: "packages", and "gpu" for an adapter. Returns `{deno, env, adapter}`: the
 * binary to run, environment variables to add, and what the adapter said of itself (null without "gpu").
 * `recheck` asks for the adapter again even if an answer is remembered. Throws SetupError (exit code 3).
 */
export async function ensureReady({ quiet = false, needs = ["packages", "gpu"], recheck = false } = {}) {
  const say = quiet ? () => {} : progress;
  requireNode();
  const lockHash = hash(fs.readFileSync(path.join(projectRoot, "package-lock.json")));
  const projectLock = `project-${hash(projectRoot)}`;
  const waiting = () => say("longtail: another start is setting things up; waiting for it");
  try {
    if (!packagesReady(lockHash)) {
      await withLock(projectLock, () => packagesReady(lockHash) || installPackages(lockHash, say), waiting);
    }
    const plain = findDeno();
    if (!needs.includes("gpu")) return { deno: plain.binary, env: baseEnvironment(), adapter: null };

    const key = adapterKey(plain);
    const known = recheck ? null : rememberedAdapter(key);
    if (known) return known;
    return await withLock("soft-gpu", () => rememberedAdapter(key, recheck) ?? findAdapter(plain, key, say), waiting);
  } catch (error) {
    throw error instanceof SetupError ? error : fileSystemError(error);
  }
}

/** Forgets which adapter was found, so that the next start asks again; called when a run could not open it. */
export function forgetAdapter() {
  const state = readJson(stateFile);
  if (state?.adapter) writeJson(stateFile, { lockHash: state.lockHash });
}

/** The deno binary without any adapter, for `doctor` on a machine that has none; null where packages are missing too. */
export function denoWithoutAdapter() {
  try {
    return { deno: findDeno().binary, env: baseEnvironment() };
  } catch {
    return null;
  }
}

function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new SetupError("E-ENV-041", {
    what: `Node ${process.versions.node} is too old`,
    why: "the start-up scripts and npm packages need Node 20.19 or newer",
    fix: "install a current Node",
  });
}

function fileSystemError(error) {
  if (!error?.code) return error;
  return new SetupError("E-ENV-047", {
    what: "the set-up cannot write its files",
    where: error.path ?? cacheFolder(),
    why: error.code === "ENOSPC" ? "the disk is full" : error.message,
    fix: "free space or fix the folder's permissions (XDG_CACHE_HOME moves the cache), and start again",
  });
}

// ---- npm packages ----------------------------------------------------------------------------------------------------

function packagesReady(lockHash) {
  if (readJson(stateFile)?.lockHash === lockHash) return true;
  // Somebody may have run npm by hand. npm writes its own record last, so what it names is whole.
  const installed = readJson(path.join(modules, ".package-lock.json"))?.packages;
  if (!installed) return false;
  const wanted = readJson(path.join(projectRoot, "package-lock.json"))?.packages ?? {};
  for (const [place, entry] of Object.entries(wanted)) {
    if (!place || entry.link) continue;
    if (installed[place] ? installed[place].version !== entry.version : !entry.optional) return false;
  }
  writeJson(stateFile, { lockHash });
  return true;
}

async function installPackages(lockHash, say) {
  say("longtail: installing npm packages (once)");
  const log = newLog("npm");
  const npm = process.env.npm_execpath;
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
  const options = { log, cwd: projectRoot, env: { ...process.env, npm_config_progress: "false" } };
  // Started through npm, its own file is the surest way to the same npm; pnpm and yarn set the variable as well.
  const result =
    npm && /npm-cli\.c?js$/.test(npm)
      ? await runLogged(process.execPath, [npm, ...args], options)
      : await runLogged("npm", args, { ...options, shell: process.platform === "win32" });
  if (result.code !== 0) {
    throw new SetupError("E-ENV-042", {
      what: "npm could not install the packages",
      where: "package-lock.json",
      why: `${lastLines(log, 2)} (log: ${log})`,
      fix: result.code === 127 ? "install npm" : "check the network and npm's registry setting, and start again",
    });
  }
  writeJson(stateFile, { lockHash });
  return true;
}

/** A log file of this start; the newest of its kind is enough, so names repeat. */
function newLog(name) {
  const file = path.join(cacheFolder(), "logs", `${name}.log`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, "");
  return file;
}

// ---- deno and the adapter --------------------------------------------------------------------------------------------

function findDeno() {
  const name = process.platform === "win32" ? "deno.exe" : "deno";
  const target = `${process.platform}-${process.arch}${process.platform === "linux" ? "-glibc" : ""}`;
  const folder = path.join(modules, "@deno", target);
  const binary = path.join(folder, name);
  if (!fs.existsSync(binary)) {
    throw new SetupError("E-ENV-043", {
      what: "npm has no Deno for this platform",
      where: target,
      fix: "use Linux with glibc (x64, arm64), macOS or Windows; after an npm install with --omit=optional run npm ci",
    });
  }
  // Without its install script the package's file has no run bit on some npm versions.
  if (process.platform !== "win32" && !(fs.statSync(binary).mode & 0o100)) fs.chmodSync(binary, 0o755);
  return { binary, version: readJson(path.join(folder, "package.json"))?.version ?? "unknown" };
}

function baseEnvironment() {
  return { DENO_NO_UPDATE_CHECK: "1" };
}

/** Everything that could change the answer and is quick to read: versions, variables, device files, driver lists. */
function adapterKey(plain) {
  const names = (folder) => {
    try {
      return fs.readdirSync(folder).sort();
    } catch {
      return [];
    }
  };
  const places = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/dev/dri"];
  const env = [
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "LONGTAIL_SOFT_GPU",
    "LP_NATIVE_VECTOR_WIDTH",
  ];
  return hash(
    JSON.stringify([
      2,
      plain.version,
      process.platform,
      process.arch,
      cacheFolder(),
      process.platform === "linux" ? places.map(names) : [],
      process.platform === "linux" ? names("/dev").filter((name) => name.startsWith("nvidia")) : [],
      env.map((name) => process.env[name] ?? ""),
    ]),
  );
}

function rememberedAdapter(key, recheck = false) {
  const state = recheck ? null : readJson(stateFile);
  if (state?.key !== key || !state.files.every((file) => fs.existsSync(file))) return null;
  return { deno: state.deno, env: state.env, adapter: state.adapter };
}

function remember(key, ready, files) {
  writeJson(stateFile, { lockHash: readJson(stateFile)?.lockHash, key, ...ready, files });
  return ready;
}

async function findAdapter(plain, key, say) {
  const log = newLog("adapter");
  const forced = process.env.LONGTAIL_SOFT_GPU === "1";
  const system = forced ? null : await probe(plain.binary, baseEnvironment(), log);
  const asIs = system && { deno: plain.binary, env: baseEnvironment(), adapter: system };
  // An old lavapipe of the system works, but without matrix units and at a fraction of the speed.
  const goodEnough = asIs && (!system.software || system.subgroupMatrices > 0 || process.platform !== "linux");
  if (goodEnough) return remember(key, asIs, [plain.binary]);
  if (process.platform !== "linux") throw noAdapter(log);
  try {
    const ready = await softwareAdapter(plain, say);
    return remember(key, ready.answer, ready.files);
  } catch (error) {
    if (!asIs || !(error instanceof SetupError)) throw error;
    say(`longtail: using the system's software GPU (${system.driver}); a newer one could not be set up: ${error.code}`);
    return remember(key, asIs, [plain.binary]);
  }
}

async function softwareAdapter(plain, say) {
  const log = newLog("soft-gpu");
  let made = null;
  // A driver unpacked by an earlier start that gives no adapter now is unpacked once more; one that is fresh gives way
  // to the system's own, older suite.
  for (let attempt = 0; attempt < 3; attempt++) {
    const retry = made && { rebuild: true, avoid: made.fresh ? made.suite : "" };
    made = await installSoftGpu({ deno: plain.binary, denoVersion: plain.version, log, say, ...retry });
    const env = { ...baseEnvironment(), ...made.env };
    const adapter = await probe(made.deno, env, log);
    if (adapter) {
      say(`longtail: software GPU ready (${adapter.driver})`);
      return { answer: { deno: made.deno, env, adapter }, files: made.files };
    }
  }
  throw new SetupError("E-ENV-048", {
    what: "the software GPU was unpacked but Dawn finds no adapter in it",
    where: path.join(cacheFolder(), "soft-gpu"),
    why: `${lastLines(log)} (log: ${log})`,
    fix: "install a Vulkan driver for this machine, or report the log",
  });
}

/** What Dawn says inside `deno`: an object that describes the adapter, or null. */
async function probe(deno, env, log) {
  const script = path.join(projectRoot, "scripts", "probe.ts");
  const args = ["run", "-A", "--no-check", "--config", path.join(projectRoot, "deno.json"), script];
  const options = { log, cwd: projectRoot, env: { ...process.env, ...env }, timeout: 60_000 };
  const { output } = await runLogged(deno, args, options);
  const line = output.split("\n").find((text) => text.startsWith("LONGTAIL-PROBE "));
  return line ? JSON.parse(line.slice("LONGTAIL-PROBE ".length)) : null;
}

function noAdapter(log) {
  const mac = process.platform === "darwin";
  return new SetupError("E-ENV-044", {
    what: "no GPU adapter was found",
    where: `${process.platform} ${process.arch}`,
    why: `Dawn offers no ${mac ? "Metal" : "D3D12 or Vulkan"} adapter (log: ${log})`,
    fix: mac
      ? "Metal needs nothing installed on macOS 13 or newer; update macOS, and do not run in a virtual machine without a GPU"
      : "Direct3D 12 needs nothing installed on Windows 10 or newer; update the graphics driver",
  });
}
