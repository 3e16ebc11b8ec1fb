// What the start-up scripts share: where things lie, coded errors, child processes with a log, and a lock between two
// starts. Plain Node without packages, because it runs before any package is installed.

import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of the checkout. */
export const projectRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** Where downloads, logs and locks are kept between starts: `XDG_CACHE_HOME`, else the platform's usual folder. */
export function cacheFolder(env = process.env) {
  if (env.XDG_CACHE_HOME) return path.join(env.XDG_CACHE_HOME, "longtail");
  if (process.platform === "win32" && env.LOCALAPPDATA) return path.join(env.LOCALAPPDATA, "longtail");
  return path.join(os.homedir(), ".cache", "longtail");
}

/** A failure of the set-up, printed in the same form as every other coded error; the command line exits with 3. */
export class SetupError extends Error {
  constructor(code, { what, where, why, fix }) {
    super(`${code}${where ? ` ${where}:` : ""} ${what}${why ? ` → ${why}` : ""}${fix ? `. Fix: ${fix}` : ""}`);
    this.name = "SetupError";
    this.code = code;
    this.exitCode = 3;
  }
}

/** Writes one line of progress to stderr, so that stdout stays free for `--json`. */
export function progress(text) {
  process.stderr.write(`${text}\n`);
}

/**
 * Runs a program to its end with its output appended to `log`.
 * Returns `{code, output}`; `output` is stdout alone. Never throws for a failing program: a missing one has code 127.
 * @param {string} command
 * @param {string[]} args
 * @param {{log?: string, cwd?: string, env?: NodeJS.ProcessEnv, timeout?: number, shell?: boolean}} options
 */
export function runLogged(command, args, { log, cwd, env, timeout, shell = false } = {}) {
  return new Promise((resolve) => {
    const sink = log ? fs.openSync(log, "a") : null;
    const note = (chunk) => sink !== null && fs.writeSync(sink, chunk);
    note(`\n$ ${command} ${args.join(" ")}\n`);
    let output = "";
    let settled = false;
    const finish = (code) => {
      if (settled) return;
      settled = true;
      if (sink !== null) fs.closeSync(sink);
      resolve({ code, output });
    };
    const child = spawn(command, args, { cwd, env, timeout, shell, stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.on("data", (chunk) => {
      output += chunk;
      note(chunk);
    });
    child.stderr.on("data", note);
    child.on("error", (error) => {
      note(`${error.message}\n`);
      finish(127);
    });
    child.on("close", (code, signal) => finish(code ?? (signal ? 124 : 1)));
  });
}

/** The last lines of a log, for an error message that should show the cause at once. */
export function lastLines(file, count = 3) {
  try {
    const lines = fs.readFileSync(file, "utf8").split("\n");
    return lines
      .filter((line) => line.trim() && !line.startsWith("$ "))
      .slice(-count)
      .join(" | ")
      .slice(-400);
  } catch {
    return "";
  }
}

/** Writes JSON through a temporary file and a rename, so that a reader never sees half of it. */
export function writeJson(file, value) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  fs.renameSync(temporary, file);
}

/** Reads JSON, or returns null where the file is missing or damaged. */
export function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch {
    return null;
  }
}

// A holder on this host is alive as long as its process is; one on another host (a shared home) is trusted for so long.
const FOREIGN_LOCK_MINUTES = 20;

function lockIsStale(folder) {
  const owner = readJson(path.join(folder, "owner.json"));
  let age;
  try {
    age = Date.now() - fs.statSync(folder).mtimeMs;
  } catch {
    return false;
  }
  if (!owner) return age > 10_000;
  if (owner.host !== os.hostname()) return age > FOREIGN_LOCK_MINUTES * 60_000;
  try {
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    return error.code === "ESRCH";
  }
}

/**
 * Runs `work` while holding the folder lock `name`; a second start waits for the first and then sees its result.
 * The lock of a process that died is taken over. Calls `onWait` once when it has to wait.
 */
export async function withLock(name, work, onWait = () => {}) {
  const folder = path.join(cacheFolder(), "locks", `${name}.lock`);
  fs.mkdirSync(path.dirname(folder), { recursive: true });
  for (let told = false; ; ) {
    try {
      fs.mkdirSync(folder);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (lockIsStale(folder)) {
      // Renaming first lets exactly one of several waiters take the dead lock away.
      const dead = `${folder}.${process.pid}.dead`;
      try {
        fs.renameSync(folder, dead);
        fs.rmSync(dead, { recursive: true, force: true });
      } catch {}
      continue;
    }
    if (!told) onWait();
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  const release = () => fs.rmSync(folder, { recursive: true, force: true });
  process.once("exit", release);
  try {
    fs.writeFileSync(path.join(folder, "owner.json"), JSON.stringify({ pid: process.pid, host: os.hostname() }));
    return await work();
  } finally {
    process.removeListener("exit", release);
    release();
  }
}

/**
 * Runs the program in the foreground with this process's terminal and returns its exit code.
 * Ctrl-C on a terminal reaches the whole process group, so there this process only waits; without a terminal the signal
 * came to this process alone and is passed on. A child that died of a signal gives 128 + its number, as shells do.
 * @param {string} command
 * @param {string[]} args
 * @param {{env?: Record<string, string>, cwd?: string}} options
 */
export function runForeground(command, args, { env, cwd } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: "inherit", env: { ...process.env, ...env }, cwd });
    const forward = (signal) => () => {
      if (signal === "SIGINT" && process.stdin.isTTY) return;
      child.kill(signal);
    };
    const handlers = ["SIGINT", "SIGTERM", "SIGHUP"].map((signal) => [signal, forward(signal)]);
    for (const [signal, handler] of handlers) process.on(signal, handler);
    const finish = (code) => {
      for (const [signal, handler] of handlers) process.removeListener(signal, handler);
      resolve(code);
    };
    child.on("error", (error) => {
      process.stderr.write(`E-ENV-049 ${command}: cannot be started → ${error.message}\n`);
      finish(3);
    });
    child.on("exit", (code, signal) => finish(code ?? 128 + (os.constants.signals[signal] ?? 1)));
  });
}
