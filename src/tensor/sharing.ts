// Plans that differ in their variables alone: the same block of a network with the weights of another layer. Such a plan
// needs tables of buffers of its own and nothing else; pipelines, uniforms and places in the arena are those of the first.

import type { KernelCall, Lowered, Slot } from "./lower.ts";
import type { Placement } from "./planner.ts";

/** Whether two plans make the same calls in the same arena, whatever persistent variables they bind. */
export function differsInVariablesAlone(a: Lowered, b: Lowered): boolean {
  return a.calls.length === b.calls.length && a.calls.every((call, i) => sameCall(call, b.calls[i]!));
}

function sameCall(a: KernelCall, b: KernelCall): boolean {
  return (
    a.source === b.source &&
    sameWords(a.params, b.params) &&
    sameWords(a.epilogue ?? [], b.epilogue ?? []) &&
    sameWords(a.grid, b.grid) &&
    a.bindings.length === b.bindings.length &&
    a.bindings.every((slot, i) => sameSlot(slot, b.bindings[i]!) && a.writes[i] === b.writes[i]) &&
    sameConstants(a.constants, b.constants)
  );
}

/** Slots are numbered in the order of tracing, so the same value has the same number in both plans. */
function sameSlot(a: Slot, b: Slot): boolean {
  if (a.bytes !== b.bytes || a.dtype !== b.dtype) return false;
  return a.variable === null ? b.variable === null && a.id === b.id : b.variable !== null;
}

function sameWords(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function sameConstants(a: KernelCall["constants"], b: KernelCall["constants"]): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}

/** The placement of `from` for the slots of `to`, which makes the same calls. */
export function samePlaces(from: Lowered, placement: Placement, to: Lowered): Placement {
  const offsets = new Map<Slot, number>();
  from.calls.forEach((call, i) => {
    call.bindings.forEach((slot, k) => {
      const offset = placement.offsets.get(slot);
      if (offset !== undefined) offsets.set(to.calls[i]!.bindings[k]!, offset);
    });
  });
  return { ...placement, offsets };
}
