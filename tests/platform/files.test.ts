// The disk store: what is written appears whole or not at all, and every failure has a code and a path.

import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { type DiskCalls, DiskFiles } from "../../src/platform/files.ts";

let folder: string;
const files = new DiskFiles();

beforeAll(async () => {
  folder = await fs.mkdtemp(join(tmpdir(), "longtail-files-"));
});
afterAll(() => fs.rm(folder, { recursive: true, force: true }));

const failure = (promise: Promise<unknown>): Promise<LongtailError> =>
  promise.then(
    () => {
      throw new Error("nothing was thrown");
    },
    (error) => error,
  );

/** The real disk, except that writing fails after `bytes` bytes. */
function diskOf(bytes: number, code = "ENOSPC"): DiskCalls {
  return {
    rename: fs.rename,
    rm: fs.rm,
    statfs: fs.statfs,
    open: (async (path: string, flags: string) => {
      const handle = await fs.open(path, flags);
      const write = handle.write.bind(handle);
      let left = bytes;
      handle.write = (async (chunk: Uint8Array, offset: number, length: number) => {
        if (left <= 0) throw Object.assign(new Error(`${code}: no space left on device, write`), { code });
        const part = Math.min(length, left);
        left -= part;
        return await write(chunk, offset, part);
      }) as unknown as typeof handle.write;
      return handle;
    }) as typeof fs.open,
  };
}

describe("writing", () => {
  it("gives back what was written, from text, bytes and streams of chunks", async () => {
    const path = join(folder, "new", "folder", "a.bin");
    await files.writeAtomic(path, "grüße");
    expect(await files.readText(path)).toBe("grüße");
    await files.writeAtomic(path, Uint8Array.of(1, 2, 3));
    expect([...(await files.readBytes(path))]).toEqual([1, 2, 3]);
    await files.writeAtomic(
      path,
      (async function* () {
        yield Uint8Array.of(4);
        yield Uint8Array.of();
        yield Uint8Array.of(5, 6);
      })(),
    );
    expect([...(await files.readBytes(path))]).toEqual([4, 5, 6]);
    await files.writeAtomic(path, [Uint8Array.of(7), Uint8Array.of(8)]);
    expect([...(await files.readBytes(path))]).toEqual([7, 8]);
  });

  it("leaves the old file and no temporary one when the source of the data fails", async () => {
    const path = join(folder, "torn", "a.txt");
    await files.writeAtomic(path, "old");
    const broken = (async function* () {
      yield new TextEncoder().encode("half of the n");
      throw new Error("the source broke");
    })();
    expect((await failure(files.writeAtomic(path, broken))).message).toBe("the source broke");
    expect(await files.readText(path)).toBe("old");
    expect(await fs.readdir(join(folder, "torn"))).toEqual(["a.txt"]);
  });

  it("shows a reader the old content until the new one is whole", async () => {
    const path = join(folder, "during", "a.txt");
    await files.writeAtomic(path, "old");
    await files.writeAtomic(
      path,
      (async function* () {
        yield new TextEncoder().encode("ne");
        expect(await files.readText(path)).toBe("old");
        expect(await files.list(join(folder, "during"))).toEqual(["a.txt"]);
        yield new TextEncoder().encode("w");
      })(),
    );
    expect(await files.readText(path)).toBe("new");
  });

  it("does not list the temporary file of a writer that was killed, and removes it after a day", async () => {
    const place = join(folder, "killed");
    await files.writeAtomic(join(place, "good.bin"), "good");
    const dead = join(place, "state.bin.longtail-tmp-0123abcd");
    await fs.writeFile(dead, "half");
    expect(await files.list(place)).toEqual(["good.bin"]);
    expect(await files.exists(join(place, "state.bin"))).toBe(false);
    expect(await files.removeAbandoned(place)).toEqual([]);
    const yesterday = new Date(Date.now() - 25 * 3_600_000);
    await fs.utimes(dead, yesterday, yesterday);
    expect(await files.removeAbandoned(place)).toEqual(["state.bin.longtail-tmp-0123abcd"]);
    expect(await fs.readdir(place)).toEqual(["good.bin"]);
  });

  it("names path and free space when the disk is full, and removes its half", async () => {
    const path = join(folder, "full", "a.bin");
    await files.writeAtomic(path, "old");
    const error = await failure(new DiskFiles(diskOf(100)).writeAtomic(path, new Uint8Array(1000)));
    expect(error).toBeInstanceOf(LongtailError);
    expect(error.code).toBe("E-ENV-020");
    expect(error.exitCode).toBe(3);
    expect(error.message).toContain(path);
    expect(error.message).toMatch(/[\d.]+ MB are free/);
    expect(await files.readText(path)).toBe("old");
    expect(await fs.readdir(join(folder, "full"))).toEqual(["a.bin"]);
  });

  it("writes everything when the system takes less than it was given", async () => {
    const path = join(folder, "short", "a.bin");
    const calls = diskOf(Number.POSITIVE_INFINITY);
    const slow: DiskCalls = {
      ...calls,
      open: (async (file: string, flags: string) => {
        const handle = await fs.open(file, flags);
        const write = handle.write.bind(handle);
        handle.write = ((chunk: Uint8Array, offset: number, length: number) =>
          write(chunk, offset, Math.min(7, length))) as unknown as typeof handle.write;
        return handle;
      }) as typeof fs.open,
    };
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    await new DiskFiles(slow).writeAtomic(path, bytes);
    expect(await files.readBytes(path)).toEqual(bytes);
  });

  it("moves a folder in one step and refuses to overwrite a finished one", async () => {
    const from = join(folder, "move", "step.tmp");
    const to = join(folder, "move", "step");
    await files.writeAtomic(join(from, "a"), "1");
    await files.rename(from, to);
    expect(await files.list(to)).toEqual(["a"]);
    await files.writeAtomic(join(from, "a"), "2");
    expect((await failure(files.rename(from, to))).code).toBe("E-FILE-004");
    expect(await files.readText(join(to, "a"))).toBe("1");
    expect((await failure(files.rename(join(folder, "nothing"), to))).code).toBe("E-FILE-001");
  });

  it("appends lines and removes folders", async () => {
    const path = join(folder, "log", "log.jsonl");
    await files.append(path, "a\n");
    await files.append(path, "b\n");
    expect(await files.readText(path)).toBe("a\nb\n");
    await files.remove(join(folder, "log"));
    await files.remove(join(folder, "log"));
    expect(await files.exists(path)).toBe(false);
  });
});

describe("reading", () => {
  it("reads ranges", async () => {
    const path = join(folder, "ranges.bin");
    await files.writeAtomic(path, Uint8Array.of(0, 1, 2, 3, 4, 5));
    const handle = await files.open(path);
    expect(handle.size).toBe(6);
    expect([...(await handle.read(2, 3))]).toEqual([2, 3, 4]);
    expect([...(await handle.read(6, 0))]).toEqual([]);
    await handle.close();
  });

  it("refuses a range beyond the end, even an absurd one, without taking its memory", async () => {
    const path = join(folder, "short.bin");
    await files.writeAtomic(path, new Uint8Array(10));
    const handle = await files.open(path);
    for (const [offset, length] of [
      [5, 6],
      [0, 2 ** 45],
    ] as const) {
      const error = await failure(handle.read(offset, length));
      expect(error.code).toBe("E-FILE-003");
      expect(error.message).toContain(path);
    }
    await handle.close();
  });

  it("notices a file that was cut after it was opened", async () => {
    const path = join(folder, "cut.bin");
    await files.writeAtomic(path, new Uint8Array(10));
    const handle = await files.open(path);
    await fs.truncate(path, 4);
    expect((await failure(handle.read(0, 10))).code).toBe("E-FILE-003");
    await handle.close();
  });

  it("names a missing file and a folder in a file's place", async () => {
    const missing = join(folder, "nowhere.bin");
    for (const read of [files.open(missing), files.readBytes(missing), files.readText(missing)].map(failure)) {
      const error = await read;
      expect(error.code).toBe("E-FILE-001");
      expect(error.exitCode).toBe(4);
      expect(error.message).toContain(missing);
    }
    for (const read of [files.open(folder), files.readBytes(folder)].map(failure)) {
      const error = await read;
      expect(error.code).toBe("E-FILE-004");
      expect(error.message).toContain("folder");
    }
  });

  it("lists sorted names, and nothing where there is no folder", async () => {
    const place = join(folder, "sorted");
    for (const name of ["b", "a", "c"]) await files.writeAtomic(join(place, name), name);
    expect(await files.list(place)).toEqual(["a", "b", "c"]);
    expect(await files.list(join(place, "none"))).toEqual([]);
  });

  it("tells the free space also for a folder that does not exist yet", async () => {
    expect(await files.freeSpace(join(folder, "not", "yet", "here"))).toBeGreaterThan(0);
  });
});
