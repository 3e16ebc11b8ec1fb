// Values and gradients of convolutions are tested from the table (table.test.ts), variants in variants.test.ts; here is
// what only convolution has.

import process from "node:process";
import { describe, expect, it } from "vitest";
import { conv2d } from "../../src/ops/conv2d.ts";
import { add, relu } from "../../src/ops/pointwise.ts";
import { stretchOf, WINOGRAD, winogradPays } from "../../src/ops/winograd.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";
import { convReference } from "./table/products.ts";

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

  it("loses at most three times as much to rounding by Winograd's tiles as by direct sums of 64 channels", async () => {
    const [C, side] = [64, 24];
    const x = noise(C * side * side, 1);
    const w = noise(C * C * 9, 2);
    const inputs = [
      { shape: [1, C, side, side], values: x },
      { shape: [C, C, 3, 3], values: w },
    ];
    const c = { x: [1, C, side, side], out: C, kernel: [3, 3], padding: [1, 1, 1, 1] } as const;
    const exact = convReference(Float64Array.from(x), Float64Array.from(w), c);
    const errorOf = async (isWinograd: boolean) => {
      const choose = (family: string, _key: string, variants: readonly string[]) =>
        family === "conv2d" ? (variants.find((name) => (name === WINOGRAD) === isWinograd) ?? null) : null;
      const ran = await runOps(inputs, ([a, b]) => [conv2d(a!, b!, { padding: [1, 1, 1, 1] })], {
        target: () => ({ choose }),
      });
      expect(ran.calls.length > 1).toBe(isWinograd);
      return relativeError(ran.outputs[0]!, exact);
    };
    const [tiles, sums] = [await errorOf(true), await errorOf(false)];
    if (process.env["LONGTAIL_PARITY"] === "print") console.log(`Winograd ${tiles}, direct ${sums}: ${tiles / sums}`);
    expect(tiles).toBeLessThan(3 * sums);
    expect(sums).toBeGreaterThan(0);
  });

  it("goes through Winograd's tiles stretch by stretch where their transforms are large", async () => {
    const [N, C, O, H, W] = [2, 16, 17, 107, 181];
    const shape = { N, IC: C, H, W, OC: O, OH: H, OW: W, KH: 3, KW: 3, padTop: 1, padLeft: 1 };
    expect(winogradPays(shape)).toBe(true);
    const target = { software: true, maxBindingBytes: 128 << 20 };
    const stretches = Math.ceil((N * Math.ceil(H / 4) * Math.ceil(W / 4)) / stretchOf(shape, target));
    expect(stretches).toBe(2);
    const x = noise(N * C * H * W, 1);
    const w = noise(O * C * 9, 2);
    const ran = await runOps(
      [
        { shape: [N, C, H, W], values: x },
        { shape: [O, C, 3, 3], values: w },
      ],
      ([a, b]) => [conv2d(a!, b!, { padding: [1, 1, 1, 1] })],
    );
    expect(ran.calls.filter((label) => label.endsWith("tiles"))).toHaveLength(stretches);
    const c = { x: [N, C, H, W], out: O, kernel: [3, 3], padding: [1, 1, 1, 1] } as const;
    const exact = convReference(Float64Array.from(x), Float64Array.from(w), c);
    expect(relativeError(ran.outputs[0]!, exact)).toBeLessThan(2e-6);
  });
});
