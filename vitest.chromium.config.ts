// The kernel suite in a browser: the same test files as in Deno, run by Vitest inside Chromium on SwiftShader, which has no
// f16 and subgroups of 4. `npm test` takes a seeded sample of them, `npm run test:long` all.

import process from "node:process";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { findChromium } from "./scripts/chromium.mjs";
import { nodeInBrowser } from "./scripts/node_in_browser.mjs";
import { wgslText } from "./scripts/wgsl_text.mjs";

/** Files that cannot run in a page, and why. */
export const NOT_IN_BROWSER = {
  "tests/ops/implementations.test.ts": "opens Deno's own WebGPU beside Dawn's",
  "tests/gpu/small_device.test.ts": "opens Dawn's devices with limits of its own",
  "tests/gpu/subgroup_sizes.test.ts": "starts processes with other subgroup sizes",
  "tests/ops/variants_of_other_vectors.test.ts": "tells Mesa's driver which vectors to take",
  "tests/ops/matrix_check.test.ts": "plants faults in Dawn's own implementation",
  "tests/tensor/executable.test.ts": "measures V8's heap through Node",
  "tests/tensor/tuner.test.ts": "plants faulty drivers and reads the tables that the command line keeps",
  "tests/tensor/limits.test.ts": "opens no device: whole runs are traced for adapters that are only described",
};

const chromium = await findChromium();
if (!chromium.program) throw new Error(chromium.why);
// Drivers meant for the other tests hide Chromium's own software adapter.
const { VK_DRIVER_FILES: _, VK_ICD_FILENAMES: _old, LD_LIBRARY_PATH: _libraries, ...env } = process.env;

export default defineConfig({
  plugins: [wgslText(), nodeInBrowser()],
  test: {
    include: ["tests/ops/**/*.test.ts", "tests/gpu/**/*.test.ts", "tests/tensor/**/*.test.ts"],
    exclude: Object.keys(NOT_IN_BROWSER),
    setupFiles: ["tests/helpers/browser/sample.ts"],
    // SwiftShader computes on the CPU: a second page would only take threads from the first.
    fileParallelism: false,
    testTimeout: 600_000,
    hookTimeout: 120_000,
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      instances: [{ browser: "chromium" }],
      provider: playwright({
        launchOptions: {
          executablePath: chromium.program,
          args: ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
          env: env as Record<string, string>,
        },
      }),
    },
  },
});
