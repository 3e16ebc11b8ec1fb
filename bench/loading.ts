// Loading checkpoints of real size tensor by tensor: seconds, peak resident memory, and how often each byte is read.
//
// The files are sparse (headers in a hole of 2 and 24 GB) in a temporary folder that is removed afterwards, so reading costs
// the processor and no disk. Each case is a process of its own, for its peak memory. Exit code 1 where a goal is missed.
// Options: --scale=0.25 for a quarter of the depth, --json.

import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FileHandle } from "../src/base/files.ts";
import { Safetensors } from "../src/formats/safetensors.ts";
import { TorchArchive } from "../src/formats/torch_archive.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { runApart } from "./lib/apart.ts";
import { fixed, printRows, printTable, type Row, readArguments } from "./lib/report.ts";
import { clipShapes, fluxShapes, writeSparseShards, writeSparseTorch } from "./lib/sparse_weights.ts";

/** Resident memory while everything is loaded, and bytes read for each byte of the files. */
const GOALS = { resident: 2 ** 30, reads: 1 };
const SHARD_BYTES = 10 * 2 ** 30;

/** The real disk, remembering every range that is read. */
class CountingFiles extends DiskFiles {
  readonly ranges: { path: string; from: number; to: number }[] = [];
  readonly sizes = new Map<string, number>();

  override async open(path: string): Promise<FileHandle> {
    const handle = await super.open(path);
    this.sizes.set(path, handle.size);
    const read = (offset: number, length: number) => {
      this.ranges.push({ path, from: offset, to: offset + length });
      return handle.read(offset, length);
    };
    return { size: handle.size, read, close: () => handle.close() };
  }

  get bytesRead(): number {
    return this.ranges.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  /** Bytes that were read before. */
  get again(): number {
    const sorted = [...this.ranges].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.from - b.from));
    let twice = 0;
    let [path, end] = ["", 0];
    for (const range of sorted) {
      if (range.path !== path) [path, end] = [range.path, 0];
      twice += Math.max(0, Math.min(end, range.to) - range.from);
      end = Math.max(end, range.to);
    }
    return twice;
  }
}

interface Loaded {
  tensors: number;
  fileBytes: number;
  bytesRead: number;
  again: number;
  openSeconds: number;
  seconds: number;
  processor: number;
  resident: number;
}

async function load(path: string): Promise<Loaded> {
  const files = new CountingFiles();
  const started = performance.now();
  const file = path.endsWith(".pt") ? await TorchArchive.open(files, path) : await Safetensors.open(files, path);
  const opened = performance.now();
  for (const name of file.names()) {
    const values = file instanceof Safetensors ? await file.readF32(name) : await file.load(name);
    if (values.length > 0 && values[values.length - 1] !== 0) throw new Error(`${name} is not a hole`);
  }
  const ended = performance.now();
  await file.close();
  const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
  return {
    tensors: file.names().length,
    fileBytes: [...files.sizes.values()].reduce((a, b) => a + b, 0),
    bytesRead: files.bytesRead,
    again: files.again,
    openSeconds: (opened - started) / 1000,
    seconds: (ended - opened) / 1000,
    processor: (userCPUTime + systemCPUTime) / 1e6,
    resident: maxRSS * 1024,
  };
}

const args = readArguments();
const one = args.option("file", "");
if (one !== "") {
  console.log(JSON.stringify(await load(one)));
  Deno.exit(0);
}

const scale = Number(args.option("scale", "1"));
if (!(scale > 0 && scale <= 1)) {
  console.error("--scale is a number above 0 and at most 1");
  Deno.exit(2);
}
const folder = await mkdtemp(join(tmpdir(), "longtail-loading-"));
process.on("SIGINT", () => {
  rmSync(folder, { recursive: true, force: true });
  Deno.exit(130);
});
const rows: Row[] = [];
const table: string[][] = [];
let misses = 0;
try {
  const cases: [title: string, path: string][] = [
    ["HPSv2.1, one .pt of float16", await writeSparseTorch(folder, clipShapes(scale))],
    [
      "FLUX.1, safetensors shards of bfloat16",
      await writeSparseShards(join(folder, "flux"), fluxShapes(scale), SHARD_BYTES),
    ],
  ];
  for (const [title, path] of cases) {
    const found = await runApart<Loaded>(import.meta.filename!, `--file=${path}`);
    const reads = found.bytesRead / found.fileBytes;
    const isGood = found.resident < GOALS.resident && reads <= GOALS.reads;
    if (!isGood) misses++;
    table.push([
      title,
      String(found.tensors),
      fixed(found.fileBytes / 1e9),
      fixed(found.openSeconds, 3),
      fixed(found.seconds, 1),
      fixed(found.processor, 1),
      fixed(found.fileBytes / 1e9 / found.seconds),
      fixed(found.resident / 2 ** 20, 0),
      fixed(reads, 5),
      String(found.again),
      isGood ? "yes" : "no",
    ]);
    rows.push({ name: title, ours: found.resident, best_peer: GOALS.resident, ratio: GOALS.resident / found.resident });
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log(
  `loading every tensor as float32, one at a time${scale === 1 ? "" : `, ${scale} of the depth`} (goals: below 1024 MiB resident, every byte read at most once)`,
);
console.log(`${navigator.hardwareConcurrency} CPU threads, Deno ${Deno.version.deno}\n`);
printTable(
  [
    "case",
    "tensors",
    "GB",
    "open s",
    "load s",
    "CPU s",
    "GB/s",
    "peak MiB",
    "read/file",
    "bytes twice",
    "in the goals",
  ],
  table,
);
printRows(args, rows);
Deno.exit(misses > 0 ? 1 : 0);
