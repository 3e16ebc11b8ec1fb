// Convolutions on subgroup matrices as implicit products (Chellapilla et al. 2006; cuDNN, Chetlur et al. 2014): which
// variants of the product's kernel can compute one, which of them suits a shape, and what a dispatch of one needs. The
// columns of a convolution's matrix are picked out of the picture while tiles are staged. Pure decisions, as in conv_choice.ts.

import eightPixels from "../../shaders/lib/eight_pixels.wgsl" with { type: "text" };
import eightTurned from "../../shaders/lib/eight_turned.wgsl" with { type: "text" };
import type { KernelLimits } from "../gpu/kernel_limits.ts";
import { expandTemplate } from "../gpu/template.ts";
import type { ConvShape } from "./conv_choice.ts";
import type { MatmulElement, MatmulShape } from "./matmul_choice.ts";
import {
  chooseWithOperands,
  defaultMatrixVariant,
  FULL_CARD,
  LEAST_PART,
  type MatrixChoice,
  type MatrixVariant,
  matrixReads,
  matrixVariant,
  matrixVariants,
} from "./matmul_matrix.ts";
import { type HalvesLoader, halvesLoader } from "./operand.ts";

/** Forward; input gradient of stride 1, whose shape is mirrored; weight gradient, with the forward shape. */
export type ConvPass = "forward" | "grad_input" | "grad_weight";

export interface ConvMatrixOptions {
  /** Element types of the left factor (weights, of the weight gradient dY), of the picture and of the result, default f32. */
  A?: MatmulElement;
  B?: MatmulElement;
  C?: MatmulElement;
  epilogue?: string;
  epilogueBindings?: string;
  hasEpilogue?: boolean;
}

/** Pictures of a batch are one product after the other where that leaves no tile half empty, otherwise columns of one. */
function isFlat(pass: ConvPass, s: ConvShape, v: Pick<MatrixVariant, "tileN">): boolean {
  const pixels = s.OH * s.OW;
  // dY is read by groups of eight pixels, which must not cross pictures.
  return s.N > 1 && (pass === "grad_weight" ? pixels % 8 === 0 : pixels % v.tileN !== 0);
}

/** The product that a pass is: C [OC, pixels] or, of the weight gradient, [OC, IC·KH·KW]. */
function productOf(pass: ConvPass, s: ConvShape, flat: boolean): MatmulShape {
  const { N, IC, H, W, OC, OH, OW, KH, KW } = s;
  const pixels = OH * OW * (flat ? N : 1);
  const kernel = IC * KH * KW;
  const batch = flat ? 1 : N;
  const strideB = flat ? 0 : IC * H * W;
  return pass === "grad_weight"
    ? { M: OC, N: kernel, K: pixels, batch, strideA: OC * pixels, strideB, strideC: OC * kernel, transB: true }
    : { M: OC, N: pixels, K: kernel, batch, strideA: 0, strideB, strideC: OC * pixels };
}

/** Names of the variants that an adapter with `limits` can run. */
export function convMatrixVariants(limits: KernelLimits): string[] {
  return matrixVariants(limits).map(({ name }) => name);
}

/** The variant to run without measuring, or null where matrices do not pay. */
export function defaultConvMatrix(pass: ConvPass, s: ConvShape, limits: KernelLimits): string | null {
  const { M, N, K } = productOf(pass, s, true);
  if (pass !== "grad_weight") return defaultMatrixVariant({ M, N, K }, limits);
  if (Math.min(M, N) <= 8) return null;
  // Few sums of many terms: the largest tiles that are enough together with parts of K beside each other.
  const all = matrixVariants(limits);
  const own = all.filter((v) => v.size === all[0]!.size && v.tileM === v.tileN && v.band === 0 && !v.straight);
  const usable = own.filter((v) => v.splits === 1 || K / v.splits >= LEAST_PART);
  const workgroups = (v: MatrixVariant) => Math.ceil(M / v.tileM) * Math.ceil(N / v.tileN) * v.splits;
  const filling = usable.find((v) => workgroups(v) >= FULL_CARD && v.tileM < 2 * Math.min(M, N));
  return (filling ?? usable.toSorted((a, b) => workgroups(b) - workgroups(a))[0])?.name ?? null;
}

/** Whether groups of eight pixels are whole in memory where the picture holds halves. */
export function hasAlignedPixels({ W, OW, KW, stride = 1, padLeft = 0 }: ConvShape): boolean {
  return KW === 3 && stride === 1 && padLeft === 1 && OW === W && W % 8 === 0;
}

/** How often a variant reads each value of the left factor and of the picture. */
export function convMatrixReads(
  pass: ConvPass,
  s: ConvShape,
  name: string,
  limits: KernelLimits,
): { A: number; B: number } {
  const v = matrixVariant(name, limits);
  const { A, B } = matrixReads(productOf(pass, s, isFlat(pass, s, v)), name, limits);
  return { A, B: (B * s.KH * s.KW) / (s.stride ?? 1) ** 2 };
}

/**
 * What a dispatch of `pass` needs, with the variant `name`. Bindings: 1 weights (of the weight gradient dY), 2 X (of the
 * input gradient dY), 3 the result or, with `sum`, the parts that it adds. Throws an Error on an unknown name.
 */
export function chooseConvMatrix(
  pass: ConvPass,
  s: ConvShape,
  name: string,
  limits: KernelLimits,
  options: ConvMatrixOptions = {},
): MatrixChoice {
  const flat = isFlat(pass, s, matrixVariant(name, limits));
  const shape = productOf(pass, s, flat);
  const { IC, H, W, OH, OW, KH, KW, stride = 1, padTop = 0, padLeft = 0 } = s;
  const { A = "f32", B = "f32" } = options;
  const isWeights = pass === "grad_weight";
  const taps = KH * KW;
  const pixels = OH * OW;
  const [rows, columns] = isWeights ? ["p.N", "p.K"] : ["p.K", "p.N"];
  const aligned = B === "f16" && hasAlignedPixels(s);
  const kernel = { TAPS: taps, KW, STRIDE: stride, FLAT: flat, ALIGNED: aligned };
  const element = aligned ? "vec4<u32>" : B;
  const loadB = { element, text: expandTemplate(eightPixels, { X: "B", ROWS: rows, COLUMNS: columns, ...kernel }) };
  let loadA: HalvesLoader;
  if (pass === "grad_input")
    loadA = { element: A, text: expandTemplate(eightTurned, { X: "A", ROWS: "p.M", COLUMNS: "p.K", TAPS: taps }) };
  else if (isWeights && flat) loadA = halvesLoader("A", A, ["p.M", "p.K"], shape.K, 0, PLACE_IN_PICTURES);
  else loadA = halvesLoader("A", A, ["p.M", "p.K"], shape.K, shape.strideA!);
  const straightA = A === "f16" && pass !== "grad_input" && !(isWeights && flat) && shape.strideA! % 8 === 0;
  const pictures = {
    words: [H, W, IC * H * W, OW, pixels, padTop, padLeft],
    pixels: flat && !isWeights ? pixels : null,
    sumBatch: isWeights,
  };
  return chooseWithOperands(shape, name, limits, { loadA, loadB, straightA, pictures }, options);
}

/** Where a value of dY lies whose column counts the pixels of all pictures. */
const PLACE_IN_PICTURES = "base + (column / p.pixels * p.M + row) * p.pixels + column % p.pixels";
