// Pointwise operations with NumPy broadcasting: arithmetic, activations, clamps, casts, and the in-place addition that
// gradients accumulate with. Each traced node has one step; fuse.ts joins them with each other and with the kernels
// before them. Formulas of the activations and their derivatives: shaders/lib/functions.wgsl.

import fillSource from "../../shaders/fill.wgsl" with { type: "text" };
import pointwiseSource from "../../shaders/pointwise.wgsl" with { type: "text" };
import type { PointwiseStep } from "../tensor/epilogue.ts";
import { apply1, type Graph, type Node, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, type Lowering, laneGrid, type Slot, type Target, type WideVariant } from "../tensor/lower.ts";
import { broadcastShapes, type DType, elements, type Shape, sameShape } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { sumTo } from "./reduce.ts";
import { reshape } from "./reshape.ts";

type Rule = (dy: Tensor, inputs: readonly Tensor[], output: Tensor, numbers: readonly number[]) => (Tensor | null)[];

const gradientOf =
  (name: string): Rule =>
  (dy, [x]) => [step(name, dy, x!)];

/** How the gradient of each step flows back; grouped by the name of the step. */
const RULES: Readonly<Record<string, Rule>> = {
  add: (dy) => [dy, dy],
  sub: (dy) => [dy, neg(dy)],
  mul: (dy, [a, b]) => [mul(dy, b!), mul(dy, a!)],
  div: (dy, [, b], y) => [div(dy, b!), neg(div(mul(dy, y), b!))],
  scale_by: (dy, [a, b]) => [step("scale_by", dy, b!), mul(dy, a!)],
  neg: (dy) => [neg(dy)],
  square: gradientOf("square_grad"),
  reciprocal: (dy, _, y) => [neg(mul(dy, square(y)))],
  square_root: (dy, _, y) => [affine(div(dy, y), 0.5, 0)],
  exponential: (dy, _, y) => [mul(dy, y)],
  logarithm: (dy, [x]) => [div(dy, x!)],
  multiply_add: (dy, _x, _y, [factor]) => [affine(dy, factor!, 0)],
  clamp_between: (dy, [x], _y, [low, high]) => [step("clamp_grad", dy, x!, [low!, high!])],
  // From the output, so that the input need not be kept.
  relu: (dy, _x, y) => [step("relu_grad", dy, y)],
  sigmoid: gradientOf("sigmoid_grad"),
  silu: gradientOf("silu_grad"),
  quick_gelu: gradientOf("quick_gelu_grad"),
  hyperbolic_tangent: gradientOf("hyperbolic_tangent_grad"),
  gelu_tanh: gradientOf("gelu_tanh_grad"),
  gelu_erf: gradientOf("gelu_erf_grad"),
  cast: (dy, [x]) => [cast(dy, x!.dtype)],
};

/** The variant of pointwise.wgsl that makes vectors of four, where `count` values are whole vectors. */
function wideVariant(count: number, from: DType, to: DType, target: Target): WideVariant | null {
  if (count % 4 !== 0) return null;
  const { grid, lanes } = laneGrid(count / 4, target, true);
  return {
    constants: { ...lanes, A_ITEM: `vec4<${from}>`, OUT_ITEM: `vec4<${to}>`, WIDE: true },
    params: [count, grid[0]],
    grid,
    epilogueScope: { first: { name: "first", lanes: 4 * lanes.LANES } },
  };
}

const pointwiseOperation: Operation = {
  name: "pointwise",
  role: "pointwise",
  infer(inputs, attributes) {
    let shape: Shape = inputs[0]!.shape;
    for (const input of inputs.slice(1)) shape = broadcastShapes(shape, input.shape);
    return [{ shape, dtype: (attributes["dtype"] as DType | undefined) ?? "f32" }];
  },
  lower(lowering, node) {
    const out = node.outputs[0]!;
    const a = lowering.slot(node.inputs[0]!);
    const { grid, lanes } = laneGrid(out.size, lowering.target);
    const from = node.inputs[0]!.dtype;
    lowering.call({
      label: `pointwise ${(node.attributes["epilogue"] as PointwiseStep[]).map((s) => s.name).join(" ") || "cast"}`,
      source: pointwiseSource,
      constants: { A_ITEM: from, OUT_ITEM: out.dtype, WIDE: false, ACCUMULATE: false, ...lanes },
      wide: wideVariant(out.size, from, out.dtype, lowering.target),
      inputs: [a],
      outputs: [lowering.slot(out)],
      params: [out.size, grid[0]],
      grid,
      flops: out.size * (node.attributes["epilogue"] as PointwiseStep[]).length,
      epilogueOf: node,
      epilogueScope: { first: { name: "first", lanes: lanes.LANES } },
    });
  },
  gradient(node, [dy], needs) {
    const { name, numbers } = (node.attributes["epilogue"] as PointwiseStep[])[0] ?? { name: "cast" };
    const rule = RULES[name];
    if (!rule) throw new Error(`pointwise step ${name} has no gradient`);
    const all = rule(dy!, node.inputs, node.outputs[0]!, numbers ?? []);
    return all.map((g, i) => (g && needs[i] ? sumTo(g, node.inputs[i]!.shape) : null));
  },
};

/** One step on tensors: `step("add", a, b)`; the first argument is expanded when the second is larger. */
export function step(name: string, a: Tensor, b?: Tensor, numbers?: number[]): Tensor {
  if (!b) return apply1(pointwiseOperation, [a], { epilogue: [{ name, numbers }] });
  const shape = broadcastShapes(a.shape, b.shape);
  const first = sameShape(a.shape, shape) ? a : expand(a, shape);
  return apply1(pointwiseOperation, [first, b], { epilogue: [{ name, operand: 1, numbers }] });
}

export function add(a: Tensor, b: Tensor): Tensor {
  return elements(a.shape) < elements(b.shape) ? step("add", b, a) : step("add", a, b);
}
export function mul(a: Tensor, b: Tensor): Tensor {
  if (a === b) return square(a);
  return elements(a.shape) < elements(b.shape) ? step("mul", b, a) : step("mul", a, b);
}
export const sub = (a: Tensor, b: Tensor): Tensor => step("sub", a, b);
export const div = (a: Tensor, b: Tensor): Tensor => step("div", a, b);
/** a * (1 + b). */
export const scaleBy = (a: Tensor, b: Tensor): Tensor => step("scale_by", a, b);
export const neg = (a: Tensor): Tensor => step("neg", a);
export const square = (a: Tensor): Tensor => step("square", a);
export const sqrt = (a: Tensor): Tensor => step("square_root", a);
export const exp = (a: Tensor): Tensor => step("exponential", a);
export const log = (a: Tensor): Tensor => step("logarithm", a);
export const reciprocal = (a: Tensor): Tensor => step("reciprocal", a);
export const relu = (a: Tensor): Tensor => step("relu", a);
export const silu = (a: Tensor): Tensor => step("silu", a);
export const sigmoid = (a: Tensor): Tensor => step("sigmoid", a);
export const tanh = (a: Tensor): Tensor => step("hyperbolic_tangent", a);
export const geluTanh = (a: Tensor): Tensor => step("gelu_tanh", a);
export const geluErf = (a: Tensor): Tensor => step("gelu_erf", a);
export const quickGelu = (a: Tensor): Tensor => step("quick_gelu", a);
/** a * factor + offset with numbers that are fixed in the plan. */
export const affine = (a: Tensor, factor: number, offset: number): Tensor =>
  step("multiply_add", a, undefined, [factor, offset]);
export const clamp = (a: Tensor, low: number, high: number): Tensor => step("clamp_between", a, undefined, [low, high]);

/** The same values with another element type. */
export function cast(a: Tensor, dtype: DType): Tensor {
  if (a.dtype === dtype) return a;
  return apply1(pointwiseOperation, [a], { epilogue: [], dtype });
}

/** Activations by the names that model configurations use. */
export const ACTIVATIONS: Readonly<Record<string, (a: Tensor) => Tensor>> = {
  relu,
  silu,
  gelu: geluErf,
  gelu_new: geluTanh,
  gelu_tanh: geluTanh,
  quick_gelu: quickGelu,
};

/** Calls the kernel that writes one value everywhere. */
export function lowerFill(lowering: Lowering, out: Slot, count: number, value: number, label = "fill"): void {
  const isWide = count % 4 === 0;
  const items = isWide ? count / 4 : count;
  const { grid, lanes } = laneGrid(items, lowering.target, isWide);
  lowering.call({
    label,
    source: fillSource,
    constants: { OUT: out.dtype, ITEM: isWide ? `vec4<${out.dtype}>` : out.dtype, ...lanes },
    inputs: [],
    outputs: [out],
    params: [items, grid[0], f32Bits(value)],
    grid,
  });
}

const fillOperation: Operation = {
  name: "fill",
  infer: (_inputs, attributes) => [{ shape: attributes["shape"] as Shape, dtype: "f32" }],
  lower(lowering, node) {
    const out = node.outputs[0]!;
    lowerFill(lowering, lowering.slot(out), out.size, node.attributes["value"] as number);
  },
};

/** A tensor of one value. */
export function full(graph: Graph, shape: Shape, value: number): Tensor {
  return graph.apply(fillOperation, [], { shape, value })[0]!;
}

/** `a` repeated along broadcast dimensions. */
export function expand(a: Tensor, shape: Shape): Tensor {
  if (sameShape(a.shape, shape)) return a;
  if (elements(a.shape) === elements(shape)) return reshape(a, shape);
  return step("add", full(a.graph, shape, 0), a);
}

const accumulateOperation: Operation = {
  name: "accumulate",
  role: "accumulate",
  sideEffect: true,
  infer: () => [],
  lower(lowering, node) {
    const x = node.inputs[0]!;
    const { grid, lanes } = laneGrid(x.size, lowering.target);
    lowering.call({
      label: "accumulate",
      source: pointwiseSource,
      constants: { A_ITEM: x.dtype, OUT_ITEM: "f32", WIDE: false, ACCUMULATE: true, ...lanes },
      wide: wideVariant(x.size, x.dtype, "f32", lowering.target),
      inputs: [lowering.slot(x)],
      outputs: [],
      inPlace: [lowering.variable(node.attributes["target"] as Variable)],
      params: [x.size, grid[0]],
      grid,
      flops: x.size,
    });
  },
};

/** target += x, in place. */
export function accumulate(target: Variable, x: Tensor): Node {
  x.graph.apply(accumulateOperation, [x], { target });
  return x.graph.nodes.at(-1)!;
}
