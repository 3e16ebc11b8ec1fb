// Writes docs/errors.md from the codes in the source.
//   deno run -A --no-check scripts/generate_errors.ts [--check]
// With --check it writes nothing and ends with 1 where the file is stale.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { allErrorUses, errorsMarkdown } from "./error_codes.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, "docs", "errors.md");
const text = errorsMarkdown(allErrorUses(root));
let current = "";
try {
  current = readFileSync(target, "utf8");
} catch {
  // A missing file is a stale one.
}
if (current !== text) {
  if (process.argv.includes("--check")) {
    console.error("docs/errors.md is stale: run deno run -A --no-check scripts/generate_errors.ts");
    process.exit(1);
  }
  writeFileSync(target, text);
  console.log("docs/errors.md written");
}
