// The device of a command: opened through the implementation that the configuration names.

import type { EventSink } from "../base/events.ts";
import type { Gpu } from "../gpu/device.ts";
import { openGpu } from "../platform/adapters.ts";
import { restFor } from "../platform/rest.ts";
import type { Config } from "../runs/config/schema.ts";
import { openDeviceOf } from "../runs/device.ts";

/** Opens the run's device. @throws what `openGpu` and `openDevice` say */
export async function openRunDevice(config: Config, emit: EventSink): Promise<Gpu> {
  const { backend, robust } = config.device;
  return await openDeviceOf(await openGpu({ backend, robust }), config, emit, restFor(backend));
}

/** Opens the run's device for `work` and closes it whatever happens. */
export async function withRunDevice<T>(config: Config, emit: EventSink, work: (gpu: Gpu) => Promise<T>): Promise<T> {
  const gpu = await openRunDevice(config, emit);
  try {
    return await work(gpu);
  } finally {
    gpu.close();
  }
}
