// Convolution on NCHW with weights OIHW: forward, input gradient, weight gradient. A 1x1 kernel of stride 1 is a matrix
// product of the weights with each picture's [channels, pixels] and runs as one. Bias, activation and residual are
// pointwise steps that fusion moves into the kernel's store.

import type { EpilogueScope } from "../tensor/epilogue.ts";
import { apply1, type Node, type Operation, type Tensor } from "../tensor/graph.ts";
import type { Lowering, Target } from "../tensor/lower.ts";
import { showShape } from "../tensor/shape.ts";
import {
  type ConvShape,
  chooseConv,
  chooseConvGradInput,
  chooseConvGradWeight,
  convGradWeightVariants,
  convVariants,
  defaultConvVariant,
  defaultGradWeightVariant,
  mirroredShape,
} from "./conv_choice.ts";
import type { ConvPass } from "./conv_matrix.ts";
import { lowerConvOnMatrices, matrixChoices, matrixDefault } from "./conv_on_matrices.ts";
import { lowerProduct } from "./matmul.ts";
import { add } from "./pointwise.ts";
import { reshape } from "./reshape.ts";
import { lowerWinograd, WINOGRAD, winogradFits, winogradPays } from "./winograd.ts";

/** Zero rows and columns: top, left, bottom, right. */
export type Padding = readonly [number, number, number, number];

interface ConvAttributes {
  stride: number;
  padding: Padding;
  /** Height and width of the forward input; only needed by the input gradient. */
  input?: readonly [number, number];
  /** Kernel height and width; only needed by the weight gradient. */
  kernel?: readonly [number, number];
}

function outputSize(size: number, kernel: number, stride: number, before: number, after: number): number {
  return Math.floor((size + before + after - kernel) / stride) + 1;
}

/** The forward convolution that a node belongs to, from the shapes of x and y and the weights'. */
function convShape(
  x: readonly number[],
  y: readonly number[],
  kernel: readonly [number, number],
  a: ConvAttributes,
): ConvShape {
  const [N, IC, H, W] = x as [number, number, number, number];
  const [, OC, OH, OW] = y as [number, number, number, number];
  return {
    N,
    IC,
    H,
    W,
    OC,
    OH,
    OW,
    KH: kernel[0],
    KW: kernel[1],
    stride: a.stride,
    padTop: a.padding[0],
    padLeft: a.padding[1],
  };
}

function flopsOf(s: ConvShape): number {
  return 2 * s.N * s.OC * s.OH * s.OW * s.IC * s.KH * s.KW;
}

const isProduct = (s: ConvShape): boolean =>
  s.KH === 1 && s.KW === 1 && s.stride === 1 && s.padTop === 0 && s.padLeft === 0 && s.OH === s.H && s.OW === s.W;

function convKey(name: string, s: ConvShape, types: string): string {
  return `${name} ${s.N}x${s.IC}x${s.H}x${s.W} ${s.OC}x${s.OH}x${s.OW} k${s.KH}x${s.KW} s${s.stride} ${types}`;
}

/**
 * The tuner's answer, or the default; `s` is the convolution that the kernel computes.
 * @param matrices variants on subgroup matrices that it may take
 */
function chooseVariant(target: Target, s: ConvShape, key: string, matrices: readonly string[], pass: ConvPass): string {
  const variants = [...convVariants(target.kernels), ...(winogradFits(s) ? [WINOGRAD] : []), ...matrices];
  const name = target.choose("conv2d", key, variants) ?? matrixDefault(target, matrices, pass, s);
  if (name) return name;
  return winogradPays(s) ? WINOGRAD : defaultConvVariant(s, target.kernels, target.software);
}

/** Runs a 1x1 convolution or its input gradient as weights times each picture's channels. */
function lowerPointwise(lowering: Lowering, node: Node, x: Tensor, w: Tensor, s: ConvShape, transposeA: boolean): void {
  const weights = { slot: lowering.slot(w), shape: [1, s.OC, s.IC], dtype: w.dtype };
  const pictures = { slot: lowering.slot(x), shape: [s.N, x.dim(1), s.H * s.W], dtype: x.dtype };
  const label = `conv 1x1${transposeA ? " grad" : ""} ${s.OC}x${s.IC} ${s.H}x${s.W}`;
  lowerProduct(lowering, node, [weights, pictures], { transposeA }, label);
}

/** What an epilogue finds in scope in a kernel that finishes its values by picture, channel, row and column. */
function planeScope(source: string, [, channels, rows, columns]: readonly number[]): EpilogueScope | undefined {
  if (!source.includes("fn finish(sum : f32, n : u32, oc : u32, oy : u32, ox : u32)")) return undefined;
  const [C, H] = source.includes("n * p.OC + oc") ? ["p.OC", "p.OH"] : ["p.IC", "p.H"];
  return {
    axes: [
      { size: columns!, place: "ox", before: `((n * ${C} + oc) * ${H} + oy)` },
      { size: rows!, place: "oy", before: `(n * ${C} + oc)` },
      { size: channels!, place: "oc", before: "n" },
    ],
  };
}

const convOperation: Operation = {
  name: "conv2d",
  takesEpilogue: true,
  infer([x, w], attributes) {
    const { stride, padding } = attributes as unknown as ConvAttributes;
    if (x!.shape.length !== 4 || w!.shape.length !== 4 || x!.shape[1] !== w!.shape[1]) {
      throw new Error(`input ${showShape(x!.shape)} and weights ${showShape(w!.shape)} do not fit`);
    }
    const [n, , h, width] = x!.shape as [number, number, number, number];
    const [oc, , kh, kw] = w!.shape as [number, number, number, number];
    const oh = outputSize(h, kh, stride, padding[0], padding[2]);
    const ow = outputSize(width, kw, stride, padding[1], padding[3]);
    if (oh < 1 || ow < 1) throw new Error(`a kernel of ${kh}x${kw} leaves nothing of ${h}x${width}`);
    return [{ shape: [n, oc, oh, ow], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [x, w] = node.inputs as [Tensor, Tensor];
    const a = node.attributes as unknown as ConvAttributes;
    const y = this.infer([x, w], node.attributes)[0]!.shape;
    const s = convShape(x.shape, y, [w.dim(2), w.dim(3)], a);
    if (isProduct(s)) return lowerPointwise(lowering, node, x, w, s, false);
    const { target } = lowering;
    const matrices = matrixChoices(target, w, x);
    const name = chooseVariant(target, s, convKey("forward", s, `${x.dtype} ${w.dtype}`), matrices, "forward");
    if (name === WINOGRAD) return lowerWinograd(lowering, node, [x, w], s, false);
    const label = `conv ${s.KH}x${s.KW} ${s.OC}x${s.IC} ${s.OH}x${s.OW}${a.stride > 1 ? ` /${a.stride}` : ""}`;
    if (matrices.includes(name))
      return lowerConvOnMatrices(lowering, node, [w, x], { pass: "forward", s, name, label });
    const choice = chooseConv(s, name, target.kernels, { X: x.dtype as "f32", W: w.dtype as "f32" });
    lowering.call({
      label,
      epilogueScope: planeScope(choice.source, y),
      source: choice.source,
      constants: choice.constants,
      inputs: [lowering.slot(x), lowering.slot(w)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: choice.params,
      grid: choice.grid,
      flops: flopsOf(s),
      epilogueOf: node,
    });
  },
  gradient(node, [dy], needs) {
    const [x, w] = node.inputs as [Tensor, Tensor];
    const a = node.attributes as unknown as ConvAttributes;
    return [
      needs[0] ? apply1(gradInputOperation, [dy!, w], { ...a, input: [x.dim(2), x.dim(3)] }) : null,
      needs[1] ? apply1(gradWeightOperation, [x, dy!], { ...a, kernel: [w.dim(2), w.dim(3)] }) : null,
    ];
  },
};

const gradInputOperation: Operation = {
  name: "conv2d_grad_input",
  takesEpilogue: true,
  infer([dy, w], attributes) {
    const { input } = attributes as unknown as ConvAttributes;
    return [{ shape: [dy!.shape[0]!, w!.shape[1]!, input![0], input![1]], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [dy, w] = node.inputs as [Tensor, Tensor];
    const a = node.attributes as unknown as ConvAttributes;
    const x = this.infer([dy, w], node.attributes)[0]!.shape;
    const s = convShape(x, dy.shape, [w.dim(2), w.dim(3)], a);
    if (isProduct(s)) return lowerPointwise(lowering, node, dy, w, s, true);
    const { target } = lowering;
    // The kernel is a convolution of dy, so its choice goes by the mirrored shape.
    const mirrored = mirroredShape(s);
    const matrices = a.stride === 1 ? matrixChoices(target, w, dy) : [];
    const key = convKey("grad input", s, `${dy.dtype} ${w.dtype}`);
    const name = chooseVariant(target, mirrored, key, matrices, "grad_input");
    if (name === WINOGRAD) return lowerWinograd(lowering, node, [dy, w], mirrored, true);
    const label = `conv grad ${s.KH}x${s.KW} ${s.OC}x${s.IC} ${s.H}x${s.W}${a.stride > 1 ? ` /${a.stride}` : ""}`;
    if (matrices.includes(name))
      return lowerConvOnMatrices(lowering, node, [w, dy], { pass: "grad_input", s: mirrored, name, label });
    const choice = chooseConvGradInput(s, name, target.kernels, { X: dy.dtype as "f32", W: w.dtype as "f32" });
    lowering.call({
      label,
      epilogueScope: planeScope(choice.source, x),
      source: choice.source,
      constants: choice.constants,
      inputs: [lowering.slot(dy), lowering.slot(w)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: choice.params,
      grid: choice.grid,
      flops: flopsOf(s),
      epilogueOf: node,
    });
  },
};

const gradWeightOperation: Operation = {
  name: "conv2d_grad_weight",
  infer([x, dy], attributes) {
    const { kernel } = attributes as unknown as ConvAttributes;
    return [{ shape: [dy!.shape[1]!, x!.shape[1]!, kernel![0], kernel![1]], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [x, dy] = node.inputs as [Tensor, Tensor];
    const a = node.attributes as unknown as ConvAttributes;
    const s = convShape(x.shape, dy.shape, a.kernel!, a);
    const { target } = lowering;
    const matrices = matrixChoices(target, dy, x);
    const name =
      target.choose("conv2d_grad_weight", convKey("grad weight", s, `${x.dtype} ${dy.dtype}`), [
        ...convGradWeightVariants(target.kernels),
        ...matrices,
      ]) ??
      matrixDefault(target, matrices, "grad_weight", s) ??
      defaultGradWeightVariant(s, target.kernels, target.software);
    const label = `conv grad weight ${s.KH}x${s.KW} ${s.OC}x${s.IC} ${s.OH}x${s.OW}`;
    if (matrices.includes(name))
      return lowerConvOnMatrices(lowering, node, [dy, x], { pass: "grad_weight", s, name, label });
    const choice = chooseConvGradWeight(s, name, target.kernels, {
      X: x.dtype as "f32",
      Y: dy.dtype as "f32",
      workgroupsWanted: target.software ? 8 : 512,
    });
    const out = lowering.slot(node.outputs[0]!);
    const count = s.OC * s.IC * s.KH * s.KW;
    const parts = choice.sum ? lowering.scratch(choice.chunks * count) : out;
    lowering.call({
      label,
      source: choice.main.source,
      constants: choice.main.constants,
      inputs: [lowering.slot(x), lowering.slot(dy)],
      outputs: [parts],
      params: choice.main.params,
      grid: choice.main.grid,
      flops: flopsOf(s),
    });
    if (!choice.sum) return;
    lowering.call({
      label: "conv sum chunks",
      source: choice.sum.source,
      constants: choice.sum.constants,
      inputs: [parts],
      outputs: [out],
      params: choice.sum.params,
      grid: choice.sum.grid,
    });
  },
};

export interface ConvOptions {
  bias?: Tensor;
  stride?: number;
  padding?: Padding;
}

/** x [N, C, H, W], weight [O, C, kh, kw], bias [O] -> [N, O, oh, ow]. */
export function conv2d(x: Tensor, weight: Tensor, options: ConvOptions = {}): Tensor {
  const y = apply1(convOperation, [x, weight], {
    stride: options.stride ?? 1,
    padding: options.padding ?? [0, 0, 0, 0],
  });
  return options.bias ? add(y, reshape(options.bias, [options.bias.size, 1, 1])) : y;
}
