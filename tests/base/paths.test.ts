import * as posix from "node:path/posix";
import { describe, expect, it } from "vitest";
import { basename, dirname, join } from "../../src/base/paths.ts";

const PATHS = [
  "a",
  "a/b",
  "/a",
  "/",
  "a/b/",
  "./a",
  "../a",
  "../../a/b",
  ".",
  "..",
  "a/..",
  "a/b/../c.txt",
  "/a/../..",
];

describe("paths without a platform", () => {
  it("are taken apart and joined as node does on POSIX", () => {
    for (const path of PATHS) {
      expect(dirname(path), `dirname ${path}`).toBe(posix.dirname(path));
      expect(basename(path), `basename ${path}`).toBe(posix.basename(path));
      for (const other of PATHS) {
        const expected = posix.join(path, other);
        expect(join(path, other), `${path} and ${other}`).toBe(
          expected.length > 1 ? expected.replace(/\/$/, "") : expected,
        );
      }
    }
    expect(join("", "a", "", "b")).toBe("a/b");
    expect(join("")).toBe(".");
  });

  it("are read with Windows' separator too", () => {
    expect(basename("C:\\runs\\first")).toBe("first");
    expect(dirname("C:\\runs\\first")).toBe("C:\\runs");
  });
});
