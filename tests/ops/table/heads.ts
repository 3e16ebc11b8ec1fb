// Operations of the table that transformers' blocks are fused from: heads on their way into attention, gated activations.

import { type HeadStream, rotatedHeads } from "../../../src/ops/heads.ts";
import { swiglu } from "../../../src/ops/swiglu.ts";
import { type Case, type Entry, input } from "./types.ts";

const EPS = 1e-5;

export interface HeadShape {
  batch: number;
  /** Of one or two streams. */
  tokens: number[];
  heads: number;
  size: number;
  dtype?: "f32" | "f16";
  /** Gains that want no gradient, as under LoRA. */
  frozen?: boolean;
}

export function headsCase({ batch, tokens, heads, size, dtype = "f32", frozen = false }: HeadShape): Case {
  const half = size / 2;
  const joint = tokens.reduce((a, b) => a + b, 0);
  const angles = Array.from({ length: joint * half }, (_, i) => Math.floor(i / half) * 0.3 ** (i % half));
  const tables = [angles.map((a) => Math.fround(Math.cos(a))), angles.map((a) => Math.fround(Math.sin(a)))];
  const xs = tokens.map((n, k) => input([batch, n, heads * size], { dtype, seed: k + 1, scale: 2 }));
  const gains = tokens.map((_, k) => input([size], { seed: k + 5, offset: 1 }));
  return {
    label: `${dtype} [${batch}, ${tokens.join(" + ")}, ${heads} x ${size}]${frozen ? ", gains frozen" : ""}`,
    inputs: frozen ? xs : [...xs, ...gains],
    body: (inputs, _graph, constant) => {
      const [cosine, sine] = tables.map((t, i) =>
        constant(`heads ${i} ${joint} ${half}`, Float32Array.from(t), [joint, half]),
      );
      const streams = tokens.map(
        (_, k): HeadStream => ({
          x: inputs[k]!,
          gain: frozen
            ? constant(`gain ${k} ${size}`, Float32Array.from(gains[k]!.values), [size])
            : inputs[tokens.length + k]!,
        }),
      );
      return [rotatedHeads(streams, cosine!, sine!, { heads, eps: EPS })];
    },
    reference: (values) => {
      const out = new Float64Array(batch * joint * heads * size);
      let start = 0;
      tokens.forEach((count, k) => {
        const x = values[k]!;
        const gain = frozen ? gains[k]!.values : values[tokens.length + k]!;
        for (let row = 0; row < batch * count * heads; row++) {
          const token = Math.floor(row / heads);
          const at = start + (token % count);
          const to = ((Math.floor(token / count) * joint + at) * heads + (row % heads)) * size;
          let squares = 0;
          for (let i = 0; i < size; i++) squares += x[row * size + i]! ** 2 / size;
          const rstd = 1 / Math.sqrt(squares + EPS);
          for (let i = 0; i < half; i++) {
            const [c, s] = [tables[0]![at * half + i]!, tables[1]![at * half + i]!];
            const a = x[row * size + 2 * i]! * rstd * gain[2 * i]!;
            const b = x[row * size + 2 * i + 1]! * rstd * gain[2 * i + 1]!;
            out[to + 2 * i] = a * c - b * s;
            out[to + 2 * i + 1] = a * s + b * c;
          }
        }
        start += count;
      });
      return [out];
    },
    terms: Math.max(size, batch * joint * heads),
  };
}

export function swigluCase(rows: number, half: number, dtype: "f32" | "f16" = "f32"): Case {
  return {
    label: `${dtype} [${rows}, 2 x ${half}]`,
    inputs: [input([rows, 2 * half], { dtype, scale: 3 })],
    body: ([x]) => [swiglu(x!)],
    reference: ([x]) => [
      Float64Array.from({ length: rows * half }, (_, i) => {
        const at = i + Math.floor(i / half) * half;
        return (x![at]! / (1 + Math.exp(-x![at]!))) * x![at + half]!;
      }),
    ],
    terms: 1,
  };
}

export const HEADS: Entry[] = [
  {
    name: "rotatedHeads",
    file: "heads.ts",
    kernels: ["heads.wgsl", "heads_grad.wgsl", "reduce.wgsl"],
    formula: "x / √(mean(x²) + ε) · gain over each head, then `rope`, one or two streams in one joint sequence",
    shapes: "x [B, Lₖ, H hd] and gain [hd] of each stream, tables [Σ Lₖ, hd/2] from the host",
    types: "x f32, f16; f32 out",
    gradient:
      "the rotation back, then as rmsNorm with its statistics computed again; gains by sums where they are trained",
    slack: [4, "1/√(σ² + ε) multiplies the rounding of two sums"],
    cases: [
      headsCase({ batch: 1, tokens: [1], heads: 1, size: 4 }),
      headsCase({ batch: 2, tokens: [7], heads: 3, size: 8, frozen: true }),
      headsCase({ batch: 2, tokens: [5, 3], heads: 2, size: 30 }),
      headsCase({ batch: 3, tokens: [1, 21], heads: 1, size: 32, frozen: true }),
      headsCase({ batch: 2, tokens: [33, 31], heads: 1, size: 34, frozen: true }),
      headsCase({ batch: 1, tokens: [5, 67], heads: 3, size: 128 }),
      headsCase({ batch: 2, tokens: [5, 2], heads: 2, size: 16, dtype: "f16" }),
    ],
    draw: (r) =>
      headsCase({
        batch: r.int(1, 3),
        tokens: Array.from({ length: r.int(1, 2) }, () => r.int(1, 20)),
        heads: r.int(1, 3),
        size: 2 * r.int(2, 24),
        frozen: r.int(0, 1) === 1,
      }),
  },
  {
    name: "swiglu",
    file: "swiglu.ts",
    kernels: ["swiglu.wgsl", "swiglu_grad.wgsl"],
    formula: "silu(gate) · up of the halves [gate, up] of the last dimension",
    shapes: "x [..., 2 F]",
    types: "x f32, f16; f32 out",
    gradient: "dy up silu'(gate) beside dy silu(gate)",
    cases: [
      swigluCase(1, 1),
      swigluCase(7, 5),
      swigluCase(3, 64),
      swigluCase(1, 1023),
      swigluCase(5, 205),
      swigluCase(4, 33, "f16"),
    ],
    draw: (r) => swigluCase(r.int(1, 20), r.int(1, 90)),
  },
];
