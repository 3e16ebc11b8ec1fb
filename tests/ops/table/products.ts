// Matrix products, the linear layer, convolutions and attention of the table.

import { attention } from "../../../src/ops/attention.ts";
import { conv2d, type Padding } from "../../../src/ops/conv2d.ts";
import { linear, matmul } from "../../../src/ops/matmul.ts";
import { type AttentionProblem, attentionForward } from "../../helpers/reference_attention.ts";
import { type Case, type Draw, type Entry, input, typicalSum } from "./types.ts";

type Type = "f32" | "f16";

/** C = op(A) op(B) of one batch element in float64. */
export function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  [M, N, K]: readonly number[],
  { transA = false, transB = false, atA = 0, atB = 0 } = {},
): Float64Array {
  const c = new Float64Array(M! * N!);
  for (let m = 0; m < M!; m++) {
    for (let n = 0; n < N!; n++) {
      let sum = 0;
      for (let k = 0; k < K!; k++) {
        sum += a[atA + (transA ? k * M! + m : m * K! + k)]! * b[atB + (transB ? n * K! + k : k * N! + n)]!;
      }
      c[m * N! + n] = sum;
    }
  }
  return c;
}

/** M, N, K around the tiles of all variants, and primes. */
const SIZES = [
  [1, 1, 1],
  [1, 300, 17],
  [4, 7, 129],
  [15, 31, 33],
  [16, 32, 64],
  [17, 33, 65],
  [61, 67, 71],
  [80, 4, 300],
  [3, 256, 1],
] as const;

export function matmulCase(
  sizes: readonly number[],
  { transA = false, transB = false, batch = 1, types = ["f32", "f32"] as readonly [Type, Type] } = {},
): Case {
  const [M, N, K] = sizes as [number, number, number];
  return {
    label: `${types.join(" ")} ${transA ? "T" : "N"}${transB ? "T" : "N"} ${batch}x ${M}x${N}x${K}`,
    inputs: [
      input(transA ? [batch, K, M] : [batch, M, K], { seed: 1, dtype: types[0] }),
      input(transB ? [batch, N, K] : [batch, K, N], { seed: 2, dtype: types[1] }),
    ],
    body: ([a, b]) => [matmul(a!, b!, { transposeA: transA, transposeB: transB })],
    reference: ([a, b]) => {
      const c = new Float64Array(batch * M * N);
      for (let i = 0; i < batch; i++)
        c.set(product(a!, b!, sizes, { transA, transB, atA: i * M * K, atB: i * K * N }), i * M * N);
      return [c];
    },
    terms: Math.max(M, N, K),
    floor: typicalSum(Math.min(M, N, K)),
  };
}

function layoutEntry(transA: boolean, transB: boolean): Entry {
  const layout = `${transA ? "T" : "N"}${transB ? "T" : "N"}`;
  return {
    name: `matmul ${layout}`,
    file: "matmul.ts",
    kernels: [],
    adapterKernels: [
      "matmul_direct.wgsl",
      "matmul_outer.wgsl",
      "matmul_narrow.wgsl",
      "matmul_tiled.wgsl",
      "matmul_matrix.wgsl",
    ],
    formula: `C[b] = A[b]${transA ? "ᵀ" : ""} B[b]${transB ? "ᵀ" : ""}`,
    shapes: `A [b, ${transA ? "K, M" : "M, K"}], B [b, ${transB ? "N, K" : "K, N"}]; B may be one matrix for all rows of A`,
    types: "f32, f16 in; f32 out",
    gradient: "products again: dC Bᵀ and Aᵀ dC",
    cases: [
      ...SIZES.map((sizes) => matmulCase(sizes, { transA, transB })),
      matmulCase([5, 6, 7], { transA, transB, batch: 3 }),
      matmulCase([17, 9, 12], { transA, transB, batch: 2 }),
      matmulCase([20, 24, 40], { transA, transB, types: ["f32", "f16"] }),
      matmulCase([9, 17, 33], { transA, transB, types: ["f16", "f16"] }),
      // Sums of few terms, few columns and few rows.
      matmulCase([65, 36, 3], { transA, transB, batch: 2 }),
      matmulCase([8, 32, 16], { transA, transB, types: ["f16", "f16"] }),
      matmulCase([36, 3, 18], { transA, transB, batch: 2 }),
      matmulCase([260, 4, 7], { transA, transB, types: ["f32", "f16"] }),
      matmulCase([3, 36, 18], { transA, transB, batch: 2 }),
      matmulCase([4, 260, 21], { transA, transB, types: ["f32", "f16"] }),
    ],
    draw: (r) =>
      matmulCase([r.int(1, 70), r.int(1, 70), r.int(1, 90)], { transA, transB, batch: r.pick([1, 1, 2, 3]) }),
  };
}

function linearCase(
  shape: number[],
  width: number,
  bias: boolean,
  types: readonly [Type, Type] = ["f32", "f32"],
): Case {
  const K = shape.at(-1)!;
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const extra = bias ? [input([width], { seed: 3 })] : [];
  return {
    label: `${types.join(" ")} [${shape}] to ${width}${bias ? " with bias" : ""}`,
    inputs: [input(shape, { dtype: types[0] }), input([width, K], { seed: 2, dtype: types[1] }), ...extra],
    body: ([x, w, b]) => [linear(x!, w!, b)],
    reference: ([x, w, b]) => [
      product(x!, w!, [rows, width, K], { transB: true }).map((v, i) => v + (b ? b[i % width]! : 0)),
    ],
    terms: Math.max(rows, width, K),
    floor: typicalSum(Math.min(rows, width, K)),
  };
}

export interface ConvCase {
  /** N, C, H, W. */
  x: readonly [number, number, number, number];
  out: number;
  kernel: readonly [number, number];
  stride?: number;
  padding?: Padding;
  bias?: boolean;
  types?: readonly [Type, Type];
}

/** y[n, o, i, j] = Σ w[o, c, u, v] x[n, c, i s + u - top, j s + v - left] in float64. */
export function convReference(x: ArrayLike<number>, w: ArrayLike<number>, c: ConvCase): Float64Array {
  const [N, C, H, W] = c.x;
  const [KH, KW] = c.kernel;
  const { stride = 1, padding = [0, 0, 0, 0] } = c;
  const OH = Math.floor((H + padding[0] + padding[2] - KH) / stride) + 1;
  const OW = Math.floor((W + padding[1] + padding[3] - KW) / stride) + 1;
  const y = new Float64Array(N * c.out * OH * OW);
  let at = 0;
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < c.out; o++) {
      for (let i = 0; i < OH; i++) {
        for (let j = 0; j < OW; j++) {
          let sum = 0;
          for (let ch = 0; ch < C; ch++) {
            for (let u = 0; u < KH; u++) {
              const row = i * stride + u - padding[0];
              if (row < 0 || row >= H) continue;
              for (let v = 0; v < KW; v++) {
                const column = j * stride + v - padding[1];
                if (column < 0 || column >= W) continue;
                sum += x[((n * C + ch) * H + row) * W + column]! * w[((o * C + ch) * KH + u) * KW + v]!;
              }
            }
          }
          y[at++] = sum;
        }
      }
    }
  }
  return y;
}

export function convCase(c: ConvCase): Case {
  const [N, C, H, W] = c.x;
  const { kernel, out, stride = 1, padding = [0, 0, 0, 0], types = ["f32", "f32"] } = c;
  const bias = c.bias ? [input([out], { seed: 3 })] : [];
  return {
    label: `${types.join(" ")} [${c.x}] ${kernel.join("x")} to ${out}, stride ${stride}, padding ${padding}`,
    inputs: [input(c.x, { dtype: types[0] }), input([out, C, ...kernel], { seed: 2, dtype: types[1] }), ...bias],
    body: ([x, w, b]) => [conv2d(x!, w!, { stride, padding, bias: b })],
    reference: ([x, w, b]) => {
      const y = convReference(x!, w!, c);
      const plane = y.length / N / out;
      return [b ? y.map((v, i) => v + b[Math.floor(i / plane) % out]!) : y];
    },
    terms: Math.max(C, out) * Math.max(kernel[0] * kernel[1], (N * H * W) / stride ** 2),
  };
}

const SAME: Padding = [1, 1, 1, 1];
const CONVS: ConvCase[] = [
  { x: [1, 1, 1, 1], out: 1, kernel: [1, 1] },
  { x: [2, 5, 4, 7], out: 3, kernel: [1, 1], bias: true },
  { x: [3, 8, 4, 4], out: 16, kernel: [1, 1] },
  { x: [1, 1, 3, 3], out: 1, kernel: [3, 3] },
  { x: [1, 1, 1, 1], out: 1, kernel: [3, 3], padding: SAME },
  { x: [3, 7, 5, 13], out: 3, kernel: [3, 3], padding: SAME },
  { x: [1, 4, 7, 9], out: 5, kernel: [3, 3], padding: SAME, bias: true },
  { x: [2, 3, 8, 8], out: 8, kernel: [3, 3], padding: SAME },
  { x: [1, 17, 9, 5], out: 16, kernel: [3, 3], padding: SAME },
  { x: [1, 8, 8, 7], out: 9, kernel: [3, 3], padding: SAME },
  { x: [1, 3, 9, 11], out: 4, kernel: [3, 3], stride: 2, padding: SAME },
  { x: [2, 4, 8, 8], out: 6, kernel: [3, 3], stride: 2, padding: [0, 0, 1, 1] },
  { x: [1, 2, 11, 6], out: 3, kernel: [5, 2], padding: [2, 0, 2, 1] },
  { x: [1, 3, 12, 16], out: 5, kernel: [4, 4], stride: 4 },
  { x: [1, 8, 8, 8], out: 8, kernel: [3, 3], padding: SAME, types: ["f32", "f16"] },
  { x: [1, 5, 6, 7], out: 5, kernel: [3, 3], padding: SAME, types: ["f16", "f16"] },
  // Enough channels and tiles for Winograd's form; neither size a multiple of its tile.
  { x: [2, 16, 15, 17], out: 19, kernel: [3, 3], padding: SAME, bias: true },
  { x: [1, 17, 26, 22], out: 16, kernel: [3, 3], padding: [0, 2, 1, 0] },
  { x: [1, 16, 24, 24], out: 16, kernel: [3, 3], padding: SAME, types: ["f16", "f16"] },
];

function drawConv(r: Draw): Case {
  const kernel = r.pick([
    [1, 1],
    [3, 3],
    [3, 3],
    [2, 3],
  ] as const);
  const stride = r.pick([1, 1, 2]);
  const pad = () => r.int(0, kernel[0] - 1);
  return convCase({
    x: [r.int(1, 2), r.int(1, 9), r.int(3, 11), r.int(3, 11)],
    out: r.int(1, 9),
    kernel,
    stride,
    padding: kernel[0] === 1 ? [0, 0, 0, 0] : [pad(), pad(), pad(), pad()],
  });
}

function attentionCase(p: AttentionProblem, dtype: Type = "f32", variant?: "in_place" | "staged"): Case {
  const width = p.heads * p.headSize;
  return {
    label: `${dtype} Lq ${p.rows}, Lk ${p.keys}, ${p.batch}x${p.heads} heads of ${p.headSize}${p.causal ? ", causal" : ""}${variant ? `, ${variant}` : ""}`,
    inputs: [
      input([p.batch, p.rows, width], { dtype }),
      input([p.batch, p.keys, width], { seed: 2, dtype }),
      input([p.batch, p.keys, width], { seed: 3, dtype }),
    ],
    body: ([q, k, v]) => [attention(q!, k!, v!, { heads: p.heads, scale: p.scale, causal: p.causal, variant })],
    reference: ([q, k, v]) => [attentionForward(p, q!, k!, v!)],
    terms: p.keys + p.rows + p.headSize,
  };
}

/** With a bias that is an input, so that its gradient is asked for. */
function attentionBiasCase(p: AttentionProblem, dtype: Type = "f32"): Case {
  const plain = attentionCase(p, dtype);
  return {
    label: `${plain.label}, bias`,
    inputs: [...plain.inputs, input([p.heads, p.rows, p.keys], { seed: 4 })],
    body: ([q, k, v, bias]) => [attention(q!, k!, v!, { heads: p.heads, scale: p.scale, causal: p.causal, bias })],
    reference: ([q, k, v, bias]) => [attentionForward({ ...p, bias }, q!, k!, v!)],
    terms: plain.terms + p.batch,
  };
}

const heads = { batch: 2, heads: 2, headSize: 8, scale: 0.4 };

export const PRODUCTS: Entry[] = [
  layoutEntry(false, false),
  layoutEntry(false, true),
  layoutEntry(true, false),
  layoutEntry(true, true),
  {
    name: "linear",
    file: "matmul.ts",
    kernels: [],
    adapterKernels: [
      "matmul_direct.wgsl",
      "matmul_outer.wgsl",
      "matmul_narrow.wgsl",
      "matmul_tiled.wgsl",
      "matmul_matrix.wgsl",
      "reduce.wgsl",
    ],
    functions: ["add"],
    formula: "y = x Wᵀ + b",
    shapes: "x [..., in], W [out, in], b [out]",
    types: "f32, f16 in; f32 out",
    gradient: "dy W, dyᵀ x, sum of dy; dW is added into its gradient buffer by the product's own kernel",
    cases: [
      linearCase([2, 9, 16], 24, true),
      linearCase([5, 7], 1, false),
      linearCase([1, 1, 63], 65, true),
      linearCase([20, 40], 24, true, ["f32", "f16"]),
      linearCase([20, 40], 24, true, ["f16", "f16"]),
    ],
    draw: (r) => linearCase([r.int(1, 3), r.int(1, 30), r.int(1, 40)], r.int(1, 40), r.int(0, 1) === 1),
  },
  {
    name: "conv2d",
    file: "conv2d.ts",
    kernels: [
      "conv2d_direct.wgsl",
      "conv2d_grad_input.wgsl",
      "conv2d_grad_weight.wgsl",
      "conv2d_sum_chunks.wgsl",
      "winograd_weights.wgsl",
      "winograd_input.wgsl",
      "winograd_output.wgsl",
    ],
    adapterKernels: [
      "matmul_direct.wgsl",
      "matmul_outer.wgsl",
      "matmul_narrow.wgsl",
      "matmul_tiled.wgsl",
      "matmul_matrix.wgsl",
      "reduce.wgsl",
    ],
    functions: ["add"],
    formula: "y[n, o, i, j] = Σ w[o, c, u, v] x[n, c, i s + u - top, j s + v - left] + b[o]",
    shapes: "x [N, C, H, W], w [O, C, kh, kw], b [O]; any stride, padding of each side",
    types: "f32, f16 in; f32 out",
    gradient: "input gradient by the mirrored kernel (stride 1) or in gather form, weight gradient in fixed chunks",
    cases: CONVS.map(convCase),
    draw: drawConv,
  },
  {
    name: "attention",
    file: "attention.ts",
    kernels: [
      "attention_forward.wgsl",
      "attention_delta.wgsl",
      "attention_grad_query.wgsl",
      "attention_grad_key_value.wgsl",
      "attention_grad_bias.wgsl",
      "slabs.wgsl",
    ],
    adapterKernels: [
      "attention_matrix_forward.wgsl",
      "attention_matrix_grad_query.wgsl",
      "attention_matrix_grad_key_value.wgsl",
      "reduce.wgsl",
    ],
    formula: "softmax(scale q kᵀ + bias) v for every head",
    shapes: "q [B, Lq, H hd], k and v [B, Lk, H hd], bias [H, Lq, Lk]; hd a multiple of 4 up to 512",
    types: "f32, f16 in; f32, f16 out",
    gradient: "flash form from the saved log-sum-exp; the bias's in parts of the batch, which are then added",
    slack: [4, "the driver's exp is good to a few units in the last place"],
    cases: [
      attentionCase({ ...heads, rows: 9, keys: 17 }),
      attentionCase({ ...heads, rows: 33, keys: 33, causal: true }),
      attentionCase({ ...heads, rows: 67, keys: 5 }),
      attentionCase({ ...heads, rows: 9, keys: 17 }, "f16"),
      attentionCase({ ...heads, rows: 37, keys: 13 }, "f32", "staged"),
      attentionBiasCase({ ...heads, rows: 9, keys: 17 }),
      attentionBiasCase({ ...heads, batch: 35, rows: 6, keys: 6, causal: true }),
      attentionBiasCase({ ...heads, rows: 7, keys: 11 }, "f16"),
    ],
    draw: (r) => attentionCase({ ...heads, batch: r.int(1, 3), rows: r.int(1, 40), keys: r.int(2, 40) }),
  },
];
