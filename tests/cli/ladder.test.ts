// The ladder of settings that `longtail plan --memory` shows.

import { describe, expect, it } from "vitest";
import { ladderText, parseMemory, type Rung } from "../../src/cli/train/ladder.ts";

describe("a size of memory", () => {
  it("is read in binary and decimal units, with and without a space", () => {
    expect(parseMemory("24GiB")).toBe(24 * 2 ** 30);
    expect(parseMemory("6000 MiB")).toBe(6000 * 2 ** 20);
    expect(parseMemory("8gb")).toBe(8e9);
    expect(parseMemory("1.5GB")).toBe(1.5e9);
  });

  it("is refused without a unit or with a sign", () => {
    for (const text of ["24", "-1GiB", "GiB", "24TiB", "1e3MiB", ""]) {
      expect(() => parseMemory(text), text).toThrow(/E-ARG-084.*not a size of memory.*Fix: as in --memory=24GiB/);
    }
  });
});

describe("the ladder's text", () => {
  const rung = (change: string[], mebibytes: number, available: number): Rung => ({
    change,
    bytes: mebibytes * 2 ** 20,
    fits: mebibytes <= available,
  });

  it("names the first rung that fits", () => {
    const rungs = [rung([], 80, 60), rung(["--model.storage=int8"], 54, 60), rung(["--model.storage=nf4"], 50, 60)];
    const text = ladderText(rungs, 60 * 2 ** 20, 100);
    expect(text).toMatch(/as configured +80\.0 MiB +no/);
    expect(text).toMatch(/the first that fits: --model\.storage=int8$/);
  });

  it("says that the configuration fits as it is, or that nothing does", () => {
    expect(ladderText([rung([], 50, 60)], 60 * 2 ** 20, 100)).toMatch(/the configuration fits as it is$/);
    expect(ladderText([rung([], 80, 60)], 60 * 2 ** 20, 100)).toMatch(/none of these fits; lower data\.resolution/);
  });
});
