// `npm test`: runs Vitest inside Deno on the adapter found, then a sample of the kernel tests inside Chromium. Words choose
// test files by path (`npm test -- parity`) and leave Chromium's part out; `--chromium` runs that part alone, `--long` adds
// the long tests and takes every kernel test, other options go to Vitest. The last line is always `N passed, N failed`.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { ensureReady } from "./setup.mjs";
import { projectRoot, readJson, runForeground, SetupError } from "./tools.mjs";

/**
 * Counts of Vitest's JSON report. A file that failed before its first test (a syntax error, a failing import) counts as
 * one failure, and so does a run that ended badly without any failed test or without any test at all.
 */
export function summarize(report, exitCode) {
  const counts = { passed: 0, failed: 0, skipped: 0, reason: "" };
  for (const file of report?.testResults ?? []) {
    let failedHere = 0;
    for (const test of file.assertionResults ?? []) {
      // Tests that a sample leaves out were not asked for.
      if (test.meta?.leftOut) continue;
      if (test.status === "passed") counts.passed++;
      else if (test.status === "failed") failedHere++;
      else counts.skipped++;
    }
    counts.failed += file.status === "failed" ? Math.max(1, failedHere) : failedHere;
  }
  if (counts.failed === 0) {
    if (!report) counts.reason = "the test run ended without a result";
    else if (counts.passed + counts.skipped === 0) counts.reason = "no test ran";
    else if (exitCode !== 0) counts.reason = `the test run ended with exit code ${exitCode}`;
    if (counts.reason) counts.failed = 1;
  }
  return counts;
}

/** The closing line; skips are named only where there are some. */
export function summaryLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

// The part of the kernel tests that runs in Chromium as well, each time; all of them on a CPU adapter take minutes.
const SAMPLE = "0.25";

/**
 * One run of Vitest by the program and arguments given, ended by its counts. A file of its own keeps the report, and what
 * was printed is for people.
 */
async function runVitest(program, before, args, env) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "longtail-test-"));
  const reportFile = path.join(folder, "report.json");
  const vitest = path.join(projectRoot, "node_modules", "vitest", "vitest.mjs");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
  // Vitest colours its lines inside Deno even where they go to a file.
  const colours = process.stdout.isTTY || process.env.FORCE_COLOR ? {} : { NO_COLOR: "1" };
  try {
    const options = { env: { ...env, ...colours }, cwd: projectRoot };
    const code = await runForeground(program, [...before, vitest, "run", ...reporters, ...args], options);
    const counts = summarize(readJson(reportFile), code);
    if (counts.reason) console.log(counts.reason);
    return { code, counts };
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

async function main(args) {
  const long = args.includes("--long");
  const chromiumAlone = args.includes("--chromium");
  const rest = args.filter((arg) => arg !== "--long" && arg !== "--chromium");
  const words = rest.filter((arg) => !arg.startsWith("-"));
  const ownVariables = long ? { LONGTAIL_LONG: "1" } : {};
  let ready;
  try {
    ready = await ensureReady({ needs: chromiumAlone ? ["packages"] : ["packages", "gpu"] });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    console.log(summaryLine({ passed: 0, failed: 1, skipped: 0 }));
    return error.exitCode;
  }
  // Chosen tests elsewhere are no reason to download a browser.
  const needsChromium = chromiumAlone || words.length === 0 || words.some((word) => word.includes("web"));
  const chromium = needsChromium ? await ensureChromium() : await findChromium();
  const forPages = chromium.program ? { LONGTAIL_CHROMIUM: chromium.program } : { LONGTAIL_NO_CHROMIUM: chromium.why };
  if (chromium.program) console.log(`Chromium: version ${chromium.version} (${chromium.program})`);
  else if (needsChromium) console.log(`tests in a browser are skipped: ${chromium.why}`);

  const parts = [];
  if (!chromiumAlone) {
    const { adapter } = ready;
    console.log(`adapter: ${adapter.driver || adapter.name}${adapter.software ? " (software)" : ""}`);
    const deno = ["run", "-A", "--no-check", "--config", path.join(projectRoot, "deno.json")];
    const env = { ...ready.env, ...ownVariables, ...forPages };
    parts.push(await runVitest(ready.deno, deno, ["--pool=forks", ...rest], env));
  }
  if (chromium.program && (chromiumAlone || words.length === 0)) {
    const sample = long || words.length > 0 ? {} : { LONGTAIL_SAMPLE: SAMPLE };
    console.log(`kernel tests in Chromium${sample.LONGTAIL_SAMPLE ? ` (a sample of ${SAMPLE})` : ""}`);
    const env = { ...ownVariables, ...forPages, ...sample };
    const part = await runVitest(process.execPath, [], ["--config=vitest.chromium.config.ts", ...rest], env);
    console.log(`in Chromium: ${summaryLine(part.counts)}`);
    parts.push(part);
  }
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const { counts } of parts) for (const name of Object.keys(total)) total[name] += counts[name];
  console.log(summaryLine(total));
  return parts.find(({ code }) => code)?.code || (total.failed > 0 ? 1 : 0);
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  process.exitCode = await main(process.argv.slice(2));
}
