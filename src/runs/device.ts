// The device of a run: opened from what the platform gives, checked, and told to the user by name.

import { LongtailError } from "../base/errors.ts";
import type { EventSink } from "../base/events.ts";
import { adapterLabel } from "../evaluation/format.ts";
import { type Gpu, type OpenOptions, openDevice } from "../gpu/device.ts";
import { dropFaultyMatrices } from "../ops/matrix_check.ts";
import type { Target } from "../tensor/lower.ts";
import type { Config } from "./config/schema.ts";

/**
 * Opens the run's device on an implementation of WebGPU; subgroup matrices that give wrong products are left out, with a
 * warning.
 * @param rest how the host sleeps while the device works, see `OpenOptions`
 */
export async function openDeviceOf(
  implementation: GPU,
  config: Config,
  emit: EventSink,
  rest?: OpenOptions["rest"],
): Promise<Gpu> {
  const { precision } = config.device;
  // Weights may lie as f16 in a run whose precision is f32, because their file has halves; its activations stay f32.
  const matrices = config.device.matrices === "auto" && precision === "f32" ? "off" : config.device.matrices;
  const gpu = await openDevice(implementation, { ...(rest ? { rest } : {}), matrices });
  // On a CPU adapter they are slower than other kernels, and their test takes seconds.
  if (matrices === "off" || (gpu.facts.software && matrices !== "all")) return gpu;
  for (const { size, why } of await dropFaultyMatrices(gpu)) {
    emit({
      kind: "warning",
      code: "E-ENV-061",
      text: `this driver's subgroup matrices of ${size.m}x${size.n}x${size.k} do not work and are left out: ${why}`,
    });
  }
  return gpu;
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
