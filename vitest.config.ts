import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

/** Turns a `.wgsl` import into its text, as Deno does by itself. */
const wgsl = {
  name: "wgsl-text",
  enforce: "pre" as const,
  load(id: string) {
    const file = id.split("?")[0]!;
    if (!file.endsWith(".wgsl")) return null;
    return `export default ${JSON.stringify(readFileSync(file, "utf8"))};`;
  },
};

export default defineConfig({
  plugins: [wgsl],
  test: {
    include: ["tests/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
