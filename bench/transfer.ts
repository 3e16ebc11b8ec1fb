// Bytes between host and device: uploads through mapped buffers against writeBuffer, readback in place against a copy.
//
// Every way moves the same tensors into the same buffer and waits until the device has them, in turns; GB/s, medians of
// the rounds after a first one that is not counted. "fresh" is the way that a model is loaded: target and staging memory
// are new. The copies in the host's own memory are what a software adapter cannot beat. A readback counts when a sum over every
// sixteenth value is known. Options: --json, --mib=128, --rounds=7.

import { Readback, Staging, upload, uploadRingBytes } from "../src/gpu/transfer.ts";
import { noise } from "./lib/chain.ts";
import {
  describe,
  fixed,
  median,
  openBenchGpu,
  printHeader,
  printRows,
  printTable,
  type Row,
  readArguments,
} from "./lib/report.ts";

/** A layer's weight of the embedded model and of FLUX, in f32. */
const TENSOR_BYTES = 4 << 20;

const args = readArguments();
const bytes = Number(args.option("mib", "128")) << 20;
const rounds = Number(args.option("rounds", "7"));
const gpu = await openBenchGpu(args);
const { device } = gpu;
printHeader(`${bytes >> 20} MiB between host and device, GB/s (median of ${rounds} rounds in turns)`, describe(gpu));

const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
const tensor = noise(TENSOR_BYTES / 4, 1, 1);
const count = bytes / TENSOR_BYTES;
const resident = device.createBuffer({ size: bytes, usage });
const done = () => gpu.wait(device.queue.onSubmittedWorkDone());

async function throughQueue(target: GPUBuffer): Promise<void> {
  for (let i = 0; i < count; i++) upload(gpu, target, i * TENSOR_BYTES, tensor);
  await done();
}

async function throughRing(target: GPUBuffer, ring: Staging): Promise<void> {
  for (let i = 0; i < count; i++) await ring.write(target, i * TENSOR_BYTES, tensor);
  ring.flush();
  await done();
}

/** The ring that a load gets on hardware. */
const ringBytes = uploadRingBytes(false, bytes);
const ring = new Staging(gpu, ringBytes);

async function withFresh(way: (target: GPUBuffer) => Promise<void>): Promise<void> {
  const target = device.createBuffer({ size: bytes, usage });
  await way(target);
  target.destroy();
}

async function freshRing(target: GPUBuffer): Promise<void> {
  const own = new Staging(gpu, ringBytes);
  await throughRing(target, own);
  own.destroy();
}

/** The whole model in memory that is mapped from the start: twice the memory on hardware, so no way to load. */
async function mappedWhole(): Promise<void> {
  const source = device.createBuffer({ size: bytes, usage: GPUBufferUsage.COPY_SRC, mappedAtCreation: true });
  const words = new Float32Array(source.getMappedRange());
  for (let i = 0; i < count; i++) words.set(tensor, (i * TENSOR_BYTES) / 4);
  source.unmap();
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, 0, resident, 0, bytes);
  device.queue.submit([encoder.finish()]);
  await done();
  source.destroy();
}

const readback = new Readback(gpu);
const kept = new ArrayBuffer(bytes);

function sumOf(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 16) sum += values[i]!;
  return sum;
}

const expected = sumOf(tensor) * count;

function use(data: ArrayBuffer): void {
  const sum = sumOf(new Float32Array(data));
  if (Math.abs(sum - expected) > 1e-9 * bytes)
    throw new Error(`the words that came back sum to ${sum}, not ${expected}`);
}

async function readInPlace(): Promise<void> {
  const { data, release } = await readback.map(resident, 0, bytes);
  use(data);
  release();
}

async function readKept(): Promise<void> {
  const { data, release } = await readback.map(resident, 0, bytes);
  new Float32Array(kept).set(new Float32Array(data));
  release();
  use(kept);
}

/** What any upload to a software adapter does at least once. */
function onHost(target: ArrayBuffer): Promise<void> {
  const words = new Float32Array(target);
  for (let i = 0; i < count; i++) words.set(tensor, (i * TENSOR_BYTES) / 4);
  return Promise.resolve();
}

const ways: [name: string, against: string | null, way: () => Promise<void>][] = [
  ["upload, writeBuffer", null, () => throughQueue(resident)],
  [`upload, ring of ${ringBytes >> 20} MiB`, "upload, writeBuffer", () => throughRing(resident, ring)],
  ["upload, one mapped buffer", "upload, writeBuffer", mappedWhole],
  ["upload fresh, writeBuffer", null, () => withFresh(throughQueue)],
  ["upload fresh, ring", "upload fresh, writeBuffer", () => withFresh(freshRing)],
  ["copy on the host to kept memory", "upload, writeBuffer", () => onHost(kept)],
  ["copy on the host to new memory", "upload fresh, writeBuffer", () => onHost(new ArrayBuffer(bytes))],
  ["readback, sliced", null, async () => use(await readback.read(resident, 0, bytes))],
  ["readback, copied to kept memory", "readback, sliced", readKept],
  ["readback, in place", "readback, sliced", readInPlace],
];

const seconds = new Map<string, number[]>(ways.map(([name]) => [name, []]));
for (let round = -1; round < rounds; round++) {
  for (const [name, , way] of ways) {
    const started = performance.now();
    await way();
    if (round >= 0) seconds.get(name)!.push((performance.now() - started) / 1000);
  }
}
gpu.check();

const speed = (name: string) => bytes / median(seconds.get(name)!) / 1e9;
const rows: Row[] = ways.map(([name, against]) => {
  const other = against ? speed(against) : null;
  return { name, ours: speed(name), best_peer: other, ratio: other ? speed(name) / other : null };
});
printTable(
  ["way", "GB/s", "against", "ratio"],
  rows.map((row, i) => [row.name, fixed(row.ours), ways[i]![1] ?? "", row.ratio ? `${fixed(row.ratio)}x` : "-"]),
);
const chosen = uploadRingBytes(gpu.facts.software, bytes);
console.log(`\nloading takes ${chosen ? `a ring of ${chosen >> 20} MiB` : "writeBuffer"} on this adapter`);
printRows(args, rows);
Deno.exit(0);
