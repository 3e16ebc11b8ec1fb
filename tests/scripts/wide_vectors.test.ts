// Which processors the software GPU computes on with vectors of 512 bits.

import fs from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { hasFastWideVectors } from "../../scripts/soft-gpu.mjs";

const folder = fs.mkdtempSync(join(os.tmpdir(), "longtail-cpuinfo-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** What /proc/cpuinfo says of two cores with these flags. */
function cpuinfo(name: string, flags: string): string {
  const file = join(folder, name);
  const core = `processor\t: 0\nmodel name\t: ${name}\nflags\t\t: fpu sse2 ${flags} avx2\nbugs\t\t:\n\n`;
  fs.writeFileSync(file, core + core);
  return file;
}

describe("vectors of 512 bits", () => {
  it("are asked for where AVX-512 does not slow the processor down", () => {
    const flags = "avx512f avx512dq avx512cd avx512bw avx512vl";
    expect(hasFastWideVectors(cpuinfo("Ice Lake", `${flags} avx512vbmi avx512_vbmi2`))).toBe(true);
    expect(hasFastWideVectors(cpuinfo("Skylake", flags))).toBe(false);
  });

  it("are not asked for without AVX-512, or where nothing tells", () => {
    expect(hasFastWideVectors(cpuinfo("Zen 3", "avx"))).toBe(false);
    expect(hasFastWideVectors(cpuinfo("half of it", "avx512_vbmi2 avx512f"))).toBe(false);
    expect(hasFastWideVectors(join(folder, "missing"))).toBe(false);
  });
});
