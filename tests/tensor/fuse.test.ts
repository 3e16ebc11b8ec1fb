// Random chains of pointwise steps, products, norms and views, fused and unfused: the same values and gradients.

import process from "node:process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { matmul } from "../../src/ops/matmul.ts";
import { layerNorm } from "../../src/ops/norm.ts";
import { add, affine, div, geluTanh, mul, relu, scaleBy, sigmoid, silu, square, sub } from "../../src/ops/pointwise.ts";
import { reshape } from "../../src/ops/reshape.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { type InputSpec, type Job, noise, relativeError, runMany, runOps } from "../helpers/gpu.ts";

const [A, B, C] = [2, 5, 12];
const SHAPE = [A, B, C];

/** Leaves: a value, then a weight, and operands of every way to broadcast. */
const LEAVES: InputSpec[] = [
  { shape: SHAPE, values: noise(A * B * C, 1) },
  { shape: SHAPE, values: noise(A * B * C, 2) },
  { shape: [C, C], values: noise(C * C, 3).map((v) => v / 4) },
  { shape: [C], values: noise(C, 4) },
  { shape: [A, 1, C], values: noise(A * C, 5) },
  { shape: [A, B, 1], values: noise(A * B, 6) },
  { shape: [1], values: [0.75] },
  { shape: [B, 1], values: noise(B, 7) },
];
const OPERANDS = [1, 3, 4, 5, 6, 7];

const UNARY: Record<string, (x: Tensor) => Tensor> = {
  relu,
  silu,
  geluTanh,
  sigmoid,
  square: (x) => square(affine(x, 0.5, 0)),
  affine: (x) => affine(x, -0.5, 0.25),
  norm: (x) => layerNorm(x, 1e-3),
  product: (x) => x,
  flat: (x) => reshape(relu(reshape(x, [A * B, C])), SHAPE),
  flatBias: (x) => x,
};
const BINARY: Record<string, (x: Tensor, y: Tensor) => Tensor> = {
  add,
  sub,
  rsub: (x, y) => sub(y, x),
  mul,
  scaleBy,
  div: (x, y) => div(x, affine(square(y), 1, 1)),
};

type Step = { unary: string } | { binary: string; operand: number } | { join: string; back: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ unary: fc.constantFrom(...Object.keys(UNARY)) }),
  fc.record({ binary: fc.constantFrom(...Object.keys(BINARY)), operand: fc.constantFrom(...OPERANDS) }),
  // An earlier value of the chain has a second reader: it must not be folded away.
  fc.record({ join: fc.constantFrom("add", "mul", "sub"), back: fc.nat(3) }),
);
const program = fc.record({ steps: fc.array(step, { minLength: 2, maxLength: 9 }), second: fc.boolean() });

function trace({ steps, second }: { steps: Step[]; second: boolean }, leaves: Tensor[]): Tensor[] {
  const values = [leaves[0]!];
  for (const s of steps) {
    const x = values.at(-1)!;
    if ("unary" in s) {
      if (s.unary === "product") values.push(matmul(x, leaves[2]!, { transposeB: true }));
      else if (s.unary === "flatBias") values.push(reshape(add(reshape(x, [A * B, C]), leaves[3]!), SHAPE));
      else values.push(UNARY[s.unary]!(x));
    } else if ("binary" in s) values.push(BINARY[s.binary]!(x, leaves[s.operand]!));
    else values.push(BINARY[s.join]!(x, values[Math.max(0, values.length - 2 - s.back)]!));
  }
  const out = values.at(-1)!;
  // A value in the middle may be an output too.
  return second && values.length > 2 ? [out, affine(values[values.length >> 1]!, 1, 0)] : [out];
}

describe("fusion", () => {
  it("changes neither values nor gradients of random chains", async () => {
    const programs = fc.sample(program, { numRuns: process.env["LONGTAIL_LONG"] === "1" ? 200 : 20, seed: 5 });
    const jobs = programs.map(
      (p): Job => ({
        inputs: LEAVES,
        body: (leaves) => trace(p, leaves),
        seeds: [noise(A * B * C, 11), noise(A * B * C, 12)],
      }),
    );
    const fused = await runMany(jobs);
    const plain = await runMany(jobs, { fuse: false });
    let saved = 0;
    programs.forEach((p, k) => {
      const name = JSON.stringify(p);
      saved += plain[k]!.calls.length - fused[k]!.calls.length;
      fused[k]!.outputs.forEach((y, i) => expect(relativeError(y, plain[k]!.outputs[i]!), name).toBeLessThan(1e-6));
      fused[k]!.gradients.forEach((g, i) => {
        const other = plain[k]!.gradients[i];
        expect(g === null, name).toBe(other === null);
        if (g) expect(relativeError(g, other!), `gradient ${i} of ${name}`).toBeLessThan(1e-6);
      });
    });
    expect(saved).toBeGreaterThan(0);
  });

  it("computes nothing that nobody reads", async () => {
    const { calls } = await runOps([LEAVES[0]!, LEAVES[2]!], ([x, w]) => {
      matmul(x!, w!);
      geluTanh(x!);
      return [relu(x!)];
    });
    expect(calls).toEqual(["pointwise relu"]);
  });
});
