// The cache of encoded pictures and captions: names, verification of what lies on the disk, its memory, full disks, and two
// processes that write the same entry.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { EncodingCache, type EntryArrays } from "../../src/training/encoding_cache.ts";
import { MemoryFiles, ROOT } from "../helpers/files.ts";
import { FullDisk } from "../helpers/full_disk.ts";

const FACTS = { picture: "4f1a", width: 64, height: 48, flip: false, scale: 0.3611, crop: "center" };
const entry = (seed: number, length = 96): EntryArrays => ({
  latents: Float32Array.from({ length }, (_, i) => Math.sin(seed + i)),
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-cache-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the name of an entry", () => {
  const cache = new EncodingCache(new MemoryFiles(), null);

  it("depends on every fact, on the kind, and not on the order of the facts", async () => {
    const key = await cache.key("picture", FACTS);
    const turned = Object.fromEntries(Object.entries(FACTS).reverse());
    expect(await cache.key("picture", turned)).toBe(key);
    const others = new Set([key, await cache.key("text", FACTS)]);
    const changed = { picture: "4f1b", width: 48, height: 64, flip: true, scale: 0.3612, crop: "random" };
    for (const [name, value] of Object.entries(changed)) {
      others.add(await cache.key("picture", { ...FACTS, [name]: value }));
      const without = Object.fromEntries(Object.entries(FACTS).filter(([other]) => other !== name));
      others.add(await cache.key("picture", without));
    }
    others.add(await cache.key("picture", { ...FACTS, precision: "f16" }));
    // A number and its digits are two things.
    others.add(await cache.key("picture", { ...FACTS, width: "64" }));
    expect(others.size).toBe(2 + 2 * Object.keys(changed).length + 2);
  });

  it("is a plain file name whatever the facts hold", async () => {
    const key = await cache.key("text", { caption: "../../a\0b/🐈\n" });
    expect(key).toMatch(/^text-[0-9a-f]{40}$/);
  });
});

describe("an entry on disk", () => {
  /** A cache of one entry, and where it lies. */
  async function one() {
    const files = new MemoryFiles();
    const cache = new EncodingCache(files, "cache");
    const key = await cache.key("picture", FACTS);
    await cache.put(key, { ...entry(1), more: Float32Array.of(-0, 1e-40, 3) });
    const [path] = [...files.content.keys()];
    return { files, key, path: path! };
  }
  const fresh = (files: MemoryFiles) => new EncodingCache(files, "cache");

  it("comes back bit for bit in another cache", async () => {
    const { files, key } = await one();
    const cache = fresh(files);
    expect(await cache.has(key)).toBe(true);
    const { found } = await cache.get(key);
    expect(found!["latents"]).toEqual(entry(1)["latents"]);
    expect([...new Uint32Array(found!["more"]!.slice().buffer)]).toEqual([
      ...new Uint32Array(Float32Array.of(-0, 1e-40, 3).buffer),
    ]);
    expect(files.openHandles).toBe(0);
    const other = await cache.key("picture", { ...FACTS, flip: true });
    expect(await cache.has(other)).toBe(false);
    expect(await cache.get(other)).toEqual({ found: null, why: "absent" });
  });

  it("is found damaged at whatever length it is torn, and taken again once it was written anew", async () => {
    const { files, key, path } = await one();
    const whole = files.content.get(path)!;
    for (const length of [0, 1, 7, 8, 9, 100, whole.length - 400, whole.length - 4, whole.length - 1]) {
      files.content.set(path, whole.slice(0, length));
      expect(await fresh(files).get(key), `${length} bytes`).toEqual({ found: null, why: "damaged" });
    }
    expect(files.openHandles).toBe(0);
    await fresh(files).put(key, entry(1));
    expect((await fresh(files).get(key)).found).toEqual(entry(1));
  });

  it("is found damaged where one bit is turned, in its numbers or in its header", async () => {
    const { files, key, path } = await one();
    const whole = files.content.get(path)!;
    const data = 8 + Number(new DataView(whole.buffer, whole.byteOffset).getBigUint64(0, true));
    let refused = 0;
    for (let at = 0; at < whole.length; at += 5) {
      const turned = whole.slice();
      turned[at]! ^= 1 << (at % 8);
      files.content.set(path, turned);
      const { found } = await fresh(files).get(key);
      if (found === null) refused++;
      // A space of the header's padding may become another one, and a name of the metadata that nobody reads another name.
      else expect(at, `byte ${at}`).toBeLessThan(data);
      if (found !== null) expect(found["latents"]).toEqual(entry(1)["latents"]);
    }
    expect(refused).toBeGreaterThan(0.8 * (whole.length / 5));
  });

  it("is found damaged where another program's file, another entry or plain text lies in its place", async () => {
    const { files, key, path } = await one();
    await writeSafetensors(files, path, [{ name: "latents", dtype: "F32", shape: [4], data: new Float32Array(4) }]);
    expect(await fresh(files).get(key)).toEqual({ found: null, why: "damaged" });
    await writeSafetensors(files, path, [{ name: "ids", dtype: "I64", shape: [1], data: new BigInt64Array(1) }]);
    expect(await fresh(files).get(key)).toEqual({ found: null, why: "damaged" });
    files.content.set(path, new TextEncoder().encode("<html>not found</html>"));
    expect(await fresh(files).get(key)).toEqual({ found: null, why: "damaged" });

    // A sound entry under a wrong name: copied by hand, or by a tool that mends broken disks.
    const cache = fresh(files);
    const text = await cache.key("text", { caption: "a cat" });
    await cache.put(text, entry(2));
    const from = [...files.content.keys()].find((name) => name.includes(text))!;
    files.content.set(path, files.content.get(from)!);
    expect(await fresh(files).get(key)).toEqual({ found: null, why: "damaged" });
  });

  it("passes failures of the disk itself on: they are not a reason to encode again", async () => {
    const { files, key } = await one();
    const broken = Object.create(files) as MemoryFiles;
    broken.open = async () => {
      throw new Error("EIO");
    };
    await expect(fresh(broken).get(key)).rejects.toThrow("EIO");
  });
});

describe("memory", () => {
  it("holds everything where there is no folder, above any limit, and writes nothing", async () => {
    const files = new MemoryFiles();
    const cache = new EncodingCache(files, null, 100);
    const keys = await Promise.all([1, 2, 3].map((n) => cache.key("picture", { n })));
    for (const [i, key] of keys.entries()) await cache.put(key, entry(i));
    for (const [i, key] of keys.entries()) {
      expect(await cache.has(key)).toBe(true);
      expect((await cache.get(key)).found).toEqual(entry(i));
    }
    const absent = await cache.key("picture", { n: 4 });
    expect([await cache.has(absent), await cache.get(absent)]).toEqual([false, { found: null, why: "absent" }]);
    expect(files.content.size).toBe(0);
  });

  it("stays below its limit and reads what it let go from the disk again", async () => {
    const files = new MemoryFiles();
    const bytes = 4 * 96;
    const cache = new EncodingCache(files, "cache", 2 * bytes);
    const keys = await Promise.all([0, 1, 2].map((n) => cache.key("picture", { n })));
    for (const [i, key] of keys.entries()) await cache.put(key, entry(i));
    const reads = async (key: string, i: number) => {
      files.reads = 0;
      expect((await cache.get(key)).found).toEqual(entry(i));
      return files.reads > 0;
    };
    // The newest two are held, the first comes from the disk and pushes the next oldest out.
    expect(await reads(keys[2]!, 2)).toBe(false);
    expect(await reads(keys[1]!, 1)).toBe(false);
    expect(await reads(keys[0]!, 0)).toBe(true);
    expect(await reads(keys[0]!, 0)).toBe(false);
    expect(await reads(keys[1]!, 1)).toBe(true);

    // An entry that is written again and again counts once.
    const same = new EncodingCache(files, "cache", 2 * bytes);
    for (let i = 0; i < 10; i++) await same.put(keys[1]!, entry(1));
    await same.put(keys[2]!, entry(2));
    files.reads = 0;
    await same.get(keys[1]!);
    await same.get(keys[2]!);
    expect(files.reads).toBe(0);

    // One that is larger than the limit is given out all the same.
    const small = new EncodingCache(files, "cache", 8);
    await small.put(keys[0]!, entry(0));
    expect((await small.get(keys[0]!)).found).toEqual(entry(0));
  });
});

describe("the disk", () => {
  it("that is full ends with the coded error, and leaves neither half an entry nor a piece of one", async () => {
    const place = join(folder, "full");
    let full = false;
    const files = new DiskFiles(new FullDisk(() => full));
    const cache = new EncodingCache(files, place);
    const [first, second] = [await cache.key("picture", { n: 1 }), await cache.key("picture", { n: 2 })];
    await cache.put(first!, entry(1));
    full = true;
    await expect(cache.put(second!, entry(2))).rejects.toMatchObject({ code: "E-ENV-020" });
    await expect(cache.put(first!, entry(3))).rejects.toMatchObject({ code: "E-ENV-020" });
    const left = (readdirSync(place, { recursive: true }) as string[]).filter((name) => name.includes("-"));
    expect(left).toHaveLength(1);
    expect(left[0]).toContain(`${first}.safetensors`);
    const again = new EncodingCache(new DiskFiles(), place);
    expect((await again.get(first!)).found).toEqual(entry(1));
    expect(await again.get(second!)).toEqual({ found: null, why: "absent" });
    // What was not written is not taken for kept.
    expect(await cache.get(second!)).toEqual({ found: null, why: "absent" });
  });

  it("takes the same entry from two processes at once, and a third never reads a torn one", async () => {
    const place = join(folder, "shared");
    const script = join(folder, "writer.ts");
    mkdirSync(dirname(script), { recursive: true });
    writeFileSync(
      script,
      `import { DiskFiles } from ${JSON.stringify(join(ROOT, "src/platform/files.ts"))};
import { EncodingCache } from ${JSON.stringify(join(ROOT, "src/training/encoding_cache.ts"))};
const cache = new EncodingCache(new DiskFiles(), ${JSON.stringify(place)});
const key = await cache.key("picture", { n: 7 });
const latents = Float32Array.from({ length: 50000 }, (_, i) => Math.sin(i));
for (let i = 0; i < 40; i++) await cache.put(key, { latents });
`,
    );
    const write = () =>
      new Promise<number | null>((resolve, reject) => {
        const words = ["run", "-A", "--no-check", "--config", join(ROOT, "deno.json"), script];
        const child = spawn(process.execPath, words, { cwd: ROOT, stdio: ["ignore", "ignore", "inherit"] });
        child.on("error", reject);
        child.on("close", resolve);
      });
    let writing = true;
    const both = Promise.all([write(), write()]).finally(() => {
      writing = false;
    });
    const key = await new EncodingCache(new MemoryFiles(), null).key("picture", { n: 7 });
    const seen = { whole: 0, absent: 0 };
    while (writing) {
      const lookup = await new EncodingCache(new DiskFiles(), place).get(key);
      if (lookup.found) {
        expect(lookup.found["latents"]).toHaveLength(50_000);
        seen.whole++;
      } else {
        expect(lookup.why).toBe("absent");
        seen.absent++;
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(await both).toEqual([0, 0]);
    expect(seen.whole).toBeGreaterThan(0);
    const files = (readdirSync(place, { recursive: true }) as string[]).filter((name) => name.includes("picture"));
    expect(files).toHaveLength(1);
    const bytes = readFileSync(join(place, files[0]!));
    expect(bytes.length).toBeGreaterThan(200_000);
  });
});
