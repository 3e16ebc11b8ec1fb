// A short sleep of the whole host thread. Dawn's binding for Node asks the driver for finished work on every turn of the
// event loop while a promise is pending; with a driver that computes on the CPU, those turns take time from its threads.

import { setImmediate } from "node:timers";
import type { GpuBackend } from "./adapters.ts";

const REST_MILLISECONDS = 2;
const cell = new Int32Array(new SharedArrayBuffer(4));

/** Sleeps two milliseconds, then lets the event loop run once. */
export function rest(): Promise<void> {
  Atomics.wait(cell, 0, 0, REST_MILLISECONDS);
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * The rest that suits an implementation. Deno's own one looks for finished work by a timer: resting only slows that
 * timer down (121 instead of 11 ms a wait, measured).
 */
export function restFor(backend: GpuBackend): (() => Promise<void>) | undefined {
  return backend === "dawn" ? rest : undefined;
}
