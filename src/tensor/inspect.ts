// Looking into the memory of a plan that ran: for runs whose numbers left the range, and for tests.

import type { Readback } from "../gpu/transfer.ts";
import type { Slot } from "./lower.ts";
import type { Plan } from "./session.ts";
import type { DType } from "./shape.ts";
import { alignUp } from "./variable.ts";

/** What is needed of a session. */
export interface Inspected {
  device: GPUDevice;
  arena: GPUBuffer;
  readback: Readback;
  /** Where a slot's bytes lie. */
  place(plan: Plan, slot: Slot): { buffer: GPUBuffer; offset: number };
}

/** A call of a plan that wrote a value which is not finite. */
export interface NotFinite {
  label: string;
  scope: string;
  /** Its number among the plan's calls. */
  at: number;
}

/**
 * Runs a plan call by call and names the first call that writes a value which is not finite, or null. Values that were there
 * before the call are not its fault: several calls may fill one tensor part by part.
 */
export async function findNotFinite(session: Inspected, plan: Plan): Promise<NotFinite | null> {
  const { device, arena } = session;
  const encoder = device.createCommandEncoder();
  // An earlier run of the plan left its own values there, perhaps the very same ones.
  encoder.clearBuffer(arena);
  device.queue.submit([encoder.finish()]);
  const calls = plan.lowered.calls;
  for (let at = 0; at < calls.length; at++) {
    const call = calls[at]!;
    const written = call.bindings.filter((slot, i) => call.writes[i] && slot.dtype !== "u32");
    const before = await readSlots(session, plan, written);
    plan.executable!.replay({ from: at, to: at + 1 });
    const after = await readSlots(session, plan, written);
    if (written.some((slot, i) => becameNotFinite(before[i]!, after[i]!, slot.dtype)))
      return { label: call.label, scope: call.scope, at };
  }
  return null;
}

async function readSlots({ readback, place }: Inspected, plan: Plan, slots: readonly Slot[]): Promise<ArrayBuffer[]> {
  const all: ArrayBuffer[] = [];
  for (const slot of slots) {
    const { buffer, offset } = place(plan, slot);
    // Copies count in words, and an odd number of f16 values ends in the middle of one.
    all.push(await readback.read(buffer, offset, alignUp(slot.bytes, 4)));
  }
  return all;
}

/**
 * Names a slot of `plan` whose padding was overwritten since the arena was filled with the word `poison`, or null; for tests of
 * single operations.
 */
export async function findBrokenCanary(session: Inspected, plan: Plan, poison: number): Promise<string | null> {
  const arena = new Uint32Array(await session.readback.read(session.arena, 0, session.arena.size));
  // A slot's padding may be another slot's place at another time: only bytes that belong to nobody are canaries.
  const owned = new Uint8Array(arena.length);
  const placed = plan.lowered.slots.filter((s) => plan.placement.offsets.has(s));
  for (const slot of placed) {
    const at = plan.placement.offsets.get(slot)! / 4;
    owned.fill(1, at, at + slot.bytes / 4);
  }
  for (const slot of placed) {
    const at = plan.placement.offsets.get(slot)!;
    const end = (at + alignUp(slot.bytes)) / 4;
    for (let i = (at + slot.bytes) / 4; i < end; i++) if (!owned[i] && arena[i] !== poison) return slot.label;
  }
  return null;
}

/** True where a value of `after` has all exponent bits set and is not what was there before. */
function becameNotFinite(before: ArrayBuffer, after: ArrayBuffer, dtype: DType): boolean {
  const [View, exponent] = dtype === "f16" ? [Uint16Array, 0x7c00] : [Uint32Array, 0x7f800000];
  const [old, now] = [new View(before), new View(after)];
  for (let i = 0; i < now.length; i++) if ((now[i]! & exponent) === exponent && now[i] !== old[i]) return true;
  return false;
}
