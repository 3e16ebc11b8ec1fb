// What a lowered plan may ask of an adapter: found out when it is traced, by the name of the call, before anything is
// allocated or compiled.

import { LongtailError } from "../base/errors.ts";
import type { Lowered, Target } from "./lower.ts";

/**
 * Refuses a plan that the adapter cannot run.
 * @throws LongtailError E-MEM-003 where a value exceeds a binding, E-ENV-011 where a call binds too many buffers
 */
export function refuseBeyondLimits(name: string, lowered: Lowered, target: Target): void {
  const bound = lowered.calls.flatMap((call) => call.bindings);
  const large = bound.find((slot) => !slot.variable && slot.bytes > target.maxBindingBytes);
  if (large) {
    throw new LongtailError("E-MEM-003", {
      what: `a value of ${large.bytes} bytes exceeds the adapter's binding limit of ${target.maxBindingBytes}`,
      where: `plan ${name}, ${large.label}`,
      fix: "lower the batch or the resolution",
    });
  }
  const wide = lowered.calls.find((call) => call.bindings.length > target.maxStorageBuffers);
  if (wide) {
    throw new LongtailError("E-ENV-011", {
      what: `a kernel binds ${wide.bindings.length} storage buffers, and the adapter takes ${target.maxStorageBuffers}`,
      where: `plan ${name}, ${wide.label}`,
      fix: "take another adapter or driver; `npx longtail doctor` lists them with their limits",
    });
  }
}
