// Which convolution kernels run for which shape: forward, input gradient and weight gradient of NCHW x OIHW
// convolutions. Pure decisions without a device, shared by the dispatcher, the tuner and the tests.

import conv2dDirect from "../../shaders/conv2d_direct.wgsl" with { type: "text" };
import conv2dGradInput from "../../shaders/conv2d_grad_input.wgsl" with { type: "text" };
import conv2dGradWeight from "../../shaders/conv2d_grad_weight.wgsl" with { type: "text" };
import conv2dSumChunks from "../../shaders/conv2d_sum_chunks.wgsl" with { type: "text" };
import { type KernelLimits, subgroupLanes, vectorLanes } from "../gpu/kernel_limits.ts";
import { foldGrid, type KernelChoice, type MatmulElement } from "./matmul_choice.ts";

/** Forward convolution; bottom and right padding follow from OH and OW. */
export interface ConvShape {
  N: number;
  IC: number;
  H: number;
  W: number;
  OC: number;
  OH: number;
  OW: number;
  KH: number;
  KW: number;
  /** Default 1, the same along both axes. */
  stride?: number;
  /** Default 0. */
  padTop?: number;
  padLeft?: number;
}

export interface ConvOptions {
  /** Element types in memory of input, weights and output, default f32. */
  X?: MatmulElement;
  W?: MatmulElement;
  Y?: MatmulElement;
  /** Add the old value of the output before the epilogue. */
  accumulate?: boolean;
  /** WGSL statements on `var v: f32` with `n`, `oc`, `oy`, `ox` and `index` (flat in the output) in scope. */
  epilogue?: string;
  /** WGSL declarations of the epilogue's operands, `@group(0) @binding(4)` onwards. */
  epilogueBindings?: string;
}

export interface ConvVariant {
  name: string;
  /** Output channels and neighbouring pixels that a lane owns, and lanes in a workgroup. */
  channels: number;
  pixels: number;
  lanes: number;
  /** Needs subgroups of exactly `lanes`. */
  broadcast: boolean;
}

function variant(channels: number, pixels: number, lanes: number, broadcast: boolean): ConvVariant {
  return {
    name: `direct_${channels}x${pixels}x${lanes}${broadcast ? "_broadcast" : ""}`,
    channels,
    pixels,
    lanes,
    broadcast,
  };
}

/**
 * Variants that a driver is known to compile wrongly: Mesa 26.1's lavapipe loses stores of some of the neighbouring pixels
 * in these two. The sweep of all variants (tests/ops/variants.test.ts under LONGTAIL_LONG=1) finds no other; it must run
 * again after any change of conv2d_direct.wgsl, because a rewritten store moves the fault to another variant. In vectors of
 * 16 lanes it finds none.
 */
const MISCOMPILED = new Set(["direct_8x4x8_broadcast", "direct_16x8x8_broadcast"]);

const ALL_VARIANTS: readonly ConvVariant[] = [
  ...[8, 16].flatMap((lanes) => [
    ...[1, 2, 4, 8, 16, 32]
      .flatMap((channels) => [1, 2, 4, 8].map((pixels) => variant(channels, pixels, lanes, true)))
      // More sums in vectors of 16 take a compiler minutes.
      .filter(({ channels, pixels }) => lanes === 8 || channels * pixels <= 64),
    ...[1, 2, 4, 8, 16].flatMap((channels) => [1, 2, 4].map((pixels) => variant(channels, pixels, lanes, false))),
  ]),
  ...[1, 2, 4, 8, 16].flatMap((channels) => [1, 2, 4].map((pixels) => variant(channels, pixels, 64, false))),
];

export const CONV_VARIANTS: readonly ConvVariant[] = ALL_VARIANTS.filter((entry) => !MISCOMPILED.has(entry.name));

const byName = new Map(CONV_VARIANTS.map((entry) => [entry.name, entry]));

/** Names of the variants that can run on an adapter with `limits`. */
export function convVariants(limits: KernelLimits): string[] {
  return CONV_VARIANTS.filter((entry) => canRun(entry, limits)).map((entry) => entry.name);
}

function canRun({ broadcast, lanes }: Pick<ConvVariant, "broadcast" | "lanes">, limits: KernelLimits): boolean {
  return !broadcast || subgroupLanes(limits) === lanes;
}

/** The variant to run without measuring, for the forward pass and the input gradient alike. */
export function defaultConvVariant(shape: ConvShape, limits: KernelLimits, isSoftwareAdapter: boolean): string {
  const lanes = vectorLanes(limits);
  const broadcast = subgroupLanes(limits) > 0;
  // Browsers' SwiftShader has no such subgroups: there 4 channels are twice as fast as 16 (2.1 against 0.9 GFLOP/s, 3x3, 64
  // channels, 32²), and their text compiles in a quarter of the time.
  // 3 channels are one tile of 4 and not two of 2, which would compute as many and read every pixel twice.
  const most = isSoftwareAdapter && !broadcast ? 4 : 16;
  const channels = shape.OC > 1 ? Math.min(most, 2 * powerOfTwoAtMost(shape.OC - 1, most)) : 1;
  // What few channels leave of the registers goes to pixels.
  const pixels = powerOfTwoAtMost(shape.OW, broadcast && channels === 4 ? 8 : 4);
  if (isSoftwareAdapter) {
    const chosen = variant(channels, pixels, lanes, broadcast).name;
    return MISCOMPILED.has(chosen) ? variant(channels, pixels / 2, lanes, broadcast).name : chosen;
  }
  return variant(Math.min(channels, 8), Math.min(pixels, 2), 64, false).name;
}

/** Source, constants, grid and parameter words of the forward pass. Throws an Error on an unknown variant's name. */
export function chooseConv(
  shape: ConvShape,
  name: string,
  limits: KernelLimits,
  options: ConvOptions = {},
): KernelChoice {
  return direct(shape, name, limits, options, false);
}

/** The convolution of dY that is the input gradient of `shape`; of a strided one only the sizes are meant. */
export function mirroredShape(shape: ConvShape): ConvShape {
  const { IC, H, W, OC, OH, OW, KH, KW, padTop = 0, padLeft = 0 } = shape;
  const sizes = { IC: OC, H: OH, W: OW, OC: IC, OH: H, OW: W };
  return { ...shape, ...sizes, padTop: KH - 1 - padTop, padLeft: KW - 1 - padLeft };
}

/**
 * The input gradient dX [N, IC, H, W] of the forward convolution `shape`: binding 1 is dY, 2 the forward weights, 3 dX.
 * In the epilogue `oc` is the forward input channel and `oy`, `ox` are pixels of dX.
 */
export function chooseConvGradInput(
  shape: ConvShape,
  name: string,
  limits: KernelLimits,
  options: ConvOptions = {},
): KernelChoice {
  if ((shape.stride ?? 1) === 1) return direct(mirroredShape(shape), name, limits, options, true);
  return gather(shape, name, limits, options);
}

/** 3x3 and smaller kernels are unrolled whole; above, code grows past what compilers handle well. */
const MOST_UNROLLED_TAPS = 9;

function direct(
  shape: ConvShape,
  name: string,
  limits: KernelLimits,
  options: ConvOptions,
  flipped: boolean,
): KernelChoice {
  const { channels, pixels, lanes, broadcast } = lookUp(name);
  const { N, IC, H, W, OC, OH, OW, KH, KW, stride = 1, padTop = 0, padLeft = 0 } = shape;
  const segments = Math.ceil(OW / pixels);
  const pixelTiles = Math.ceil((N * OH * segments) / lanes);
  const channelTiles = Math.ceil(OC / channels);
  const { grid, fold } = foldGrid(pixelTiles * channelTiles, limits.maxComputeWorkgroupsPerDimension);
  const unrolled = KH * KW <= MOST_UNROLLED_TAPS && stride <= 2;
  const constants = {
    ...elements(options),
    FLIPPED: flipped,
    UNROLLED: unrolled,
    // Kernel sizes only name a variant where they are unrolled: one pipeline serves all large kernels.
    KH: unrolled ? KH : 0,
    KW: unrolled ? KW : 0,
    TAPS: unrolled ? KH * KW : 0,
    STRIDE: unrolled ? stride : 0,
    SEGMENT: unrolled ? (pixels - 1) * stride + KW : 0,
    PIXELS: pixels,
    CHANNELS: channels,
    ...lanesOf(channels, lanes, broadcast),
  };
  const words = [N, IC, H, W, OC, OH, OW, KH, KW, stride, padTop, padLeft, segments, pixelTiles, channelTiles, fold];
  return { source: conv2dDirect, constants, grid, params: new Uint32Array(words), workgroupSize: lanes };
}

function gather(shape: ConvShape, name: string, limits: KernelLimits, options: ConvOptions): KernelChoice {
  const { channels, pixels, lanes, broadcast } = lookUp(name);
  const { N, IC, H, W, OC, OH, OW, KH, KW, stride = 1, padTop = 0, padLeft = 0 } = shape;
  const unrolled = KH * KW <= MOST_UNROLLED_TAPS && stride <= 3;
  // Cells of stride x stride pixels; without unrolling a workgroup works on one residue class, one pixel of each cell.
  const classHeight = Math.ceil(H / stride);
  const classWidth = Math.ceil(W / stride);
  const cells = unrolled ? Math.max(1, Math.floor(pixels / stride)) : pixels;
  const segments = Math.ceil(classWidth / cells);
  const pixelTiles = Math.ceil((N * classHeight * segments) / lanes);
  const channelTiles = Math.ceil(IC / channels);
  const { grid, fold } = foldGrid(
    pixelTiles * channelTiles * (unrolled ? 1 : stride * stride),
    limits.maxComputeWorkgroupsPerDimension,
  );
  const rows = reach(KH, stride, padTop);
  const columns = reach(KW, stride, padLeft);
  const constants = {
    ...elements(options),
    UNROLLED: unrolled,
    KH: unrolled ? KH : 0,
    KW: unrolled ? KW : 0,
    STRIDE: unrolled ? stride : 0,
    PAD_TOP: unrolled ? padTop : 0,
    PAD_LEFT: unrolled ? padLeft : 0,
    FIRST_Y: unrolled ? rows.first : 0,
    FIRST_X: unrolled ? columns.first : 0,
    LINES: unrolled ? rows.count : 0,
    SEGMENT: unrolled ? columns.count + cells - 1 : 0,
    PIXELS: cells,
    CHANNELS: channels,
    ...lanesOf(channels, lanes, broadcast),
  };
  const words = [N, IC, H, W, OC, OH, OW, KH, KW, stride, padTop, padLeft, segments, pixelTiles, channelTiles, fold];
  words.push(classHeight, 0, 0, 0);
  return { source: conv2dGradInput, constants, grid, params: new Uint32Array(words), workgroupSize: lanes };
}

/** Which outputs, relative to cell a's own output a, reach the pixels of cell a along one axis. */
function reach(kernel: number, stride: number, pad: number): { first: number; count: number } {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (let tap = 0; tap < kernel; tap++) {
    const inCell = (((tap - pad) % stride) + stride) % stride;
    const offset = (inCell + pad - tap) / stride;
    first = Math.min(first, offset);
    last = Math.max(last, offset);
  }
  return { first, count: last - first + 1 };
}

/** A weight gradient: `main` writes `chunks` partial results, `sum` (absent where chunks is 1) adds them. */
export interface GradWeightChoice {
  /** Bindings 1 X, 2 dY, 3 the partial results, f32 [chunks, OC, IC, KH, KW]: dW itself where chunks is 1. */
  main: KernelChoice;
  /** Bindings 1 the partial results, 2 dW. */
  sum: KernelChoice | null;
  chunks: number;
}

/** Variants of the weight gradient: output channels and lanes of a workgroup; broadcast as in `ConvVariant`. */
export const GRAD_WEIGHT_VARIANTS: readonly Omit<ConvVariant, "pixels">[] = [
  ...[8, 16].flatMap((lanes) => [1, 4, 8, 16].map((channels) => gradWeightVariant(channels, lanes, true))),
  ...[1, 4, 8].flatMap((channels) => [8, 16, 32].map((lanes) => gradWeightVariant(channels, lanes, false))),
];

function gradWeightVariant(channels: number, lanes: number, broadcast: boolean): Omit<ConvVariant, "pixels"> {
  return { name: `weight_${channels}x${lanes}${broadcast ? "_broadcast" : ""}`, channels, lanes, broadcast };
}

/** Names of the weight gradient's variants that can run on an adapter with `limits`. */
export function convGradWeightVariants(limits: KernelLimits): string[] {
  return GRAD_WEIGHT_VARIANTS.filter((entry) => canRun(entry, limits)).map((entry) => entry.name);
}

/** The weight gradient's variant to run without measuring. */
export function defaultGradWeightVariant(shape: ConvShape, limits: KernelLimits, isSoftwareAdapter: boolean): string {
  const channels = shape.OC < 4 ? 1 : shape.OC < 8 ? 4 : 8;
  if (!isSoftwareAdapter) return gradWeightVariant(channels, 32, false).name;
  return gradWeightVariant(channels, vectorLanes(limits), subgroupLanes(limits) > 0).name;
}

/**
 * The weight gradient of the forward convolution `shape`. `chunks` asks for that many partial sums over the output rows
 * (default: as many as give `workgroupsWanted` workgroups, 8 unless said). `options.epilogue` runs where dW is written
 * in the sum pass; with `accumulate` or an epilogue, or dW in f16, there always is a sum pass.
 */
export function chooseConvGradWeight(
  shape: ConvShape,
  name: string,
  limits: KernelLimits,
  options: { chunks?: number; workgroupsWanted?: number } & Omit<ConvOptions, "W"> & { dW?: MatmulElement } = {},
): GradWeightChoice {
  const found = GRAD_WEIGHT_VARIANTS.find((entry) => entry.name === name);
  if (!found) throw new Error(`no weight gradient variant ${name}`);
  const { channels, lanes, broadcast } = found;
  const { N, IC, H, W, OC, OH, OW, KH, KW, stride = 1, padTop = 0, padLeft = 0 } = shape;
  const { X = "f32", Y = "f32", dW = "f32", workgroupsWanted = 8 } = options;
  const unrolled = KH * KW <= MOST_UNROLLED_TAPS && stride <= 2;
  const taps = unrolled ? KH * KW : 1;
  // About as many sums a lane as 9 taps give, so that small kernels reuse each gradient as often.
  const vectors = taps >= 6 ? 1 : Math.min(4, Math.ceil((unrolled ? IC : IC * KH * KW) / lanes));
  const columns = unrolled ? IC : IC * KH * KW;
  const columnTiles = Math.ceil(columns / (lanes * vectors));
  const channelTiles = Math.ceil(OC / channels);
  const rows = N * OH;
  const wanted = options.chunks ?? Math.ceil(workgroupsWanted / (columnTiles * channelTiles));
  const rowsInChunk = Math.ceil(rows / Math.min(rows, Math.max(1, wanted)));
  const chunks = Math.ceil(rows / rowsInChunk);
  const { grid, fold } = foldGrid(columnTiles * channelTiles * chunks, limits.maxComputeWorkgroupsPerDimension);
  const main: KernelChoice = {
    source: conv2dGradWeight,
    constants: {
      X,
      Y,
      USES_F16: X === "f16" || Y === "f16",
      UNROLLED: unrolled,
      KH: unrolled ? KH : 1,
      KW: unrolled ? KW : 1,
      TAPS: taps,
      STRIDE: unrolled ? stride : 1,
      SEGMENT: unrolled ? 7 * stride + KW : 8,
      VECTORS: vectors,
      COLUMNS: lanes * vectors,
      CHANNELS: channels,
      ...lanesOf(channels, lanes, broadcast),
    },
    grid,
    params: new Uint32Array([
      ...[N, IC, H, W, OC, OH, OW, KH, KW, stride, padTop, padLeft],
      ...[columnTiles, channelTiles, chunks, rowsInChunk, fold, 0, 0, 0],
    ]),
    workgroupSize: lanes,
  };
  const count = OC * IC * KH * KW;
  const needsSum = chunks > 1 || Boolean(options.accumulate) || Boolean(options.epilogue) || dW === "f16";
  return { main, chunks, sum: needsSum ? sumChunks(count, chunks, limits, { ...options, Y: dW }) : null };
}

/** The fixed-order sum over chunks: bindings 1 parts, f32 [chunks, count], 2 result, epilogue operands from 3 on. */
export function sumChunks(
  count: number,
  chunks: number,
  limits: KernelLimits,
  options: ConvOptions = {},
): KernelChoice {
  const { Y = "f32", accumulate = false, epilogue = "", epilogueBindings = "" } = options;
  const { grid, fold } = foldGrid(Math.ceil(count / 64), limits.maxComputeWorkgroupsPerDimension);
  return {
    source: conv2dSumChunks,
    constants: {
      Y,
      USES_F16: Y === "f16",
      ACCUMULATE: accumulate,
      EPILOGUE: epilogue,
      EPILOGUE_BINDINGS: epilogueBindings,
    },
    grid,
    params: new Uint32Array([count, chunks, fold, 0]),
    workgroupSize: 64,
  };
}

function elements(options: ConvOptions) {
  const { X = "f32", W = "f32", Y = "f32" } = options;
  return {
    X,
    W,
    Y,
    USES_F16: [X, W, Y].includes("f16"),
    ACCUMULATE: Boolean(options.accumulate),
    EPILOGUE: options.epilogue ?? "",
    EPILOGUE_BINDINGS: options.epilogueBindings ?? "",
  };
}

function lanesOf(channels: number, lanes: number, broadcast: boolean) {
  // One load and its broadcasts serve as many channels as there are lanes.
  const most = broadcast ? lanes : 8;
  return {
    GROUPS: Math.ceil(channels / most),
    SUB: Math.min(channels, most),
    LANES: lanes,
    BROADCAST: broadcast,
    USES_SUBGROUPS: broadcast,
  };
}

function lookUp(name: string): ConvVariant {
  const found = byName.get(name);
  if (!found) throw new Error(`no convolution variant ${name}; known: ${[...byName.keys()].join(", ")}`);
  return found;
}

function powerOfTwoAtMost(value: number, limit: number): number {
  let power = 1;
  while (power * 2 <= Math.min(value, limit)) power *= 2;
  return power;
}
