// `npm run check`: type check, Biome's lint and format check, and the project's own lint of rooms and file heads. All
// three run even if the first finds something, so that one run shows everything. `--fix` lets Biome correct files.

import { createRequire } from "node:module";
import path from "node:path";
import { lintProject } from "./lint-rooms.mjs";
import { ensureReady } from "./setup.mjs";
import { projectRoot, runForeground, SetupError } from "./tools.mjs";

/** Runs the command `name` of an installed npm package under this Node. */
function runPackage(packageName, name, args) {
  const require = createRequire(path.join(projectRoot, "package.json"));
  const manifest = require.resolve(`${packageName}/package.json`);
  const { bin } = require(manifest);
  const file = path.join(path.dirname(manifest), typeof bin === "string" ? bin : bin[name]);
  return runForeground(process.execPath, [file, ...args], { cwd: projectRoot });
}

async function main(args) {
  try {
    await ensureReady({ needs: ["packages"] });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    return error.exitCode;
  }
  const fix = args.includes("--fix") ? ["--write"] : [];
  const parts = [
    ["types", () => runPackage("typescript", "tsc", ["--noEmit", "--project", "tsconfig.json"])],
    ["lint and format", () => runPackage("@biomejs/biome", "biome", ["check", "--error-on-warnings", ...fix])],
    ["rooms", async () => reportRooms(lintProject(projectRoot))],
  ];
  let failed = 0;
  for (const [name, run] of parts) {
    const code = await run();
    console.log(`${name}: ${code === 0 ? "ok" : "failed"}`);
    if (code !== 0) failed++;
  }
  return failed > 0 ? 1 : 0;
}

function reportRooms(findings) {
  for (const { file, line, message } of findings) console.log(`${file}:${line} ${message}`);
  return findings.length > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
