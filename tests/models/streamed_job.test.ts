// The job of the streaming benchmark at a small size: a rollout step and a Direct-Align branch through streamed blocks.

import { expect, test } from "vitest";
import { type FluxTask, runFluxJob } from "../../bench/lib/flux_job.ts";
import { testGpu } from "../helpers/gpu.ts";

test("a rollout step and a branch reach the LoRA through streamed blocks and the decoder", async () => {
  const task: FluxTask = {
    width: 256,
    doubleBlocks: 2,
    singleBlocks: 3,
    storage: "nf4",
    slots: { double: 1, single: 2 },
    rank: 4,
    text: 6,
    rows: 2,
    columns: 2,
    autoencoderWidths: [32, 32, 32, 32],
  };
  const job = await runFluxJob(await testGpu(), task);
  expect(job.finite).toBe(true);
  expect(job.gradientNorm).toBeGreaterThan(0);
  expect(job.parts.map(({ name }) => name)).toEqual([
    "rollout step",
    "branch: inject, velocity",
    "branch: recover, decode, back to v",
    "branch: back to the LoRA",
  ]);
  // The second forward pass finds one block less to load than the first: a single one, in the slot of its own.
  const [first, second, decode, back] = job.parts;
  expect(first!.bytes).toBeGreaterThan(second!.bytes);
  expect(decode!.bytes).toBe(0);
  expect(back!.bytes).toBeGreaterThan(0);
  expect(back!.bytes).toBeLessThan(second!.bytes);
  expect(job.plans - job.sharedPlans).toBe(10);
});
