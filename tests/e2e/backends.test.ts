// The same LoRA run on both implementations of WebGPU, Dawn and Deno's own: each goes on from a checkpoint to the bits of its
// run in one go, and the two agree as far as their compilers' orders of additions let them.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCommandLine } from "../../src/cli/main.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { type GpuBackend, openGpu } from "../../src/platform/adapters.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { RecordingTerminal } from "../cli/recorder.ts";

const BACKENDS = ["dawn", "deno"] as const;
const STEPS = 3;
/** Of the norm of all factors together. */
const TOLERANCE = 0.01;

const folder = mkdtempSync(join(tmpdir(), "longtail-backends-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const has = async (backend: GpuBackend): Promise<boolean> => {
  try {
    return (await (await openGpu({ backend })).requestAdapter()) !== null;
  } catch {
    return false;
  }
};
const available = new Map(await Promise.all(BACKENDS.map(async (backend) => [backend, await has(backend)] as const)));

async function train(backend: GpuBackend, ...words: string[]): Promise<void> {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine(
    [
      ...["train", "lora", `--run.folder=${folder}`, `--name=${backend}`, `--gpu=${backend}`, "--quiet", ...words],
      '--data.sets=[{path = "embedded", items = ["taco", "sari", "moai"], styles = ["noto"]}]',
      ...[`--steps=${STEPS}`, "--batch=2", "--adapter.rank=2", "--adapter.targets=attention", "--schedule.warmup=0"],
      ...["--train.validate_every=0", "--train.validation_pictures=1", "--sample.items=1", "--sample.steps=1"],
      ...["--sample.every=0", "--save.every=1", "--save.keep=9", "--device.tuner=off", `--data.cache=${folder}/cache`],
    ],
    { terminal, onInterrupt: () => () => {} },
  );
  expect([terminal.errors, code]).toEqual(["", 0]);
}

const pathOf = (backend: GpuBackend) => join(folder, backend, `${backend}.safetensors`);
/** The data part of the adapter file; names of runs and times are in its header. */
function tensorBytes(backend: GpuBackend): Buffer {
  const bytes = readFileSync(pathOf(backend));
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)));
}
async function weights(backend: GpuBackend): Promise<Map<string, Float32Array>> {
  const file = await Safetensors.open(new DiskFiles(), pathOf(backend));
  try {
    const found = new Map<string, Float32Array>();
    for (const name of file.names()) found.set(name, await file.readF32(name));
    return found;
  } finally {
    await file.close();
  }
}

describe.each(BACKENDS)("on %s", (backend) => {
  it.skipIf(!available.get(backend))(
    "a run that goes on from its first checkpoint ends with the bits of the run in one go",
    async () => {
      await train(backend);
      const inOneGo = Buffer.from(tensorBytes(backend));
      rmSync(pathOf(backend));
      await train(backend, `--resume=${join(folder, backend, "ckpt/step-000001")}`);
      expect(tensorBytes(backend).equals(inOneGo)).toBe(true);
    },
    300_000,
  );
});

it.skipIf(BACKENDS.some((backend) => !available.get(backend)))("both end with nearly the same adapter", async () => {
  const adapterOf = (backend: GpuBackend) =>
    JSON.parse(readFileSync(join(folder, backend, "env.json"), "utf8")).adapter as { key: string; software: boolean };
  // The two name the software adapter differently: each run had its own implementation.
  if (adapterOf("dawn").software) expect(adapterOf("deno").key).not.toBe(adapterOf("dawn").key);
  const [dawn, deno] = [await weights("dawn"), await weights("deno")];
  expect([...deno.keys()]).toEqual([...dawn.keys()]);
  let difference = 0;
  let size = 0;
  for (const [name, values] of dawn) {
    const other = deno.get(name)!;
    for (const [i, value] of values.entries()) {
      difference += (value - other[i]!) ** 2;
      size += value ** 2;
    }
  }
  expect(size).toBeGreaterThan(0);
  // On llvmpipe it is 0: both compilers leave the order of additions as it is written. Adam makes a whole step of a gradient
  // that is all rounding, so on hardware the difference may lie above float32's resolution.
  expect(Math.sqrt(difference / size)).toBeLessThan(TOLERANCE);
});
