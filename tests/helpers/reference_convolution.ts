// Gradients of a convolution in float64, term by term.

import type { ConvCase } from "../ops/table/products.ts";

/** Height and width of a result. */
export function outputSize({ x, kernel, stride = 1, padding = [0, 0, 0, 0] }: ConvCase): readonly [number, number] {
  const along = (d: 0 | 1) => Math.floor((x[2 + d]! + padding[d] + padding[d + 2]! - kernel[d]) / stride) + 1;
  return [along(0), along(1)];
}

/** Gradients of Σ y dy of a convolution in float64. */
export function convGradients(x: Float64Array, w: Float64Array, dy: Float64Array, c: ConvCase) {
  const [, C, H, W] = c.x;
  const [KH, KW] = c.kernel;
  const { stride = 1, padding = [0, 0, 0, 0] } = c;
  const [OH, OW] = outputSize(c);
  const dx = new Float64Array(x.length);
  const dw = new Float64Array(w.length);
  dy.forEach((value, at) => {
    const [j, i] = [at % OW, Math.floor(at / OW) % OH];
    const o = Math.floor(at / OW / OH) % c.out;
    const n = Math.floor(at / OW / OH / c.out);
    for (let ch = 0; ch < C; ch++)
      for (let u = 0; u < KH; u++)
        for (let v = 0; v < KW; v++) {
          const row = i * stride + u - padding[0];
          const column = j * stride + v - padding[1];
          if (row < 0 || row >= H || column < 0 || column >= W) continue;
          const pixel = ((n * C + ch) * H + row) * W + column;
          const weight = ((o * C + ch) * KH + u) * KW + v;
          dx[pixel]! += value * w[weight]!;
          dw[weight]! += value * x[pixel]!;
        }
  });
  return { dx, dw };
}
