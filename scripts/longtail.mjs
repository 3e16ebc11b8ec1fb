#!/usr/bin/env node
// The command `longtail`: makes the machine ready, then runs the command line in Deno with this terminal and ends with
// its exit code. Everything that the commands do is in src/cli.

import path from "node:path";
import { denoWithoutAdapter, ensureReady, forgetAdapter } from "./setup.mjs";
import { projectRoot, runForeground, SetupError } from "./tools.mjs";

// The environment's exit code: no adapter, a missing limit, a full disk.
const ENVIRONMENT_EXIT = 3;

/** Commands that only print or draw, so that help on a machine without a GPU downloads none. */
function needsGpu(args) {
  if (args.some((arg) => arg === "--help" || arg === "-h" || arg === "--version")) return false;
  return args.length > 0 && !["data", "help", "init", "lora", "report", "serve", "version"].includes(args[0]);
}

async function main(args) {
  const doctor = args[0] === "doctor";
  let ready;
  const extra = {};
  try {
    const needs = needsGpu(args) ? ["packages", "gpu"] : ["packages"];
    ready = await ensureReady({ needs, quiet: args.includes("--quiet"), recheck: doctor });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    // `doctor` is there to explain such a machine, so it starts without an adapter and is told what went wrong.
    ready = doctor ? denoWithoutAdapter() : null;
    if (!ready) {
      process.stderr.write(`${error.message}\n`);
      return error.exitCode;
    }
    extra.LONGTAIL_SETUP_ERROR = error.message;
  }
  const entry = path.join(projectRoot, "src", "cli", "main.ts");
  const deno = ["run", "-A", "--no-check", "--config", path.join(projectRoot, "deno.json"), entry];
  const code = await runForeground(ready.deno, [...deno, ...args], { env: { ...ready.env, ...extra } });
  // A driver may have gone since it was found; the next start looks again instead of failing the same way.
  if (code === ENVIRONMENT_EXIT) forgetAdapter();
  return code;
}

process.exitCode = await main(process.argv.slice(2));
