import { defineConfig } from "vitest/config";
import { wgslText } from "./scripts/wgsl_text.mjs";

export default defineConfig({
  plugins: [wgslText()],
  test: {
    include: ["tests/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // What comes by itself comes late on two cores that run other tests as well; one second is for an idle machine.
    expect: { poll: { timeout: 30_000 } },
  },
});
