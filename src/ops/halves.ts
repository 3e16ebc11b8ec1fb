// A copy of a value rounded to f16, for kernels on subgroup matrices that read it many times: they round what they stage
// anyway, and the copy halves the bytes of every further read.

import pointwiseSource from "../../shaders/pointwise.wgsl" with { type: "text" };
import { type Lowering, laneGrid, type Slot } from "../tensor/lower.ts";

/** Reads of a value from which a copy pays: it costs three halves a value, and each read saves one. */
export const COPY_FROM_READS = 32;
/** Calls after which a copy is not used again: a longer life would keep its memory from others. */
const REUSED_WITHIN = 12;

const copies = new WeakMap<Lowering, Map<Slot, { copy: Slot; madeAt: number }>>();

/** `count` f32 values of a slot as f16; the copy of an intermediate is shared by products that follow each other. */
export function roundedCopy(lowering: Lowering, slot: Slot, count: number): Slot {
  const known = copies.get(lowering) ?? new Map<Slot, { copy: Slot; madeAt: number }>();
  copies.set(lowering, known);
  const old = known.get(slot);
  if (old && lowering.calls.length - old.madeAt <= REUSED_WITHIN) return old.copy;
  const copy = lowering.scratch(count, "f16");
  const { grid, lanes } = laneGrid(count, lowering.target);
  lowering.call({
    label: "round to f16",
    source: pointwiseSource,
    constants: { A_ITEM: "f32", OUT_ITEM: "f16", WIDE: false, ACCUMULATE: false, ...lanes },
    inputs: [slot],
    outputs: [copy],
    params: [count, grid[0]],
    grid,
  });
  // A variable may be written between two products.
  if (!slot.variable) known.set(slot, { copy, madeAt: lowering.calls.length });
  return copy;
}
