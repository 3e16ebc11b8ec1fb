import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { FUNCTIONS } from "../../src/tensor/epilogue.ts";
import { testGpu } from "../helpers/gpu.ts";
import { casesOf, runEntry } from "../helpers/table.ts";
import { operationsMarkdown } from "./operations_doc.ts";
import { NOT_OPERATIONS, OPERATIONS, OTHER_KERNELS } from "./table.ts";

const root = join(import.meta.dirname, "../..");
const shaders = readdirSync(join(root, "shaders")).filter((f) => f.endsWith(".wgsl"));
const nameOfSource = new Map(shaders.map((f) => [readFileSync(join(root, "shaders", f), "utf8"), f]));

const ran = new Set<string>();
const folded = new Set<string>();
const long = process.env.LONGTAIL_LONG === "1";
const EXTRA = long ? 40 : 2;

describe("the table of operations", () => {
  it("has every file of src/ops, every kernel and every pointwise function", () => {
    const files = readdirSync(join(root, "src/ops")).filter((f) => f.endsWith(".ts") && !NOT_OPERATIONS.includes(f));
    expect([...new Set(OPERATIONS.map((e) => e.file))].sort()).toEqual(files.sort());
    const kernels = new Set(OPERATIONS.flatMap((e) => [...e.kernels, ...(e.adapterKernels ?? [])]));
    expect([...kernels, ...OTHER_KERNELS.filter((k) => !kernels.has(k))].sort()).toEqual([...shaders].sort());
    const functions = new Set(OPERATIONS.flatMap((e) => e.functions ?? []));
    expect([...FUNCTIONS].filter((f) => !functions.has(f))).toEqual([]);
  });

  it("is what docs/operations.md says", () => {
    const written = readFileSync(join(root, "docs/operations.md"), "utf8");
    expect(written === operationsMarkdown(), "stale: run deno run -A --no-check scripts/generate_operations.ts").toBe(
      true,
    );
  });
});

describe("agrees with float64 in values and gradients, to the same bits each time and on folded grids:", () => {
  for (const [number, entry] of OPERATIONS.entries()) {
    it(entry.name, async () => {
      const { f16 } = (await testGpu()).facts;
      const all = casesOf(entry, EXTRA, 1000 + number);
      const cases = all.filter((c) => f16 || (!c.stored && c.inputs.every((x) => x.dtype !== "f16")));
      if (cases.length < all.length)
        console.warn(`${entry.name}: ${all.length - cases.length} cases skipped, the adapter has no shader-f16`);
      const { measured, sources, folded: here } = await runEntry(entry, cases);
      for (const source of here) folded.add(nameOfSource.get(source)!);
      const names = [...sources].map((s) => nameOfSource.get(s)!);
      for (const name of names) ran.add(name);
      const known = [...entry.kernels, ...(entry.adapterKernels ?? []), "copy.wgsl"];
      expect(
        names.filter((n) => !known.includes(n)),
        "kernels that the table does not name",
      ).toEqual([]);
      expect(
        entry.kernels.filter((k) => !names.includes(k)),
        "kernels that no case calls",
      ).toEqual([]);
      const worst = measured.reduce((a, b) => (b.worst > a.worst ? b : a));
      if (process.env.LONGTAIL_SHOW)
        console.log(
          `@ ${entry.name} | ${worst.error.toExponential(1)} | ${worst.tolerance.toExponential(1)} | ${worst.what} of ${worst.label}`,
        );
      const failures = measured.filter((m) => !(m.worst <= 1));
      expect(
        failures.map(
          (m) => `${m.label}: ${m.what} off by ${m.error.toExponential(2)}, tolerance ${m.tolerance.toExponential(2)}`,
        ),
      ).toEqual([]);
    });
  }
});

describe("grids beyond the limit of a dispatch", () => {
  it("were met by every kernel that the table runs", (context) => {
    // A run of chosen tests alone cannot tell.
    if (ran.size < shaders.length - OTHER_KERNELS.length - 1) return context.skip("not all operations ran");
    expect([...ran].filter((name) => !folded.has(name))).toEqual([]);
  });
});
