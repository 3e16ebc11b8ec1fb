// Gives every intermediate value a place in one arena by liveness: a slot lives from the call that first writes it to the
// last call that touches it, and two slots may share bytes when their lives do not overlap. Offline first-fit by several
// orders (largest first, longest first, first come) keeps the best; the bound it is measured against is the largest sum
// of live slots. Source of the orders: Pisarchyk & Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.

import type { KernelCall, Slot } from "./lower.ts";
import { alignUp } from "./variable.ts";

export interface Placement {
  /** Byte offset in the arena by slot; slots that are variables or unused have none. */
  offsets: Map<Slot, number>;
  arenaBytes: number;
  /** Largest sum of bytes live at one call: no placement can be smaller. */
  lowerBound: number;
}

interface Life {
  slot: Slot;
  bytes: number;
  from: number;
  to: number;
}

/** An arena this near to its lower bound is not worth more tries. */
const GOOD_ENOUGH = 1.02;
const JITTERED_TRIES = 16;

/** Deterministic values in [0, 1). */
function jitter(seed: number): () => number {
  let state = (seed * 0x9e3779b9) >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return state / 2 ** 32;
  };
}

/** Lifetimes of the arena's slots over the calls. */
export function lifetimes(calls: readonly KernelCall[]): Life[] {
  const lives = new Map<Slot, Life>();
  calls.forEach((call, at) => {
    for (const slot of call.bindings) {
      if (slot.variable) continue;
      const life = lives.get(slot);
      if (life) life.to = at;
      else lives.set(slot, { slot, bytes: alignUp(slot.bytes), from: at, to: at });
    }
  });
  return [...lives.values()];
}

export function place(calls: readonly KernelCall[]): Placement {
  const lives = lifetimes(calls);
  const change = new Array<number>(calls.length + 1).fill(0);
  for (const life of lives) {
    change[life.from]! += life.bytes;
    change[life.to + 1]! -= life.bytes;
  }
  let live = 0;
  let lowerBound = 0;
  for (const delta of change) {
    live += delta;
    lowerBound = Math.max(lowerBound, live);
  }
  const orders: ((a: Life, b: Life) => number)[] = [
    (a, b) => b.bytes - a.bytes || a.from - b.from || a.slot.id - b.slot.id,
    (a, b) => a.from - b.from || b.bytes - a.bytes || a.slot.id - b.slot.id,
    (a, b) => b.to - b.from - (a.to - a.from) || b.bytes - a.bytes || a.slot.id - b.slot.id,
    (a, b) => b.bytes * (b.to - b.from + 1) - a.bytes * (a.to - a.from + 1) || a.slot.id - b.slot.id,
  ];
  let best: Placement | null = null;
  for (const order of orders) {
    const placement = firstFit([...lives].sort(order));
    if (!best || placement.arenaBytes < best.arenaBytes) best = { ...placement, lowerBound };
    if (best.arenaBytes === lowerBound) break;
  }
  // Where the plain orders leave a gap, a few jittered ones often close it; seeded, so that a plan is always the same.
  for (let seed = 1; best && best.arenaBytes > GOOD_ENOUGH * lowerBound && seed <= JITTERED_TRIES; seed++) {
    const random = jitter(seed);
    const weight = new Map(lives.map((life) => [life, life.bytes * (0.5 + random())]));
    const placement = firstFit([...lives].sort((a, b) => weight.get(b)! - weight.get(a)! || a.slot.id - b.slot.id));
    if (placement.arenaBytes < best.arenaBytes) best = { ...placement, lowerBound };
  }
  return best ?? { offsets: new Map(), arenaBytes: 0, lowerBound: 0 };
}

function firstFit(lives: Life[]): { offsets: Map<Slot, number>; arenaBytes: number } {
  const offsets = new Map<Slot, number>();
  // Placed lives sorted by offset, so that a scan finds the smallest gap in one pass.
  const placed: (Life & { offset: number })[] = [];
  let arenaBytes = 0;
  for (const life of lives) {
    let offset = 0;
    let bestOffset = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    for (const other of placed) {
      if (other.from > life.to || other.to < life.from) continue;
      const gap = other.offset - offset;
      if (gap >= life.bytes && gap < bestGap) {
        bestGap = gap;
        bestOffset = offset;
      }
      offset = Math.max(offset, other.offset + other.bytes);
    }
    if (bestOffset < 0) bestOffset = offset;
    offsets.set(life.slot, bestOffset);
    arenaBytes = Math.max(arenaBytes, bestOffset + life.bytes);
    let at = placed.length;
    while (at > 0 && placed[at - 1]!.offset > bestOffset) at--;
    placed.splice(at, 0, { ...life, offset: bestOffset });
  }
  return { offsets, arenaBytes };
}

/** True when no two slots that live together overlap; for tests. */
export function isSound(calls: readonly KernelCall[], placement: Placement): boolean {
  const lives = lifetimes(calls);
  for (let i = 0; i < lives.length; i++) {
    for (let j = i + 1; j < lives.length; j++) {
      const a = lives[i]!;
      const b = lives[j]!;
      if (a.from > b.to || a.to < b.from) continue;
      const x = placement.offsets.get(a.slot)!;
      const y = placement.offsets.get(b.slot)!;
      if (x < y + b.bytes && y < x + a.bytes) return false;
    }
  }
  return true;
}
