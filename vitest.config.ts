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
  },
});
