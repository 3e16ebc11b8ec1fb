// The other implementation of WebGPU in the same process: Deno's own (wgpu, no subgroups) where the suite runs on Dawn,
// and Dawn where LONGTAIL_TEST_GPU=deno. One case of every operation, in one session; LONGTAIL_TEST_GPU runs everything.

import process from "node:process";
import { describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { runMany, testGpu } from "../helpers/gpu.ts";
import { jobOf, measure } from "../helpers/table.ts";
import { Draw } from "./table/types.ts";
import { OPERATIONS } from "./table.ts";

const other = process.env.LONGTAIL_TEST_GPU === "deno" ? "dawn" : "deno";

describe(`the ${other === "deno" ? "WebGPU that Deno brings along" : "WebGPU of Dawn"}`, () => {
  it("gives every operation's values and gradients as float64 does", async (context) => {
    const gpu = await testGpu(other).catch((error: unknown) => {
      if (error instanceof LongtailError && error.code.startsWith("E-ENV-")) return error;
      throw error;
    });
    if (gpu instanceof LongtailError) return context.skip(`no adapter: ${gpu.message}`);
    const draw = new Draw(11);
    const chosen = OPERATIONS.map((entry) => {
      const usable = entry.cases.filter(
        (c) => gpu.facts.f16 || (!c.stored && c.inputs.every((x) => x.dtype !== "f16")),
      );
      return { entry, c: draw.pick(usable) };
    });
    const jobs = chosen.map(({ entry, c }) => jobOf(entry, c, false, false));
    const results = await runMany(jobs, { gpu });
    const failures = chosen.flatMap(({ entry, c }, i) => {
      const m = measure(entry, c, results[i]!, jobs[i]!.seeds as Float64Array[] | undefined);
      return m.worst <= 1
        ? []
        : [
            `${entry.name} ${m.label}: ${m.what} off by ${m.error.toExponential(2)}, tolerance ${m.tolerance.toExponential(2)}`,
          ];
    });
    expect(failures).toEqual([]);
  });
});
