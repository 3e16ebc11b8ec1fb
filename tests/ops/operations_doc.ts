// The text of docs/operations.md, made from the table of operations.

import { type Entry, tolerance } from "./table/types.ts";
import { OPERATIONS } from "./table.ts";

const HEAD = `# Operations

Made from the table that the tests run, by \`deno run -A --no-check scripts/generate_operations.ts\`; do not edit by hand.

Every operation is a function of \`src/ops\`. Arithmetic is f32 whatever the storage; sums run in a fixed order, so the same
inputs give the same bits each time. The tests compare values and gradients with float64, gradients with finite differences
of the float64 reference. *Error* is the largest relative L2 error that they accept: \`s (3e-7 + 1.2e-7 √K)\` for sums of K
terms, with the factor s in the last column where it is not 1, and 5e-4 more where a value is stored as f16. The numbers
shown are those of the smallest and the largest sample.
`;

const cell = (text: string) => text.replaceAll("|", "\\|") || "–";
const code = (names: readonly string[]) => names.map((n) => `\`${n.replace(/\.wgsl$/, "")}\``).join(", ");

function row(entry: Entry): string {
  const bounds = entry.cases.filter((c) => !c.stored).map((c) => tolerance(entry, c));
  const [low, high] = [Math.min(...bounds), Math.max(...bounds)].map((x) => x.toExponential(0));
  const kernels = [...entry.kernels, ...(entry.adapterKernels ?? [])];
  return `| ${[
    `\`${entry.name}\``,
    cell(entry.formula),
    cell(entry.shapes),
    cell(entry.types),
    cell(entry.gradient),
    cell(code(kernels)),
    low === high ? low! : `${low} – ${high}`,
    cell(entry.slack ? `${entry.slack[0]}: ${entry.slack[1]}` : ""),
  ].join(" | ")} |`;
}

export function operationsMarkdown(): string {
  const parts = [HEAD];
  for (const file of [...new Set(OPERATIONS.map((e) => e.file))]) {
    parts.push(`## src/ops/${file}\n`);
    parts.push("| operation | formula | shapes | element types | gradient | kernels | error | factor s |");
    parts.push("|---|---|---|---|---|---|---|---|");
    for (const entry of OPERATIONS.filter((e) => e.file === file)) parts.push(row(entry));
    parts.push("");
  }
  return `${parts.join("\n").trimEnd()}\n`;
}
