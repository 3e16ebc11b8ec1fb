// What a run keeps when it stops: it goes on to the same bits, a number that is not finite changes nothing, and a full disk
// costs no checkpoint. All through the trainer, the store and the loop of `longtail align`, on the embedded model.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { RunEvent } from "../../src/base/events.ts";
import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { rest } from "../../src/platform/rest.ts";
import { checkpointEntry, loadCheckpoint, newestCheckpoint } from "../../src/training/checkpoint.ts";
import { Bench, firstDifference } from "../helpers/alignment.ts";
import { FullDisk } from "../helpers/full_disk.ts";

/** Three updates in one go, and as one and two with a stop in between. */
async function expectSameBits(bench: Bench): Promise<void> {
  bench.reset();
  const start = await bench.bits();
  await bench.align("whole");
  const whole = await bench.bits();
  expect(firstDifference(whole, start)).not.toBeNull();

  bench.reset();
  const controller = new AbortController();
  const stop = new Error("interrupted");
  const stopAfterOne = (event: RunEvent) =>
    event.kind === "phase" && event.name === "align" && event.done === 1 && controller.abort(stop);
  await expect(bench.align("parts", { signal: controller.signal, onEvent: stopAfterOne })).rejects.toBe(stop);
  expect(firstDifference(await bench.bits(), whole)).not.toBeNull();
  // Nothing of what was in memory may matter.
  bench.reset("garbage");
  const { done, updates } = await bench.align("parts");
  expect(done).toBe(3);
  expect(updates.map((u) => u.step)).toEqual([1, 2, 3]);
  expect(firstDifference(await bench.bits(), whole)).toBeNull();
  expect(bench.events).toContainEqual(
    expect.objectContaining({ kind: "message", text: expect.stringMatching(/^continuing from .*1 updates done$/) }),
  );
}

async function failure(work: Promise<unknown>): Promise<LongtailError> {
  const error = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error as LongtailError;
}

/** Names in a folder and below. */
const everything = (folder: string) =>
  existsSync(folder) ? (readdirSync(folder, { recursive: true }) as string[]) : [];

describe("a run of full fine-tuning", () => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await Bench.open();
  });
  afterAll(() => bench?.close());

  it("resumes to the same bits as in one go", () => expectSameBits(bench));

  it("changes nothing at an update that is not finite, names the first bad kernel, keeps the last good checkpoint", async () => {
    bench.reset();
    const {
      session,
      trained: [trained],
    } = bench.world;
    const weight = trained!.variables.find((v) => v.name.endsWith("single_transformer_blocks.0.proj_mlp.weight"))!;
    let poisoned = false;
    const error = await failure(
      bench.align("poisoned", {
        changes: { "save.every": "1" },
        onEvent: (event) => {
          if (event.kind !== "checkpoint" || event.step !== 2) return;
          const values = new Float32Array(weight.size).fill(0.01);
          values[5] = Number.NaN;
          session.write(weight, values);
          poisoned = true;
        },
      }),
    );
    expect(poisoned).toBe(true);
    expect([error.code, error.exitCode]).toEqual(["E-NUM-001", 5]);
    expect(error.message).toMatch(/update 3 .*first in .*matmul.* in single_transformer_blocks\.0/);
    expect(error.message).toContain(bench.run!.paths.checkpoint(2));
    // The poison is still there and everything else is as update 2 left it.
    const after = await bench.bits();
    expect(after.some((tensor) => tensor.includes(0x7fc00000))).toBe(true);
    const { newest } = await newestCheckpoint(new DiskFiles(), bench.run!.paths.checkpoints);
    expect(newest?.step).toBe(2);
    const checkpoint = await loadCheckpoint(new DiskFiles(), newest!, newest!.manifest.identity);
    const variables = bench.pools.flatMap((pool) => pool.variables);
    let at = 0;
    for (const [i, group] of ["trained", "first_moment", "second_moment"].entries()) {
      await checkpoint.restore(group, bench.pools[i]!.variables.map(checkpointEntry), (name, values) => {
        const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
        if (variables[at] === weight) expect(values.every(Number.isFinite)).toBe(true);
        else expect(firstDifference([bits], [after[at]!]), name).toBeNull();
        at++;
      });
    }
    await checkpoint.close();
    expect(at).toBe(after.length);
  });

  it("stops where a learning rate throws the weights out of range, and saves no such weights", async () => {
    bench.reset();
    const error = await failure(
      bench.align("absurd", {
        changes: { "save.every": "1" },
        onEvent: (event) => {
          if (event.kind !== "checkpoint" || event.step !== 1) return;
          // As a rate of 1e30 would leave them: finite, but their squares are not.
          for (const v of bench.world.trained[0]!.variables)
            bench.world.session.write(v, new Float32Array(v.size).fill(1e30));
        },
      }),
    );
    expect(error.code).toMatch(/^E-NUM-00[12]$/);
    const { newest, skipped } = await newestCheckpoint(new DiskFiles(), bench.run!.paths.checkpoints);
    expect(newest?.step).toBe(1);
    expect(skipped).toEqual([]);
  });

  it("ends with one error and no half of a file where the disk is full during a checkpoint", async () => {
    bench.reset();
    const full = new FullDisk((path) => path.includes("step-000002.partial") && path.includes("first_moment"));
    const error = await failure(bench.align("full", { changes: { "save.every": "1" }, files: new DiskFiles(full) }));
    expect([error.code, error.exitCode]).toEqual(["E-ENV-020", 3]);
    expect(readdirSync(bench.run!.paths.checkpoints)).toEqual(["step-000001"]);
    const { newest } = await newestCheckpoint(new DiskFiles(), bench.run!.paths.checkpoints);
    expect(newest?.step).toBe(1);
    // With room again the run goes on from there.
    const { done } = await bench.align("full");
    expect(done).toBe(3);
  });

  it("ends with one error and no half of a picture where the disk is full while samples are written", async () => {
    bench.reset();
    const full = new FullDisk((path) => /samples\/step-000000\/01-/.test(path));
    const error = await failure(bench.align("pictures", { files: new DiskFiles(full) }));
    expect([error.code, error.exitCode]).toEqual(["E-ENV-020", 3]);
    expect(everything(join(bench.run!.paths.folder, "samples"))).toEqual([
      "step-000000",
      "step-000000/00-seed1000.png",
    ]);
  });
});

describe("a run of a LoRA", () => {
  let gpu: Gpu;
  let bench: Bench;
  beforeAll(async () => {
    gpu = await openDevice(await openGpu({ backend: "dawn" }), { rest });
    bench = await Bench.open({ "adapter.kind": "lora", "adapter.rank": "4" }, gpu);
  });
  afterAll(() => bench?.close());

  it("resumes to the same bits as in one go, and repeats itself to the bit", async () => {
    await expectSameBits(bench);
    const once = await bench.bits();
    bench.reset();
    await bench.align("again");
    expect(firstDifference(await bench.bits(), once)).toBeNull();
  });

  // The last one: the device is gone afterwards.
  it("ends at once with E-MEM-002 where the device is lost, and keeps its last checkpoint", async () => {
    bench.reset();
    const error = await failure(
      bench.align("lost", {
        changes: { "save.every": "1" },
        onEvent: (event) => event.kind === "checkpoint" && event.step === 1 && gpu.device.destroy(),
      }),
    );
    expect([error.code, error.exitCode]).toEqual(["E-MEM-002", 6]);
    expect(error.message).toContain("Fix: ");
    expect(readdirSync(bench.run!.paths.checkpoints)).toEqual(["step-000001"]);
    expect((await newestCheckpoint(new DiskFiles(), bench.run!.paths.checkpoints)).newest?.step).toBe(1);
  });
});
