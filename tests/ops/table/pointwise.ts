// Pointwise functions of the table: every function of shaders/lib/functions.wgsl that a step may name, and the sources
// of tensors that need none (fill, expand, cast).

import { cast, clamp, expand, full, step } from "../../../src/ops/pointwise.ts";
import { type DType, elements, type Shape } from "../../../src/tensor/shape.ts";
import { broadcastIndex, type Case, type Draw, type Entry, gathered, input, typicalSum, type Values } from "./types.ts";

/** Counts around a lane, a workgroup of 64 with 4 and with 16 values a lane, primes, and several workgroups. */
const COUNTS = [1, 3, 63, 64, 65, 255, 257, 1009, 1023, 1024, 1025, 4099];

/** Error function by its series, and by 1 - erfc's continued fraction where that converges slowly. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a > 2.5) {
    let f = 0;
    for (let k = 60; k >= 1; k--) f = k / 2 / (a + f);
    return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + f));
  }
  let sum = x;
  let term = x;
  for (let n = 1; n < 100; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (sum * 2) / Math.sqrt(Math.PI);
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const geluInner = (x: number) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);

interface Unary {
  formula: string;
  f: (x: number) => number;
  values?: Values;
  numbers?: number[];
  functions?: string[];
  gradient?: string;
  slack?: [number, string];
}

const DRIVER_FUNCTIONS: [number, string] = [
  4,
  "the driver's exp, log and tanh are good to a few units in the last place",
];

const UNARY: Record<string, Unary> = {
  neg: { formula: "-x", f: (x) => -x, gradient: "-dy" },
  square: { formula: "x²", f: (x) => x * x, gradient: "2 x dy", functions: ["square_grad"] },
  reciprocal: {
    formula: "1 / x",
    f: (x) => 1 / x,
    values: { offset: 2 },
    gradient: "-dy y²",
    slack: [2, "division is good to 2.5 units in the last place"],
  },
  square_root: {
    formula: "√x",
    f: Math.sqrt,
    values: { offset: 1.5 },
    gradient: "dy / 2y",
    slack: [2, "division is good to 2.5 units in the last place"],
  },
  exponential: { formula: "exp x", f: Math.exp, values: { scale: 3 }, gradient: "dy y", slack: DRIVER_FUNCTIONS },
  logarithm: {
    formula: "ln x",
    f: Math.log,
    values: { scale: 2, offset: 3 },
    gradient: "dy / x",
    slack: DRIVER_FUNCTIONS,
  },
  absolute: { formula: "|x|", f: Math.abs },
  multiply_add: {
    formula: "a x + b (a, b numbers of the plan)",
    f: (x) => 0.75 * x - 2,
    numbers: [0.75, -2],
    gradient: "a dy",
  },
  clamp_between: {
    formula: "min(max(x, a), b)",
    f: (x) => Math.min(Math.max(x, -0.5), 1.5),
    values: { scale: 3, away: [-0.5, 1.5] },
    numbers: [-0.5, 1.5],
    gradient: "dy where a ≤ x ≤ b",
    functions: ["clamp_grad"],
  },
  relu: {
    formula: "max(x, 0)",
    f: (x) => Math.max(x, 0),
    values: { scale: 4, away: [0] },
    gradient: "dy where y > 0",
    functions: ["relu_grad"],
  },
  sigmoid: {
    formula: "1 / (1 + exp(-x))",
    f: sigmoid,
    values: { scale: 6 },
    gradient: "dy y (1 - y)",
    functions: ["sigmoid_grad"],
    slack: DRIVER_FUNCTIONS,
  },
  silu: {
    formula: "x sigmoid(x)",
    f: (x) => x * sigmoid(x),
    values: { scale: 6 },
    gradient: "dy s (1 + x (1 - s))",
    functions: ["silu_grad"],
    slack: DRIVER_FUNCTIONS,
  },
  quick_gelu: {
    formula: "x sigmoid(1.702 x)",
    f: (x) => x * sigmoid(1.702 * x),
    values: { scale: 5 },
    gradient: "derivative in closed form",
    functions: ["quick_gelu_grad"],
    slack: DRIVER_FUNCTIONS,
  },
  hyperbolic_tangent: {
    formula: "tanh x",
    f: Math.tanh,
    values: { scale: 3 },
    gradient: "dy (1 - y²)",
    functions: ["hyperbolic_tangent_grad"],
    slack: DRIVER_FUNCTIONS,
  },
  gelu_tanh: {
    formula: "x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))",
    f: (x) => 0.5 * x * (1 + Math.tanh(geluInner(x))),
    values: { scale: 4 },
    gradient: "derivative in closed form",
    functions: ["gelu_tanh_grad", "gelu_tanh_gate"],
    slack: DRIVER_FUNCTIONS,
  },
  gelu_erf: {
    formula: "x/2 (1 + erf(x/√2))",
    f: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    values: { scale: 4 },
    gradient: "derivative in closed form",
    functions: ["gelu_erf_grad"],
    slack: DRIVER_FUNCTIONS,
  },
  error_function: { formula: "erf x", f: erf, values: { scale: 5 } },
};

function unaryEntry(name: string, u: Unary): Entry {
  const make = (count: number, dtype: "f32" | "f16" = "f32"): Case => ({
    label: `${dtype} [${count}]`,
    inputs: [input([count], { ...u.values, seed: count, dtype })],
    body: ([x]) => [step(name, x!, undefined, u.numbers)],
    reference: ([x]) => [x!.map(u.f)],
    terms: 1,
  });
  return {
    name,
    file: "pointwise.ts",
    kernels: ["pointwise.wgsl"],
    functions: [name, ...(u.functions ?? [])],
    formula: u.formula,
    shapes: "any",
    types: "f32, f16 in; f32 out",
    gradient: u.gradient ?? "",
    slack: u.slack,
    cases: [...COUNTS.map((n) => make(n)), make(1009, "f16")],
    draw: (r) => make(r.int(1, 3000), r.pick(["f32", "f16"] as const)),
  };
}

const BINARY: Record<
  string,
  { formula: string; f: (a: number, b: number) => number; gradient: string; offset?: number }
> = {
  add: { formula: "a + b", f: (a, b) => a + b, gradient: "dy and dy" },
  sub: { formula: "a - b", f: (a, b) => a - b, gradient: "dy and -dy" },
  rsub: { formula: "b - a (made by fusion)", f: (a, b) => b - a, gradient: "" },
  mul: { formula: "a b", f: (a, b) => a * b, gradient: "dy b and dy a" },
  div: { formula: "a / b", f: (a, b) => a / b, gradient: "dy / b and -dy y / b", offset: 2 },
  scale_by: { formula: "a (1 + b)", f: (a, b) => a * (1 + b), gradient: "dy (1 + b) and dy a" },
};

/** Same shapes, a bias, a gate, a channel vector, a column, a scalar, both sides broadcast, the first one smaller. */
const PAIRS: [Shape, Shape][] = [
  [[1], [1]],
  [[6, 5], [5]],
  [
    [2, 7, 5],
    [2, 1, 5],
  ],
  [
    [2, 3, 4, 5],
    [1, 3, 1, 1],
  ],
  [
    [37, 3],
    [37, 1],
  ],
  [[3, 2, 2], [1]],
  [
    [3, 1, 4],
    [1, 5, 1],
  ],
  [[7], [3, 11, 7]],
  [
    [13, 79],
    [13, 79],
  ],
  [[3, 41, 37], [37]],
];

function broadcastShape(a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => Math.max(a[a.length - rank + i] ?? 1, b[b.length - rank + i] ?? 1));
}

function binaryEntry(name: string): Entry {
  const { formula, f, gradient, offset } = BINARY[name]!;
  const make = ([a, b]: [Shape, Shape], types: ["f32" | "f16", "f32" | "f16"] = ["f32", "f32"]): Case => {
    const shape = broadcastShape(a, b);
    const count = elements(shape);
    return {
      label: `${types[0]} [${a}], ${types[1]} [${b}]`,
      inputs: [input(a, { seed: 3, dtype: types[0] }), input(b, { seed: 4, offset, dtype: types[1] })],
      body: ([x, y]) => [step(name, x!, y!)],
      reference: ([x, y]) => [
        Float64Array.from({ length: count }, (_, i) =>
          f(x![broadcastIndex(a, shape, i)]!, y![broadcastIndex(b, shape, i)]!),
        ),
      ],
      terms: Math.max(count / elements(a), count / elements(b)),
      floor: typicalSum(Math.max(count / elements(a), count / elements(b))),
    };
  };
  const draw = (r: Draw): Case => {
    const shape = Array.from({ length: r.int(1, 4) }, () => r.int(1, 7));
    const side = () => shape.map((d) => (r.int(0, 2) === 0 ? 1 : d)).slice(r.int(0, shape.length - 1));
    return make([side(), side()]);
  };
  return {
    name,
    file: "pointwise.ts",
    kernels: ["pointwise.wgsl"],
    adapterKernels: ["fill.wgsl", "reduce.wgsl"],
    functions: [name],
    formula,
    shapes: "any two that broadcast (NumPy's rule)",
    types: "f32, f16 in; f32 out",
    gradient,
    slack: name === "div" ? [2, "division is good to 2.5 units in the last place"] : undefined,
    cases: [
      ...PAIRS.map((pair) => make(pair)),
      make([[9, 40], [40]], ["f16", "f32"]),
      make(
        [
          [9, 40],
          [9, 1],
        ],
        ["f32", "f16"],
      ),
    ],
    draw,
  };
}

const SHAPES: [Shape, Shape][] = [
  [[1], [1, 5]],
  [
    [5, 1],
    [5, 13],
  ],
  [
    [1, 3, 1],
    [4, 3, 70],
  ],
  [[1009], [1009]],
];

function expandCase([from, to]: [Shape, Shape]): Case {
  return {
    label: `[${from}] to [${to}]`,
    inputs: [input(from)],
    body: ([x]) => [expand(x!, to)],
    reference: ([x]) => [gathered(x!, elements(to), (i) => broadcastIndex(from, to, i))],
    terms: elements(to) / elements(from),
    floor: typicalSum(elements(to) / elements(from)),
  };
}

function castCase(count: number, from: DType, to: DType): Case {
  const whole = {
    shape: [count],
    dtype: "u32" as const,
    values: Array.from({ length: count }, (_, i) => (i * 7919) % 60000),
  };
  return {
    label: `${from} to ${to} [${count}]`,
    inputs: [from === "u32" ? whole : input([count], { dtype: from })],
    body: ([x]) => [cast(x!, to)],
    reference: ([x]) => [x!],
    terms: 1,
    // The gradient comes back in the type of x.
    stored: to === "f16" || from === "f16" ? "f16" : undefined,
  };
}

const WORDS = { file: "pointwise.ts", shapes: "any" };

export const POINTWISE: Entry[] = [
  ...Object.entries(UNARY).map(([name, unary]) => unaryEntry(name, unary)),
  ...Object.keys(BINARY).map(binaryEntry),
  {
    ...WORDS,
    name: "clamp",
    kernels: ["pointwise.wgsl"],
    functions: ["clamp_between"],
    formula: "min(max(x, a), b), the bounds themselves inside",
    types: "f32, f16 in; f32 out",
    gradient: "dy where a ≤ x ≤ b",
    cases: [
      {
        label: "values at and around the bounds",
        inputs: [{ shape: [5], values: [-3, -0.999, 0, 0.999, 3] }],
        body: ([x]) => [clamp(x!, -1, 1)],
        reference: ([x]) => [x!.map((v) => Math.min(Math.max(v, -1), 1))],
        terms: 1,
      },
    ],
  },
  {
    ...WORDS,
    name: "full",
    kernels: ["fill.wgsl"],
    formula: "out[i] = value",
    types: "f32 out",
    gradient: "",
    cases: [1, 255, 256, 257, 1009, 4099].map((n) => ({
      label: `[${n}]`,
      inputs: [],
      body: (_, graph) => [full(graph, [n], -1.5)],
      reference: () => [new Float64Array(n).fill(-1.5)],
      terms: 1,
    })),
  },
  {
    ...WORDS,
    name: "expand",
    kernels: ["fill.wgsl", "pointwise.wgsl", "reduce.wgsl"],
    functions: ["add"],
    formula: "a repeated along dimensions of size 1",
    types: "f32 in and out",
    gradient: "sums over the repeated dimensions",
    cases: SHAPES.map(expandCase),
  },
  {
    ...WORDS,
    name: "cast",
    kernels: ["pointwise.wgsl"],
    formula: "the same value in another element type",
    types: "f32, f16, u32",
    gradient: "dy in the type of x",
    cases: [
      ...[1, 257, 1009].map((n) => castCase(n, "f16", "f32")),
      ...[1, 63, 257].map((n) => castCase(n, "f32", "f16")),
      castCase(300, "u32", "f32"),
      castCase(300, "f32", "f32"),
    ],
  },
];
