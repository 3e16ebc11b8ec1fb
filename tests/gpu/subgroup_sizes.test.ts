// Drivers whose subgroups are narrower or wider than usual. Mesa's software driver makes them as wide as the vectors that it
// is told to use, so a process of its own computes with each; the results are those of this process.

import { execFile } from "node:child_process";
import process from "node:process";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { everyKernel, type Probe } from "../helpers/every_kernel.ts";
import { ROOT } from "../helpers/files.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";

const run = promisify(execFile);
const isMesa = /llvmpipe|lavapipe/.test((await testGpu()).facts.key.toLowerCase());

it.runIf(isMesa).each([
  [4, 128],
  [8, 256],
  [16, 512],
])("subgroups of %i lanes compute the same as others", async (lanes, bits) => {
  const args = [
    "run",
    "--unstable-raw-imports",
    "-A",
    "--no-check",
    "--config",
    "deno.json",
    "tests/helpers/every_kernel.ts",
  ];
  const env = { ...process.env, LP_NATIVE_VECTOR_WIDTH: String(bits) };
  const { stdout } = await run(process.execPath, args, { cwd: ROOT, env, maxBuffer: 1 << 28 });
  const probe = JSON.parse(stdout) as Probe;
  expect(probe.subgroups).toEqual([lanes, lanes]);
  const expected = await everyKernel(await testGpu());
  expected.forEach((values, i) => expect(relativeError(probe.values[i]!, values), `result ${i}`).toBeLessThan(2e-6));
});
