import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { mainJob } from "../../bench/lib/main_job.ts";
import type { KernelCall, Slot } from "../../src/tensor/lower.ts";
import { isSound, place } from "../../src/tensor/planner.ts";
import { portableTarget } from "../../src/tensor/target.ts";

/** A program over few numbers: each call writes a new slot of some size and reads some of the latest ones. */
interface Step {
  bytes: number;
  reads: number[];
}

function callsOf(steps: readonly Step[]): KernelCall[] {
  const slots: Slot[] = steps.map((s, id) => ({ id, bytes: s.bytes, dtype: "f32", variable: null, label: `${id}` }));
  return steps.map((s, at) => {
    const inputs = [...new Set(s.reads.map((back) => slots[Math.max(0, at - 1 - back)]!))].filter(
      (x) => x !== slots[at],
    );
    const bindings = [...inputs, slots[at]!];
    return { bindings, writes: bindings.map((x) => x === slots[at]) } as unknown as KernelCall;
  });
}

const size = fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 64, max: 4096 })).map((n) => n * 256);
const program = fc.array(fc.record({ bytes: size, reads: fc.array(fc.nat(12), { minLength: 1, maxLength: 4 }) }), {
  minLength: 1,
  maxLength: 60,
});

describe("the memory planner", () => {
  it("never lets two values that live together share bytes, and stays at or above the bound", () => {
    fc.assert(
      fc.property(program, (steps) => {
        const calls = callsOf(steps);
        const placement = place(calls);
        expect(isSound(calls, placement)).toBe(true);
        expect(placement.arenaBytes).toBeGreaterThanOrEqual(placement.lowerBound);
        for (const offset of placement.offsets.values()) expect(offset % 256).toBe(0);
      }),
      { numRuns: 300, seed: 1 },
    );
  });

  it("comes within a tenth of the bound on random programs on average, and never far from it", () => {
    const ratios = fc.sample(program, { numRuns: 300, seed: 2 }).map((steps) => {
      const { arenaBytes, lowerBound } = place(callsOf(steps));
      return arenaBytes / lowerBound;
    });
    expect(ratios.reduce((a, b) => a + b, 0) / ratios.length).toBeLessThan(1.1);
    expect(Math.max(...ratios)).toBeLessThan(1.5);
  });

  it("is found unsound by its own check where two live values are moved onto each other", () => {
    const calls = callsOf([
      { bytes: 256, reads: [0] },
      { bytes: 256, reads: [0] },
      { bytes: 256, reads: [0, 1] },
    ]);
    const placement = place(calls);
    for (const slot of placement.offsets.keys()) placement.offsets.set(slot, 0);
    expect(isSound(calls, placement)).toBe(false);
  });

  it("places every plan of the main job soundly within a tenth of the bound", async () => {
    const { session } = await mainJob(portableTarget());
    for (const { name, placement, lowered } of session.plans) {
      expect(placement.arenaBytes, name).toBeLessThanOrEqual(1.1 * placement.lowerBound);
      expect(isSound(lowered.calls, placement), name).toBe(true);
    }
  });
});
