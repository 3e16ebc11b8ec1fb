// Operations of the table that join values of a row: norms, softmax, sums, rotary positions.

import { groupNorm, l2Normalise, layerNorm, modulatedLayerNorm, rmsNorm } from "../../../src/ops/norm.ts";
import { meanAll, sum, sumAll, sumTo } from "../../../src/ops/reduce.ts";
import { rope } from "../../../src/ops/rope.ts";
import { softmax } from "../../../src/ops/softmax.ts";
import { elements, type Shape } from "../../../src/tensor/shape.ts";
import { broadcastIndex, type Case, type Entry, input, typicalSum } from "./types.ts";

/** Rows and widths around a lane's row, a workgroup of 64 and its stride. */
const ROWS = [
  [1, 1],
  [1, 2],
  [3, 63],
  [31, 64],
  [32, 65],
  [33, 7],
  [5, 257],
  [101, 13],
] as const;

function normalised(x: ArrayLike<number>, width: number, eps: number, rms: boolean): Float64Array {
  const out = new Float64Array(x.length);
  for (let first = 0; first < x.length; first += width) {
    let mean = 0;
    if (!rms) for (let i = 0; i < width; i++) mean += x[first + i]! / width;
    let square = 0;
    for (let i = 0; i < width; i++) square += (x[first + i]! - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(square + eps);
    for (let i = 0; i < width; i++) out[first + i] = (x[first + i]! - mean) * scale;
  }
  return out;
}

const EPS = 1e-5;
/** A row of one value has variance 0, so its gradient is what is left of terms of this size. */
const lonely = (width: number) => (width === 1 ? 1 / Math.sqrt(EPS) : width === 2 ? 10 : 0);

function layerNormCase([rows, width]: readonly [number, number], affine: boolean, dtype: "f32" | "f16" = "f32"): Case {
  const extra = affine ? [input([width], { seed: 2, offset: 1 }), input([width], { seed: 3 })] : [];
  return {
    label: `${dtype} [${rows}, ${width}]${affine ? " with gain and bias" : ""}`,
    inputs: [input([rows, width], { scale: 2, offset: 0.5, seed: width, dtype }), ...extra],
    body: ([x, gain, bias]) => [layerNorm(x!, EPS, gain, bias)],
    reference: ([x, gain, bias]) => [
      normalised(x!, width, EPS, false).map((v, i) => v * (gain?.[i % width] ?? 1) + (bias?.[i % width] ?? 0)),
    ],
    terms: Math.max(width, rows),
    gradientFloor: lonely(width),
  };
}

export function modulatedCase(batch: number, tokens: number, width: number): Case {
  return {
    label: `[${batch}, ${tokens}, ${width}]`,
    inputs: [
      input([batch, tokens, width]),
      input([batch, 1, width], { seed: 2 }),
      input([batch, 1, width], { seed: 3 }),
    ],
    body: ([x, scale, shift]) => [modulatedLayerNorm(x!, EPS, scale!, shift!)],
    reference: ([x, scale, shift]) => {
      const at = (i: number) => Math.floor(i / (tokens * width)) * width + (i % width);
      return [normalised(x!, width, EPS, false).map((v, i) => v * (1 + scale![at(i)]!) + shift![at(i)]!)];
    },
    terms: Math.max(width, tokens),
  };
}

function rmsCase(shape: Shape, width: number, dtype: "f32" | "f16" = "f32"): Case {
  return {
    label: `${dtype} [${shape}] in groups of ${width}`,
    inputs: [input(shape, { dtype }), input([width], { seed: 2, offset: 1 })],
    body: ([x, gain]) => [rmsNorm(x!, EPS, gain!)],
    reference: ([x, gain]) => [normalised(x!, width, EPS, true).map((v, i) => v * gain![i % width]!)],
    terms: Math.max(width, elements(shape) / width),
    gradientFloor: width === 1 ? 10 : 0,
  };
}

function groupCase(shape: readonly [number, number, number, number], groups: number): Case {
  const [, c, h, w] = shape;
  const channel = (i: number) => Math.floor(i / (h * w)) % c;
  return {
    label: `[${shape}] in ${groups} groups`,
    inputs: [input(shape), input([c], { seed: 2, offset: 1 }), input([c], { seed: 3 })],
    body: ([x, gain, bias]) => [groupNorm(x!, groups, EPS, gain!, bias!)],
    reference: ([x, gain, bias]) => [
      normalised(x!, (c / groups) * h * w, EPS, false).map((v, i) => v * gain![channel(i)]! + bias![channel(i)]!),
    ],
    terms: elements(shape),
  };
}

function l2Case([rows, width]: readonly [number, number]): Case {
  return {
    label: `[${rows}, ${width}]`,
    inputs: [input([rows, width], { seed: width, offset: 0.25 })],
    body: ([x]) => [l2Normalise(x!)],
    reference: ([x]) => [normalised(x!, width, 1e-24 / width, true).map((v) => v / Math.sqrt(width))],
    terms: width,
    gradientFloor: width === 1 ? 10 : 0,
  };
}

function softmaxCase([rows, width]: readonly [number, number], scale = 1, dtype: "f32" | "f16" = "f32"): Case {
  return {
    label: `${dtype} [${rows}, ${width}], scores up to ${scale}`,
    inputs: [input([rows, width], { seed: width, scale, dtype })],
    body: ([x]) => [softmax(x!)],
    reference: ([x]) => {
      const out = new Float64Array(rows * width);
      for (let r = 0; r < rows; r++) {
        const row = x!.subarray(r * width, (r + 1) * width);
        const top = Math.max(...row);
        const total = row.reduce((a, v) => a + Math.exp(v - top), 0);
        row.forEach((v, i) => (out[r * width + i] = Math.exp(v - top) / total));
      }
      return [out];
    },
    // A rounding of the difference of two scores of size s changes a weight by s times as much.
    terms: width + scale ** 2,
    gradientFloor: width === 1 ? 1 : scale > 10 ? 0.1 : 0,
  };
}

function sumCase(shape: number[], d: number, dtype: "f32" | "f16" = "f32"): Case {
  const inner = shape.slice(d + 1).reduce((a, b) => a * b, 1);
  const length = shape[d]!;
  return {
    label: `${dtype} [${shape}] over ${d}`,
    inputs: [input(shape, { dtype, seed: 7 })],
    body: ([x]) => [sum(x!, d)],
    reference: ([x]) => {
      const out = new Float64Array(x!.length / length);
      x!.forEach((v, i) => (out[Math.floor(i / (inner * length)) * inner + (i % inner)]! += v));
      return [out];
    },
    terms: length,
    floor: typicalSum(length),
  };
}

function sumToCase([from, to]: [Shape, Shape]): Case {
  return {
    label: `[${from}] to [${to}]`,
    inputs: [input(from)],
    body: ([x]) => [sumTo(x!, to)],
    reference: ([x]) => {
      const out = new Float64Array(elements(to));
      x!.forEach((v, i) => (out[broadcastIndex(to, from, i)]! += v));
      return [out];
    },
    terms: elements(from) / elements(to),
    floor: typicalSum(elements(from) / elements(to)),
  };
}

function ropeCase(
  [batch, tokens, heads, size]: readonly [number, number, number, number],
  dtype: "f32" | "f16" = "f32",
): Case {
  const half = size / 2;
  const angles = Array.from({ length: tokens * half }, (_, i) => Math.floor(i / half) * 0.3 ** (i % half));
  const tables = [angles.map((a) => Math.fround(Math.cos(a))), angles.map((a) => Math.fround(Math.sin(a)))];
  return {
    label: `${dtype} [${batch}, ${tokens}, ${heads} x ${size}]`,
    inputs: [input([batch, tokens, heads * size], { dtype })],
    body: ([x], _graph, constant) => {
      const [cosine, sine] = tables.map((t, i) =>
        constant(`rope ${i} ${tokens} ${half}`, Float32Array.from(t), [tokens, half]),
      );
      return [rope(x!, cosine!, sine!, heads)];
    },
    reference: ([x]) => {
      const out = new Float64Array(x!.length);
      for (let i = 0; i < x!.length; i += 2) {
        const pair = (i / 2) % half;
        const at = (Math.floor(i / (heads * size)) % tokens) * half + pair;
        const [c, s] = [tables[0]![at]!, tables[1]![at]!];
        out[i] = x![i]! * c - x![i + 1]! * s;
        out[i + 1] = x![i]! * s + x![i + 1]! * c;
      }
      return [out];
    },
    terms: 2,
    stored: dtype === "f16" ? "f16" : undefined,
  };
}

const NORM = { file: "norm.ts", kernels: ["norm.wgsl", "norm_grad.wgsl"], types: "f32, f16 in; f32 out" };
const NORM_SLACK: [number, string] = [4, "1/√(σ² + ε) multiplies the rounding of two sums"];

export const ROWWISE: Entry[] = [
  {
    ...NORM,
    name: "layerNorm",
    adapterKernels: ["pointwise.wgsl", "reduce.wgsl"],
    functions: ["mul", "add"],
    formula: "(x - mean) / √(var + ε) · gain + bias over the last dimension",
    shapes: "x [..., D], gain and bias [D]",
    gradient: "rstd (dn - mean(dn) - n mean(dn n)); gain and bias by sums",
    slack: NORM_SLACK,
    cases: [
      ...ROWS.map((r) => layerNormCase(r, false)),
      layerNormCase([131, 8], false),
      layerNormCase([33, 20], true),
      layerNormCase([9, 65], true, "f16"),
    ],
    draw: (r) => layerNormCase([r.int(1, 70), r.int(3, 140)], r.int(0, 1) === 1),
  },
  {
    ...NORM,
    name: "modulatedLayerNorm",
    kernels: [...NORM.kernels, "modulation_grad.wgsl"],
    adapterKernels: ["reduce.wgsl"],
    functions: ["scale_by", "add"],
    formula: "(x - mean) / √(var + ε) · (1 + scale) + shift (adaLN)",
    shapes: "x [B, L, D], scale and shift [B, 1, D]",
    gradient: "as layerNorm of dy (1 + scale); scale and shift by sums over L in one kernel",
    slack: NORM_SLACK,
    cases: [modulatedCase(2, 9, 16), modulatedCase(1, 33, 65), modulatedCase(3, 5, 128), modulatedCase(1, 300, 16)],
    draw: (r) => modulatedCase(r.int(1, 3), r.int(1, 40), r.int(3, 90)),
  },
  {
    ...NORM,
    name: "rmsNorm",
    adapterKernels: ["pointwise.wgsl", "reduce.wgsl"],
    functions: ["mul"],
    formula: "x / √(mean(x²) + ε) · gain over groups at the end of the last dimension",
    shapes: "x [..., D], gain [width], width divides D",
    gradient: "rstd (dn - n mean(dn n)); gain by a sum",
    slack: NORM_SLACK,
    cases: [
      rmsCase([1, 1], 1),
      rmsCase([2, 5, 32], 8),
      rmsCase([2, 5, 32], 32),
      rmsCase([67, 63], 63),
      rmsCase([7, 40], 8, "f16"),
    ],
    draw: (r) => {
      const width = r.int(2, 40);
      return rmsCase([r.int(1, 40), width * r.int(1, 3)], width);
    },
  },
  {
    ...NORM,
    name: "groupNorm",
    adapterKernels: ["pointwise.wgsl", "reduce.wgsl"],
    functions: ["mul", "add"],
    formula: "(x - mean) / √(var + ε) · gain + bias over the pixels of a group of channels",
    shapes: "x [N, C, H, W], gain and bias [C]",
    gradient: "as layerNorm; gain and bias by sums over N, H, W",
    slack: NORM_SLACK,
    cases: [groupCase([2, 8, 3, 5], 4), groupCase([1, 32, 4, 4], 32), groupCase([3, 6, 7, 1], 1)],
    draw: (r) => {
      const groups = r.int(1, 4);
      return groupCase([r.int(1, 3), groups * r.int(1, 3), r.int(2, 7), r.int(1, 7)], groups);
    },
  },
  {
    ...NORM,
    name: "l2Normalise",
    adapterKernels: ["pointwise.wgsl"],
    functions: ["multiply_add"],
    formula: "x / ‖x‖ over the last dimension; a zero row stays zero",
    shapes: "x [..., D]",
    gradient: "(dy - y (y · dy)) / ‖x‖",
    slack: NORM_SLACK,
    cases: ROWS.map(l2Case),
    draw: (r) => l2Case([r.int(1, 70), r.int(2, 140)]),
  },
  {
    name: "softmax",
    file: "softmax.ts",
    kernels: ["softmax.wgsl"],
    formula: "exp(x - max x) / Σ exp(x - max x) over the last dimension",
    shapes: "x [..., D]",
    types: "f32, f16 in; f32 out",
    gradient: "y (dy - Σ dy y)",
    slack: [4, "the driver's exp is good to a few units in the last place"],
    cases: [
      ...ROWS.map((r) => softmaxCase(r)),
      softmaxCase([5, 65], 1000),
      softmaxCase([3, 64], 30),
      softmaxCase([5, 40], 2, "f16"),
    ],
    draw: (r) => softmaxCase([r.int(1, 40), r.int(2, 200)], r.pick([1, 5])),
  },
  {
    name: "sum",
    file: "reduce.ts",
    kernels: ["reduce.wgsl"],
    adapterKernels: ["fill.wgsl", "pointwise.wgsl"],
    functions: ["add"],
    formula: "Σ x over one dimension, in fixed order",
    shapes: "any",
    types: "f32, f16 in; f32 out",
    gradient: "dy repeated",
    cases: [
      sumCase([1], 0),
      sumCase([63], 0),
      sumCase([65], 0),
      sumCase([5, 1000, 3], 1),
      sumCase([1, 20000], 1),
      sumCase([16385], 0),
      sumCase([3, 4, 129], 2),
      sumCase([300, 2, 2], 0),
      sumCase([257, 65], 0),
      sumCase([4, 300], 1, "f16"),
    ],
    draw: (r) => {
      const shape = Array.from({ length: r.int(1, 3) }, () => r.int(1, 40));
      return sumCase(shape, r.int(0, shape.length - 1));
    },
  },
  {
    name: "sumTo",
    file: "reduce.ts",
    kernels: ["reduce.wgsl"],
    adapterKernels: ["fill.wgsl", "pointwise.wgsl"],
    functions: ["add"],
    formula: "Σ over the dimensions that broadcasting repeated: the transpose of expand",
    shapes: "any shape that broadcasts to x's",
    types: "f32, f16 in; f32 out",
    gradient: "dy repeated",
    cases: (
      [
        [
          [2, 3, 4, 5],
          [1, 3, 1, 1],
        ],
        [
          [2, 7, 5],
          [2, 1, 5],
        ],
        [[9, 40], [1]],
        [
          [5, 6],
          [5, 1],
        ],
      ] as [Shape, Shape][]
    ).map(sumToCase),
    draw: (r) => {
      const shape = Array.from({ length: r.int(1, 4) }, () => r.int(1, 7));
      return sumToCase([shape, shape.map((d) => (r.int(0, 1) ? d : 1))]);
    },
  },
  {
    name: "sumAll, meanAll",
    file: "reduce.ts",
    kernels: ["reduce.wgsl"],
    adapterKernels: ["fill.wgsl", "pointwise.wgsl"],
    functions: ["multiply_add", "add"],
    formula: "Σ x and Σ x / n over all elements",
    shapes: "any; [1] out",
    types: "f32, f16 in; f32 out",
    gradient: "dy repeated",
    cases: [1, 64, 1009, 20011].map((n) => ({
      label: `[${n}]`,
      inputs: [input([n], { offset: 0.5 })],
      body: ([x]) => [sumAll(x!), meanAll(x!)],
      reference: ([x]) => {
        const total = x!.reduce((a, b) => a + b, 0);
        return [Float64Array.of(total), Float64Array.of(total / n)];
      },
      terms: n,
    })),
  },
  {
    name: "rope",
    file: "rope.ts",
    kernels: ["rope.wgsl"],
    formula: "(a, b) → (a cos - b sin, a sin + b cos) for the pairs (2i, 2i + 1) of every head",
    shapes: "x [B, L, H hd], tables [L, hd/2] from the host",
    types: "f32, f16 (the type of x)",
    gradient: "the rotation back",
    cases: [
      ropeCase([1, 1, 1, 2]),
      ropeCase([2, 7, 3, 8]),
      ropeCase([1, 129, 1, 2]),
      ropeCase([2, 33, 2, 16]),
      ropeCase([2, 67, 4, 16]),
      ropeCase([1, 9, 2, 8], "f16"),
    ],
    draw: (r) => ropeCase([r.int(1, 3), r.int(1, 40), r.int(1, 3), 2 * r.int(1, 9)]),
  },
];
