// A hundred thousand hostile headers of safetensors files, zip archives and pickles, of which two thousand run every time:
// each must be read or refused with a code, soon, and without reading or taking more than its own size justifies.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { readHeader } from "../../src/formats/safetensors_header.ts";
import { parseStrictJson } from "../../src/formats/strict_json.ts";
import { TorchArchive } from "../../src/formats/torch_archive.ts";
import { FIXTURES, MemoryFiles, OWN_FIXTURES } from "../helpers/files.ts";
import { HEADER_KINDS, hostileHeader } from "../helpers/hostile_headers.ts";

const isLong = process.env["LONGTAIL_LONG"] === "1";
const CASES = isLong ? 100_000 : 2000;
/** Of the processor's time for one file of at most 200 KB, so that other work on the machine does not count. */
const LONGEST_MS = 1500;
/** Values that one file may bring: its own as float32, and views that repeat some of them. */
const MOST_VALUES = 16 * 1024 * 1024;
/** Peak memory of the process while all files are read, beyond what it had. */
const MOST_MEMORY = 400 * 1024 * 1024;
const CODE = /^E-FILE-(?:001|003|01[0-5]|08[0-2]|10[0-8])$/;

interface Outcome {
  verdict: "read" | "refused";
  code: string;
  message: string;
}

async function attempt(work: () => Promise<void>): Promise<Outcome> {
  try {
    await work();
    return { verdict: "read", code: "", message: "" };
  } catch (error) {
    if (!(error instanceof LongtailError)) throw error;
    return { verdict: "refused", code: error.code, message: error.message };
  }
}

/** Opens a file and loads what it names, counting what is read and taken. */
async function outcome(bytes: Uint8Array, as: "safetensors" | "torch"): Promise<Outcome> {
  const path = as === "safetensors" ? "a.safetensors" : "a.pt";
  const files = new MemoryFiles({ [path]: bytes });
  let values = 0;
  const result = await attempt(async () => {
    const file = as === "safetensors" ? await Safetensors.open(files, path) : await TorchArchive.open(files, path);
    // The end of an archive is looked at twice, a sign of another format once more.
    expect(files.reads).toBeLessThanOrEqual(4 * bytes.length + 256);
    try {
      for (const name of file.names().slice(0, 20)) {
        const loaded = file instanceof Safetensors ? await file.readF32(name) : await file.load(name);
        values = Math.max(values, loaded.length);
      }
    } finally {
      await file.close();
    }
  });
  expect(files.openHandles).toBe(0);
  expect(values).toBeLessThanOrEqual(Math.max(bytes.length, MOST_VALUES));
  if (result.verdict === "refused") {
    expect(result.code).toMatch(CODE);
    expect(result.message.length).toBeLessThan(6000);
    expect(result.message).not.toMatch(/undefined|NaN|\[object|TypeError|RangeError/);
  }
  return result;
}

describe("hostile headers", () => {
  test(`${CASES} generated files are read or refused with a code, soon and in little memory`, {
    timeout: 3_600_000,
  }, async () => {
    const before = process.resourceUsage().maxRSS * 1024;
    const counts = new Map(HEADER_KINDS.map((kind) => [kind, { read: 0, refused: 0 }]));
    let slowest = { ms: 0, kind: "" };
    for (let n = 0; n < CASES; n++) {
      const { kind, bytes } = hostileHeader(n);
      expect(bytes.length).toBeLessThan(200_000);
      const started = process.cpuUsage();
      try {
        for (const as of ["safetensors", "torch"] as const) {
          const { verdict } = await outcome(bytes, as);
          if (kind.startsWith("safetensors") === (as === "safetensors")) counts.get(kind)![verdict]++;
        }
      } catch (error) {
        throw new Error(`case ${n} (${kind}): ${(error as Error).stack}`, { cause: error });
      }
      const { user, system } = process.cpuUsage(started);
      const ms = (user + system) / 1000;
      if (ms > slowest.ms) slowest = { ms, kind };
      expect(ms, `case ${n} (${kind})`).toBeLessThan(LONGEST_MS);
    }
    const grown = process.resourceUsage().maxRSS * 1024 - before;
    console.log(`slowest ${slowest.ms.toFixed(0)} ms (${slowest.kind}), memory +${(grown / 2 ** 20).toFixed(0)} MiB`);
    if (isLong)
      for (const [kind, { read, refused }] of counts) console.log(`${kind}: ${read} read, ${refused} refused`);
    for (const [kind, { refused }] of counts) expect(refused, kind).toBeGreaterThan(0);
    expect(grown).toBeLessThan(MOST_MEMORY);
  });

  test("files of the dumps, mutated or not, keep their verdicts and never crash a reader", async () => {
    const own = (name: string) => join(readdirSync(FIXTURES).includes(name) ? FIXTURES : OWN_FIXTURES, name);
    const manifest = (name: string) => JSON.parse(readFileSync(join(own(name), "manifest.json"), "utf8"));
    const verdicts: [path: string, as: "safetensors" | "torch", verdict: string][] = [];
    const safe = manifest("safetensors_files");
    for (const kind of ["valid", "hostile"])
      for (const [name, { reference }] of Object.entries<{ reference: string }>(safe[kind]))
        verdicts.push([join(own("safetensors_files"), kind, name), "safetensors", reference]);
    const torch = manifest("torch_archives");
    for (const kind of ["good", "hostile"])
      for (const [name, { expected }] of Object.entries<{ expected: string }>(torch[kind]))
        verdicts.push([join(own("torch_archives"), kind, name), "torch", expected]);
    expect(verdicts.length).toBeGreaterThan(100);
    for (const [n, [path, as, verdict]] of verdicts.entries()) {
      const bytes = new Uint8Array(readFileSync(path));
      const found = await outcome(bytes, as);
      const either = verdict.includes("accept") && verdict.includes("refuse");
      if (!either) expect(found.verdict, path).toBe(verdict.startsWith("accept") ? "read" : "refused");
      for (let i = 0; i < (isLong ? 200 : 3); i++) {
        const copy = bytes.slice(0, i % 3 === 0 ? (bytes.length * ((i * 7 + n) % 50)) / 50 : bytes.length);
        for (let k = 0; k < 4 && copy.length > 0; k++)
          copy[(i * 7919 + n * 104_729 + k * 613) % copy.length]! ^= 1 << k;
        await outcome(copy, as);
      }
    }
  });

  test("a header of ten times the tensors takes about ten times the time, up to a million of them", async () => {
    const time = async (count: number): Promise<number> => {
      const entries = Array.from(
        { length: count },
        (_, i) => `"t${i}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
      );
      const header = new TextEncoder().encode(`{${entries.join(",")}}`);
      const file = new Uint8Array(8 + header.length + count);
      new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
      file.set(header, 8);
      const handle = {
        size: file.length,
        read: async (at: number, n: number) => file.slice(at, at + n),
        close: async () => {},
      };
      const started = process.cpuUsage();
      expect((await readHeader(handle, "a")).tensors.size).toBe(count);
      return process.cpuUsage(started).user / 1000;
    };
    await time(20_000);
    const many = isLong ? 1_000_000 : 300_000;
    const [small, large] = [await time(many / 10), await time(many)];
    console.log(`${many / 10} tensors: ${small.toFixed(0)} ms, ${many}: ${large.toFixed(0)} ms of the processor`);
    expect(large).toBeLessThan(25 * Math.max(small, 100));
  });

  test("entries of the outermost object can be taken one by one, and only those", () => {
    const taken: string[] = [];
    const root = parseStrictJson('{"a":{"b":1},"c":[{"d":2}],"a":null}', 10, (name) => taken.push(name));
    expect(taken).toEqual(["a", "c", "a"]);
    expect(root).toMatchObject({ entries: [] });
    parseStrictJson('[{"a":1}]', 10, (name) => taken.push(name));
    expect(taken.length).toBe(3);
    const crowd = `{"a":[${"0,".repeat(1_000_000)}0]}`;
    expect(() => parseStrictJson(crowd, 10, () => {})).toThrow("values in one entry");
  });
});
