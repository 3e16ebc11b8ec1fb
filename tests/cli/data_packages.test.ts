// Fetching art where there is no network, and art that is not what was pinned.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterEach, describe, expect, it } from "vitest";
import { fetchPackages, packagePath } from "../../src/cli/data/packages.ts";
import { DiskFiles } from "../../src/platform/files.ts";

const pinned = { package: "@iconify-json/noto", version: "1.2.9", file: "icons.json", sha256: "0".repeat(64) };
const folders: string[] = [];

async function cache(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "longtail-emoji-"));
  folders.push(folder);
  return folder;
}

afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

describe("fetching packages", () => {
  it("says what to do where npm reaches no registry", async () => {
    const before = { ...process.env };
    Object.assign(process.env, { npm_config_registry: "http://127.0.0.1:9/", npm_config_fetch_retries: "0" });
    try {
      const said: string[] = [];
      const folder = await cache();
      const work = fetchPackages(new DiskFiles(), folder, [pinned], (text) => said.push(text));
      await expect(work).rejects.toThrow(/E-ENV-080.*could not fetch.*npm install.*@iconify-json\/noto@1\.2\.9/s);
      expect(said[0]).toContain("@iconify-json/noto@1.2.9");
    } finally {
      for (const key of ["npm_config_registry", "npm_config_fetch_retries"]) {
        if (before[key] === undefined) delete process.env[key];
        else process.env[key] = before[key];
      }
    }
  });

  it("refuses a file of the right version that is not the pinned one, without asking npm", async () => {
    const files = new DiskFiles();
    const folder = await cache();
    const at = (file: string) => packagePath(folder, pinned.package, file);
    await files.makeFolder(join(at("x"), ".."));
    await files.writeAtomic(at("package.json"), JSON.stringify({ version: "1.2.9" }));
    await files.writeAtomic(at("icons.json"), "{}");
    const work = fetchPackages(files, folder, [pinned], () => expect.unreachable());
    await expect(work).rejects.toThrow(/E-DATA-081.*icons\.json.*SHA-256/);
  });
});
