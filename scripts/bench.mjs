// `npm run bench -- <name> [--json]`: runs bench/<name>.ts in Deno on the adapter found; without a name it lists what
// there is. Libraries to compare with are in bench/peers with their own lock file, and are installed, without install
// scripts, the first time that a benchmark which reads them runs.

import fs from "node:fs";
import path from "node:path";
import { ensureReady } from "./setup.mjs";
import {
  cacheFolder,
  lastLines,
  progress,
  projectRoot,
  runForeground,
  runLogged,
  SetupError,
  withLock,
} from "./tools.mjs";

const benchFolder = path.join(projectRoot, "bench");

/** Names and first comment lines of the benchmarks. */
function listBenches() {
  const files = fs.existsSync(benchFolder) ? fs.readdirSync(benchFolder).filter((file) => file.endsWith(".ts")) : [];
  return files.sort().map((file) => {
    const first = fs.readFileSync(path.join(benchFolder, file), "utf8").split("\n", 1)[0] ?? "";
    return { name: file.slice(0, -".ts".length), about: first.replace(/^\/\/\s*/, "") };
  });
}

function printList(print) {
  const benches = listBenches();
  print("usage: npm run bench -- <name> [--json]");
  const width = Math.max(0, ...benches.map(({ name }) => name.length));
  for (const { name, about } of benches) print(`  ${name.padEnd(width)}  ${about}`);
}

async function installPeers() {
  const folder = path.join(benchFolder, "peers");
  // npm writes its own record last, so an interrupted installation is made again.
  const complete = () => fs.existsSync(path.join(folder, "node_modules", ".package-lock.json"));
  if (!fs.existsSync(path.join(folder, "package-lock.json")) || complete()) return;
  await withLock("bench-peers", async () => {
    if (complete()) return;
    progress("longtail: installing the libraries to compare with (once)");
    const log = path.join(cacheFolder(), "logs", "bench-peers.log");
    fs.mkdirSync(path.dirname(log), { recursive: true });
    const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    const { code } = await runLogged("npm", args, { log, cwd: folder, shell: process.platform === "win32" });
    if (code !== 0) {
      throw new SetupError("E-ENV-042", {
        what: "npm could not install the libraries to compare with",
        where: "bench/peers/package-lock.json",
        why: `${lastLines(log, 2)} (log: ${log})`,
        fix: "check the network and npm's registry setting, and start again",
      });
    }
  });
}

async function main([name, ...args]) {
  if (!name || name.startsWith("-")) {
    printList(console.log);
    return 0;
  }
  const file = path.join(benchFolder, `${name}.ts`);
  if (!listBenches().some((bench) => bench.name === name)) {
    console.error(`E-ARG-040 ${name}: there is no such benchmark`);
    printList(console.error);
    return 2;
  }
  try {
    const ready = await ensureReady({ quiet: args.includes("--quiet") });
    if (/["'`/]peers\//.test(fs.readFileSync(file, "utf8"))) await installPeers();
    const deno = ["run", "-A", "--no-check", "--config", path.join(projectRoot, "deno.json"), file];
    return await runForeground(ready.deno, [...deno, ...args], { env: ready.env, cwd: projectRoot });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    return error.exitCode;
  }
}

process.exitCode = await main(process.argv.slice(2));
