import { describe, expect, it } from "vitest";
import { LongtailError, nearestName } from "../../src/base/errors.ts";

describe("LongtailError", () => {
  it("prints code, place, cause and fix in one line", () => {
    const error = new LongtailError("E-FILE-002", {
      what: "the file is missing",
      where: "a.bin",
      why: "it was never written",
      fix: "run it again",
    });
    expect(error.message).toBe("E-FILE-002 a.bin: the file is missing → it was never written. Fix: run it again");
  });

  it("takes its exit code from the area of its code", () => {
    expect(new LongtailError("E-ENV-001", { what: "no adapter" }).exitCode).toBe(3);
    expect(new LongtailError("E-CFG-001", { what: "unknown key" }).exitCode).toBe(2);
    expect(new LongtailError("E-NUM-001", { what: "not finite" }).exitCode).toBe(5);
  });
});

describe("nearestName", () => {
  it("finds the key that a typo was meant to be", () => {
    expect(nearestName("stpes", ["steps", "seed", "lr"])).toBe("steps");
  });
  it("stays silent where nothing is near", () => {
    expect(nearestName("photosynthesis", ["steps", "seed", "lr"])).toBeNull();
  });
});
