// Values and gradients of convolutions are tested from the table (table.test.ts), variants in variants.test.ts; here is
// what only convolution has.

import { describe, expect, it } from "vitest";
import { conv2d } from "../../src/ops/conv2d.ts";
import { add, relu } from "../../src/ops/pointwise.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

describe("convolution", () => {
  it("runs bias, residual and ReLU in its own kernel with the same result", async () => {
    const inputs = [
      { shape: [2, 8, 6, 6], values: noise(576, 1) },
      { shape: [8, 8, 3, 3], values: noise(576, 2) },
      { shape: [8], values: noise(8, 3) },
      { shape: [2, 8, 6, 6], values: noise(576, 4) },
    ];
    const body: Parameters<typeof runOps>[1] = ([x, w, b, r]) => [
      relu(add(conv2d(x!, w!, { bias: b!, padding: [1, 1, 1, 1] }), r!)),
    ];
    const fused = await runOps(inputs, body);
    const plain = await runOps(inputs, body, { fuse: false });
    expect(fused.calls).toHaveLength(1);
    expect(relativeError(fused.outputs[0]!, plain.outputs[0]!)).toBeLessThan(1e-7);
  });
});
