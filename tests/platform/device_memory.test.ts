// Device memory of a software adapter as the system counts it.

import process from "node:process";
import { expect, it } from "vitest";
import { softwareDeviceBytes } from "../../src/platform/device_memory.ts";
import { testGpu } from "../helpers/gpu.ts";

it("counts what a buffer takes once it is written, on systems that show it", async () => {
  const gpu = await testGpu();
  const before = softwareDeviceBytes();
  if (before === null || process.platform !== "linux") return;
  const size = 8 << 20;
  const buffer = gpu.device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST });
  const encoder = gpu.device.createCommandEncoder();
  encoder.clearBuffer(buffer);
  gpu.device.queue.submit([encoder.finish()]);
  await gpu.wait(gpu.device.queue.onSubmittedWorkDone());
  const grown = softwareDeviceBytes()! - before;
  expect(grown).toBeGreaterThanOrEqual(size);
  expect(grown).toBeLessThan(1.1 * size);
  buffer.destroy();
});

it("says nothing of a process that it cannot see", () => {
  expect(softwareDeviceBytes(2 ** 30)).toBeNull();
});
