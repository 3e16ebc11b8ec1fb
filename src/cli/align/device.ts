// The device of a run: opened through the chosen implementation, and told to the user by name.

import { LongtailError } from "../../base/errors.ts";
import { adapterLabel } from "../../evaluation/format.ts";
import { type Gpu, openDevice } from "../../gpu/device.ts";
import { openGpu } from "../../platform/adapters.ts";
import { restFor } from "../../platform/rest.ts";
import type { Target } from "../../tensor/lower.ts";
import type { Config } from "../config/schema.ts";

export async function openRunDevice(config: Config): Promise<Gpu> {
  const gpu = await openGpu({ backend: config.device.backend, robust: config.device.robust });
  return openDevice(gpu, { rest: restFor(config.device.backend) });
}

/** Opens the run's device for `work` and closes it whatever happens. */
export async function withRunDevice<T>(config: Config, work: (gpu: Gpu) => Promise<T>): Promise<T> {
  const gpu = await openRunDevice(config);
  try {
    return await work(gpu);
  } finally {
    gpu.close();
  }
}

/** One line about the adapter, a software one named as such. */
export function deviceLine(gpu: Gpu): string {
  const { facts } = gpu;
  const name = adapterLabel({ name: facts.name, driver: facts.description });
  return facts.software
    ? `${name}, a software adapter that computes on the CPU (welcome for the embedded model)`
    : name;
}

/** Refuses a precision that the adapter does not have, before anything is built for it. */
export function checkPrecision(config: Config, target: Target): void {
  if (config.device.precision !== "f16" || target.f16) return;
  throw new LongtailError("E-ENV-060", {
    what: "f16 was asked for, and this adapter has no shader-f16",
    where: "device.precision",
    fix: 'use device.precision = "f32"',
  });
}

/** Refuses a plan above the user's cap. */
export function checkMemoryCap(config: Config, plannedBytes: number): void {
  const cap = config.device.memory_cap * 2 ** 20;
  if (cap === 0 || plannedBytes <= cap) return;
  throw new LongtailError("E-MEM-004", {
    what: `the plan needs ${Math.ceil(plannedBytes / 2 ** 20)} MiB of device memory, above the cap of ${config.device.memory_cap} MiB`,
    where: "device.memory_cap",
    fix: 'lower align.batch or eval.batch, set train.checkpointing = true, stream a LoRA\'s base with device.offload = "blocks", or raise the cap',
  });
}
