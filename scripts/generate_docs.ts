// Writes docs/options.md from the configuration schema. With --check it writes nothing and ends with 1 where the file is stale.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { optionsMarkdown } from "../src/runs/config/options_doc.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const presets = join(root, "presets");
const target = join(root, "docs", "options.md");

const text = optionsMarkdown(
  readdirSync(presets)
    .filter((name) => name.endsWith(".toml"))
    .sort()
    .map((name) => ({ name: name.slice(0, -5), text: readFileSync(join(presets, name), "utf8") })),
);
let current = "";
try {
  current = readFileSync(target, "utf8");
} catch {
  // A missing file is a stale one.
}
if (process.argv.includes("--check")) {
  if (current !== text) {
    console.error("docs/options.md is stale: run deno run -A --no-check scripts/generate_docs.ts");
    process.exit(1);
  }
} else if (current !== text) {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
  console.log("docs/options.md written");
}
