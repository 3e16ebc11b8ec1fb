// A thousand hostile inputs, of which fifty run every time: each must end in pictures, in a report of what was dropped or
// in an error with a code, soon, and without taking memory that its size does not justify.

import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { assignBuckets } from "../../src/data/pictures/buckets.ts";
import { openPictureSets } from "../../src/data/pictures/sets.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { HOSTILE_KINDS, type HostileInput, hostileInput } from "../helpers/hostile.ts";
import { pngOf } from "../helpers/pictures.ts";

const SEED = 20_261_123;
const ALL = 1000;
const SAMPLE = 50;
/** Of the processor's time, so that other work on the machine does not count. */
const LONGEST_MS = 2000;
/** Peak memory of the process while all inputs are read, beyond what it had. */
const MOST_MEMORY = 700 * 1024 * 1024;
const CODE = /^E-(DATA|FILE)-\d{3}$/;

const isLong = Boolean(process.env.LONGTAIL_LONG);
/** Inputs of every kind, spread over all thousand. */
const numbers = isLong
  ? Array.from({ length: ALL }, (_, n) => n)
  : Array.from({ length: SAMPLE }, (_, i) => (i % HOSTILE_KINDS.length) + HOSTILE_KINDS.length * ((i * 7) % 38)).filter(
      (n) => n < ALL,
    );

async function outcome({ files: content, set }: HostileInput): Promise<string> {
  const files = new MemoryFiles(content);
  try {
    const collection = await openPictureSets(files, [set], { validationShare: 0.2 });
    try {
      for (const file of collection.dropped) expect(file.code).toMatch(CODE);
      for (const { why } of collection.dropped) expect(why).not.toMatch(/[\u0000-\u0008]|undefined|TypeError/);
      assignBuckets(collection.pictures, { resolution: 64, step: 16 });
      for (const picture of collection.pictures) {
        expect(picture.captions.length).toBeGreaterThan(0);
        expect(picture.captions.every((caption) => caption !== "" && caption.length <= 20_000)).toBe(true);
        const loaded = await picture.load().catch((error) => error);
        if (!(loaded instanceof LongtailError))
          expect([loaded.width, loaded.height]).toEqual([picture.width, picture.height]);
      }
      return collection.dropped.length > 0 ? "reported" : "read";
    } finally {
      await collection.close();
    }
  } catch (error) {
    if (!(error instanceof LongtailError)) throw error;
    expect(error.code).toMatch(CODE);
    return "refused";
  } finally {
    expect(files.openHandles).toBe(0);
  }
}

describe("hostile inputs", () => {
  test(`${numbers.length} of them end in a report or an error with a code, soon and within memory`, {
    timeout: 1_200_000,
  }, async () => {
    const failures: string[] = [];
    const counts: Record<string, number> = {};
    let slowest = 0;
    const before = process.resourceUsage().maxRSS * 1024;
    for (const n of numbers) {
      const input = hostileInput(SEED, n);
      const started = process.cpuUsage();
      try {
        const result = await outcome(input);
        counts[result] = (counts[result] ?? 0) + 1;
      } catch (error) {
        failures.push(`${n} ${input.kind}: ${(error as Error).stack?.slice(0, 600)}`);
      }
      const { user, system } = process.cpuUsage(started);
      const took = (user + system) / 1000;
      slowest = Math.max(slowest, took);
      if (took > LONGEST_MS) failures.push(`${n} ${input.kind}: ${took.toFixed(0)} ms`);
    }
    const grown = process.resourceUsage().maxRSS * 1024 - before;
    if (process.env.LONGTAIL_PARITY === "print")
      console.log(
        `hostile | ${JSON.stringify(counts)} | slowest ${slowest.toFixed(0)} ms | memory ${(grown / 2 ** 20).toFixed(0)} MB`,
      );
    expect(failures).toEqual([]);
    expect(grown).toBeLessThan(MOST_MEMORY);
    expect(counts["refused"]! + counts["reported"]!).toBeGreaterThan(numbers.length / 3);
  });

  test("links that lead back to a folder above are reported, and each picture is found once", async () => {
    const folder = await mkdtemp(join(tmpdir(), "longtail-links-"));
    try {
      await writeFile(join(folder, "a.png"), pngOf(4, 4));
      try {
        await symlink(folder, join(folder, "loop"), "dir");
        await symlink(folder, join(folder, "again"), "dir");
        await symlink(join(folder, "nowhere"), join(folder, "dead.png"));
      } catch {
        return; // some systems let only administrators make links
      }
      const collection = await openPictureSets(new DiskFiles(), [{ path: folder, caption: "x" }]);
      expect(collection.pictures.map((picture) => picture.name)).toEqual(["a.png"]);
      expect(collection.dropped.map((file) => [file.name, file.code]).toSorted()).toEqual([
        ["again", "E-DATA-048"],
        ["dead.png", "E-FILE-001"],
        ["loop", "E-DATA-048"],
      ]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("folders of one name in one another are no loop", async () => {
    const collection = await openPictureSets(new MemoryFiles({ "d/d/d/d/a.png": pngOf(4, 4) }), [
      { path: "d", caption: "x" },
    ]);
    expect(collection.pictures.map((picture) => picture.name)).toEqual(["d/d/d/a.png"]);
  });
});
