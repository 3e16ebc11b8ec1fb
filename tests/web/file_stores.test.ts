// The file stores on a disk and in memory keep to one contract; the browser's own is held to it in files.test.ts.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { FileStore } from "../../src/base/files.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { MemoryFiles } from "../../src/web/files/memory.ts";
import { decodeName, encodeName, plainPath } from "../../src/web/files/opfs_names.ts";
import { RoutedFiles } from "../../src/web/files/routed.ts";
import { FILE_STORE_CASES } from "./file_store_cases.ts";

const folder = mkdtempSync(join(tmpdir(), "longtail-stores-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const STORES: [string, FileStore, string][] = [
  ["on a disk", new DiskFiles(), folder],
  ["in memory", new MemoryFiles(), "base"],
  ["routed", new RoutedFiles(new MemoryFiles(), new MemoryFiles()), "runs/base"],
];

for (const [title, files, base] of STORES) {
  describe(`a file store ${title}`, () => {
    FILE_STORE_CASES.forEach(({ name, run }, i) => {
      test(name, async () => {
        await files.makeFolder(`${base}/${i}`);
        await run(files, `${base}/${i}`);
      });
    });
  });
}

describe("routed files", () => {
  test("come from the page below models and presets, and from the browser's storage elsewhere", async () => {
    const assets = new MemoryFiles();
    await assets.writeAtomic("models/a", "asset");
    await assets.writeAtomic("presets/lora.toml", "preset");
    const own = new MemoryFiles();
    await own.writeAtomic("models/hidden", "never seen");
    const files = new RoutedFiles(assets, own);
    await files.writeAtomic("runs/mine/log.jsonl", "log");
    expect(await files.readText("runs/mine/../../models/a")).toBe("asset");
    expect(await files.list("")).toEqual(["models", "presets", "runs"]);
    expect(await files.exists("models/hidden")).toBe(false);
    expect(await own.readText("runs/mine/log.jsonl")).toBe("log");
    await expect(files.rename("runs/mine", "models/mine")).rejects.toMatchObject({ code: "E-FILE-004" });
  });
});

describe("names in the browser's storage", () => {
  test("are the names themselves wherever the browser takes them, and always come back", () => {
    expect(encodeName("log.jsonl")).toBe("log.jsonl");
    expect(encodeName("50% of ä")).toBe("50% of ä");
    expect(encodeName("a\\b\n%41")).toBe("a%5cb%0a%2541");
    for (const name of ["a\\b\n%41", "%25", "%", "%%41", "\u007f", "a%5cb"])
      expect(decodeName(encodeName(name))).toBe(name);
  });

  test("cannot lead out of the storage", () => {
    expect(plainPath("/../../a/./b//../c/")).toBe("a/c");
    expect(new LongtailError("E-FILE-001", { what: "x" }).exitCode).toBe(4);
  });
});
