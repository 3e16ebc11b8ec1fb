// A run on a real file system of two megabytes: the checkpoint does not fit. Needs the right to mount one.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { longtail, SMALL_RUN } from "../helpers/processes.ts";

const folder = mkdtempSync(join(tmpdir(), "longtail-full-"));
const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=2m", "longtail-test", folder]).status === 0;
afterAll(() => {
  if (mounted) spawnSync("umount", [folder]);
  rmSync(folder, { recursive: true, force: true });
});

it.skipIf(!mounted)(
  "ends with one error where the disk fills up, and leaves nothing half-written",
  async () => {
    const run = await longtail(["demo", "--name=full", `--run.folder=${folder}`, "--align.steps=1", ...SMALL_RUN]);
    expect(run.errors).toMatch(/^E-ENV-020 .*ckpt.*the disk is full.*Fix: .+\n$/);
    expect(run.code).toBe(3);
    expect(readdirSync(join(folder, "full/ckpt"))).toEqual([]);
    expect(JSON.parse(readFileSync(join(folder, "full/run.json"), "utf8"))).toMatchObject({ state: "failed" });
    expect(
      (readdirSync(folder, { recursive: true }) as string[]).filter((name) => /longtail-tmp|partial/.test(name)),
    ).toEqual([]);

    // Full to the last byte: not even a picture fits, or the log.
    writeFull(join(folder, "filler"));
    const sample = await longtail([
      "sample",
      "icon of taco",
      `--output=${folder}/pictures`,
      "--sample.steps=1",
      ...SMALL_RUN,
    ]);
    expect(sample.errors).toMatch(/^E-ENV-020 .*Fix: .+\n$/);
    expect(sample.code).toBe(3);
    expect(
      (readdirSync(folder, { recursive: true }) as string[]).filter((name) => name.startsWith("pictures/")),
    ).toEqual([]);
  },
  300_000,
);

/** Writes until nothing more fits. */
function writeFull(path: string): void {
  for (const size of [1 << 16, 1 << 12]) {
    for (let i = 0; i < 64; i++) {
      try {
        writeFileSync(path, new Uint8Array(size), { flag: "a" });
      } catch {
        break;
      }
    }
  }
}
