// The job of the streaming benchmark at a small size: an update of the SRPO trainer through streamed blocks.

import { expect, test } from "vitest";
import { type FluxTask, runFluxJob } from "../../bench/lib/flux_job.ts";
import { testGpu } from "../helpers/gpu.ts";

test("an update reaches the LoRA through streamed blocks, the decoder and the reward", async () => {
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
  expect(job.report.finite).toBe(true);
  expect(job.report.gradientNorm).toBeGreaterThan(0);
  expect(job.report.updateRatio).toBeGreaterThan(0);
  const [rollout, branch] = job.parts;
  expect(job.parts).toHaveLength(2);
  // There and back is less than twice as much as there: the blocks that are there last are the first on the way back.
  expect(branch!.bytes).toBeGreaterThan(rollout!.bytes);
  expect(branch!.bytes).toBeLessThan(2 * rollout!.bytes);
});
