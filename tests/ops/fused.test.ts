// Operations with kernels of their own beside the parts that they replace: heads on their way into attention, adaptive norms,
// gated activations, parts copied by one dispatch. `fuse: false` traces and lowers the parts.

import { describe, expect, it } from "vitest";
import { concat, split } from "../../src/ops/slab.ts";
import { type Job, relativeError, runMany } from "../helpers/gpu.ts";
import { jobOf } from "../helpers/table.ts";
import { HEADS, headsCase, swigluCase } from "./table/heads.ts";
import { modulatedCase } from "./table/rows.ts";
import { type Case, gathered, input } from "./table/types.ts";

/** The calls of both ways, after comparing all values and gradients. */
async function compare(
  cases: readonly Case[],
  bound: number,
  target?: Job["target"],
): Promise<{ fused: string[]; plain: string[] }[]> {
  const jobs = cases.map((c): Job => ({ ...jobOf(HEADS[0]!, c, false, false), target }));
  const fused = await runMany(jobs);
  const plain = await runMany(
    jobs.map((j) => ({ ...j, target: undefined })),
    { fuse: false },
  );
  return cases.map((c, k) => {
    const pairs = [
      ...fused[k]!.outputs.map((y, i) => [y, plain[k]!.outputs[i]!] as const),
      ...fused[k]!.gradients.map((g, i) => [g!, plain[k]!.gradients[i]!] as const),
    ];
    pairs.forEach(([a, b], i) => expect(relativeError(a, b), `${c.label}, tensor ${i}`).toBeLessThanOrEqual(bound));
    return { fused: fused[k]!.calls, plain: plain[k]!.calls };
  });
}

const HEAD_SHAPES = [
  headsCase({ batch: 2, tokens: [20, 16], heads: 2, size: 64, frozen: true }),
  headsCase({ batch: 2, tokens: [20, 16], heads: 2, size: 64 }),
  headsCase({ batch: 3, tokens: [37], heads: 3, size: 24, frozen: true }),
  headsCase({ batch: 1, tokens: [3, 70], heads: 1, size: 34, frozen: true }),
];

describe("heads on their way into attention", () => {
  it.each<[string, () => { software?: boolean; maxStorageBuffers?: number }]>([
    ["the adapter's own kernels", () => ({})],
    ["the kernels of CPU adapters", () => ({ software: true })],
    ["the kernels of GPUs", () => ({ software: false })],
    ["eight storage buffers", () => ({ maxStorageBuffers: 8 })],
  ])("give what norms, concatenation and rotation give, with %s", async (_, target) => {
    const results = await compare(HEAD_SHAPES, 5e-7, target);
    const calls = target().maxStorageBuffers === 8 ? 2 : 1;
    for (const k of [0, 2]) {
      const grads = results[k]!.fused.filter((label) => label === "heads grad");
      expect(results[k]!.fused.filter((label) => label !== "copy")).toEqual(["heads", ...grads]);
      expect(grads.length).toBeLessThanOrEqual(k === 0 ? calls : 1);
    }
    expect(results[0]!.plain.length).toBeGreaterThan(7);
  });
});

describe("an adaptive norm", () => {
  it.each([true, false])(
    "gives what norm, scale and shift give, with the kernels of CPU adapters: %s",
    async (software) => {
      const cases = [modulatedCase(4, 36, 64), modulatedCase(1, 300, 20)];
      const results = await compare(cases, 5e-7, () => ({ software }));
      expect(results[0]!.fused).toEqual(["layer norm", "layer norm grad", "modulation grad"]);
      expect(results[0]!.plain.length).toBeGreaterThan(6);
    },
  );
});

describe("the gated activation", () => {
  it("gives what its parts give", async () => {
    const [result] = await compare([swigluCase(9, 44)], 5e-7);
    expect(result!.fused).toEqual(["swiglu", "swiglu grad"]);
  });
});

/** Parts of a tensor, and the tensor of the parts the other way round. */
function turnedParts(shape: [number, number, number], sizes: number[]): Case {
  const [outer, , inner] = shape;
  const whole = sizes.reduce((a, b) => a + b, 0);
  const order = sizes.map((_, k) => sizes.length - 1 - k);
  return {
    label: `${sizes} of [${outer}, ${whole}, ${inner}]`,
    inputs: [input([outer, whole, inner])],
    body: ([x]) => {
      const parts = split(x!, 1, sizes);
      return [
        concat(
          order.map((k) => parts[k]!),
          1,
        ),
      ];
    },
    reference: ([x]) => {
      const rows = order.flatMap((k) => {
        const start = sizes.slice(0, k).reduce((a, b) => a + b, 0);
        return Array.from({ length: sizes[k]! }, (_, i) => start + i);
      });
      return [
        gathered(x!, x!.length, (i) => {
          const row = Math.floor(i / inner);
          return (Math.floor(row / whole) * whole + rows[row % whole]!) * inner + (i % inner);
        }),
      ];
    },
    terms: 1,
  };
}

describe("parts of a tensor", () => {
  it("are copied by one dispatch for up to seven, to the bit as one by one", async () => {
    const cases = [
      turnedParts([4, 6, 256], [1, 1, 1, 1, 1, 1]),
      turnedParts([3, 12, 5], [1, 2, 9]),
      turnedParts([2, 80, 4], [1, 64, 2, 3, 4, 1, 2, 1, 2]),
    ];
    const results = await compare(cases, 0);
    expect(results.map((r) => r.fused.length)).toEqual([4, 4, 8]);
    expect(results.map((r) => r.plain.length)).toEqual([24, 12, 36]);
  });
});
