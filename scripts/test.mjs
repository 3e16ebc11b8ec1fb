// `npm test`: runs Vitest inside Deno on the adapter found. Words choose test files by path (`npm test -- parity`),
// `--long` adds the long tests, other options go to Vitest. The last line is always `N passed, N failed`.

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

async function main(args) {
  const long = args.includes("--long");
  let ready;
  try {
    ready = await ensureReady();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    console.log(summaryLine({ passed: 0, failed: 1, skipped: 0 }));
    return error.exitCode;
  }
  console.log(`adapter: ${ready.adapter.driver || ready.adapter.name}${ready.adapter.software ? " (software)" : ""}`);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "longtail-test-"));
  const reportFile = path.join(folder, "report.json");
  const vitest = path.join(projectRoot, "node_modules", "vitest", "vitest.mjs");
  const deno = ["run", "-A", "--no-check", "--config", path.join(projectRoot, "deno.json"), vitest];
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
  const options = ["run", "--pool=forks", ...reporters, ...args.filter((arg) => arg !== "--long")];
  const env = { ...ready.env };
  if (long) env.LONGTAIL_LONG = "1";
  // Vitest colours its lines inside Deno even where they go to a file.
  if (!process.stdout.isTTY && !process.env.FORCE_COLOR) env.NO_COLOR = "1";
  try {
    const code = await runForeground(ready.deno, [...deno, ...options], { env, cwd: projectRoot });
    const counts = summarize(readJson(reportFile), code);
    if (counts.reason) console.log(counts.reason);
    console.log(summaryLine(counts));
    return code || (counts.failed > 0 ? 1 : 0);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  process.exitCode = await main(process.argv.slice(2));
}
