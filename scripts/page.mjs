// `npm run dev` serves the page while it is worked on; `npm run build` leaves it in dist/, for any static host and any path on it,
// and prints what it weighs. Packages are installed first where they are missing, as the other scripts do.

import path from "node:path";
import { sizeTable } from "./page_assets.mjs";
import { FIRST_LOAD_BUDGET, weighPage } from "./page_shell.mjs";
import { ensureReady } from "./setup.mjs";
import { projectRoot, readJson, SetupError } from "./tools.mjs";

const USAGE = "usage: node scripts/page.mjs dev [--port N] [--host]\n       node scripts/page.mjs build";

/** The value after an option, or null. */
function optionOf(args, option) {
  const at = args.indexOf(option);
  return at < 0 ? null : (args[at + 1] ?? "");
}

async function dev(vite, args) {
  const port = Number(optionOf(args, "--port") ?? 5173);
  // Other machines have no WebGPU over plain http, so the page is for this one unless it is asked for.
  const server = { port, host: args.includes("--host") ? true : "localhost" };
  const running = await vite.createServer({ root: path.join(projectRoot, "src/web"), configFile, server });
  await running.listen();
  running.printUrls();
  return new Promise((resolve) => {
    const stop = () => running.close().then(() => resolve(0));
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
  });
}

const configFile = path.join(projectRoot, "vite.config.ts");

async function build(vite) {
  await vite.build({ configFile, logLevel: "warn" });
  const folder = path.join(projectRoot, "dist");
  console.log(`models, tokenizers and presets\n${sizeTable(readJson(path.join(folder, "assets.json"))).join("\n")}\n`);
  return reportWeight(folder);
}

/** Prints the sizes of scripts and styles; exit code 1 where the first load is over its budget. */
function reportWeight(folder) {
  const { files, first } = weighPage(folder);
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`.padStart(10);
  console.log(`  ${"scripts and styles".padEnd(50)} ${"size".padStart(10)} ${"gzip".padStart(10)}`);
  for (const file of files)
    console.log(
      `  ${file.name.padEnd(50)} ${kilobytes(file.bytes)} ${kilobytes(file.gzip)}${file.first ? "  first" : ""}`,
    );
  console.log(
    `  ${"first load".padEnd(50)} ${"".padStart(10)} ${kilobytes(first)} of ${kilobytes(FIRST_LOAD_BUDGET).trim()}`,
  );
  if (first <= FIRST_LOAD_BUDGET) return 0;
  console.error("the first load is over its budget: load what is not needed at once by import()");
  return 1;
}

async function main([command, ...args]) {
  if (command !== "dev" && command !== "build") {
    console.error(USAGE);
    return 2;
  }
  try {
    await ensureReady({ needs: ["packages"] });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    return error.exitCode;
  }
  // Not before the packages are there.
  const vite = await import("vite");
  return command === "dev" ? dev(vite, args) : build(vite);
}

process.exitCode = await main(process.argv.slice(2));
