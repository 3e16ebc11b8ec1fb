// Writes docs/operations.md from the table of operations that the tests run (tests/ops/table.ts).
//   deno run -A --no-check scripts/generate_operations.ts [--check]
// With --check it writes nothing and ends with 1 where the file is stale.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { operationsMarkdown } from "../tests/ops/operations_doc.ts";

const target = join(dirname(dirname(fileURLToPath(import.meta.url))), "docs", "operations.md");
const text = operationsMarkdown();
let current = "";
try {
  current = readFileSync(target, "utf8");
} catch {
  // A missing file is a stale one.
}
if (current !== text) {
  if (process.argv.includes("--check")) {
    console.error("docs/operations.md is stale: run deno run -A --no-check scripts/generate_operations.ts");
    process.exit(1);
  }
  writeFileSync(target, text);
  console.log("docs/operations.md written");
}
