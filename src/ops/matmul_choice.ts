// Which matmul kernel runs for which shape. Pure decisions without a device: the dispatcher, the tuner and the tests
// share them, so that what is tested is what runs. The idea of one place for shape -> variant is ggml's.

import matmulDirect from "../../shaders/matmul_direct.wgsl" with { type: "text" };
import matmulTiled from "../../shaders/matmul_tiled.wgsl" with { type: "text" };
import { hasScales } from "../base/quantize.ts";
import { type KernelLimits, subgroupLanes, vectorLanes } from "../gpu/kernel_limits.ts";
import type { TemplateConstants } from "../gpu/template.ts";
import { decodeConstants, decodeText, isCodes, type OperandType } from "./operand.ts";

/** C[b] = op(A[b]) · op(B[b]); strides between batches in elements, 0 for an operand that all batches share. */
export interface MatmulShape {
  M: number;
  N: number;
  K: number;
  /** Default 1. */
  batch?: number;
  /** Defaults: M·K, K·N and M·N. */
  strideA?: number;
  strideB?: number;
  strideC?: number;
  /** A is stored [K, M]. */
  transA?: boolean;
  /** B is stored [N, K], as the weights of a linear layer are. */
  transB?: boolean;
}

export type MatmulElement = "f32" | "f16";

export interface MatmulOptions {
  /** Element types in memory, default f32. Tiled variants decode the words of a stored B while they stage it. */
  A?: MatmulElement;
  B?: OperandType;
  C?: MatmulElement;
  /** Add the old value of C before the epilogue. */
  accumulate?: boolean;
  /** The part [first, end) of the terms along K that is added, all by default; direct variants alone take another. */
  stretch?: readonly [number, number];
  /** WGSL statements on `var v: f32` with `row`, `col`, `b` and `index` (flat in C) in scope. */
  epilogue?: string;
  /** WGSL declarations of the epilogue's operands, `@group(0) @binding(4)` onwards. */
  epilogueBindings?: string;
}

/** Everything that a dispatch needs apart from buffers. */
export interface KernelChoice {
  /** Template text; expand with `constants`. */
  source: string;
  constants: TemplateConstants;
  /** Workgroups to dispatch. */
  grid: [number, number, number];
  /** The words of the `Params` struct, padded to 16 bytes. */
  params: Uint32Array<ArrayBuffer>;
  workgroupSize: number;
}

interface DirectVariant {
  name: string;
  kind: "direct";
  rows: number;
  cols: number;
  lanes: number;
  broadcast: boolean;
}

interface TiledVariant {
  name: string;
  kind: "tiled";
  tileM: number;
  tileN: number;
  tileK: number;
  threadM: number;
  threadN: number;
}

export type MatmulVariant = DirectVariant | TiledVariant;

function direct(rows: number, cols: number, lanes: number, broadcast: boolean): DirectVariant {
  const name = `direct_${rows}x${cols}x${lanes}${broadcast ? "_broadcast" : ""}`;
  return { name, kind: "direct", rows, cols, lanes, broadcast };
}

function tiled(tileM: number, tileN: number, tileK: number, threadM: number, threadN: number): TiledVariant {
  return { name: `tiled_${tileM}x${tileN}x${tileK}`, kind: "tiled", tileM, tileN, tileK, threadM, threadN };
}

/** Every variant; `_broadcast` ones need subgroups of exactly as many lanes as they name. */
export const MATMUL_VARIANTS: readonly MatmulVariant[] = [
  ...[8, 16].flatMap((lanes) => [
    ...[1, 2, 4, 8, 16, 32, 64].flatMap((rows) => [1, 2, 4, 8].map((cols) => direct(rows, cols, lanes, true))),
    ...[1, 2, 4, 8, 16].flatMap((rows) => [1, 2, 4].map((cols) => direct(rows, cols, lanes, false))),
  ]),
  ...[1, 2, 4, 8].flatMap((rows) => [1, 2].map((cols) => direct(rows, cols, 64, false))),
  tiled(128, 64, 16, 8, 4),
  tiled(64, 64, 16, 4, 4),
  tiled(32, 32, 16, 4, 2),
];

/** Direct variants of other numbers of rows than those listed, for products whose rows are shared evenly. */
function directNamed(name: string): DirectVariant | null {
  const found = /^direct_(\d+)x(\d+)x(\d+)(_broadcast)?$/.exec(name);
  return found ? direct(Number(found[1]), Number(found[2]), Number(found[3]), found[4] !== undefined) : null;
}

const byName = new Map(MATMUL_VARIANTS.map((variant) => [variant.name, variant]));

/** Names of the variants that can run on an adapter with `limits`. */
export function matmulVariants(limits: KernelLimits): string[] {
  return MATMUL_VARIANTS.filter((variant) => {
    if (variant.kind === "direct") return !variant.broadcast || subgroupLanes(limits) === variant.lanes;
    const threads = (variant.tileM / variant.threadM) * (variant.tileN / variant.threadN);
    const bytes = 4 * variant.tileK * (variant.tileM + variant.tileN + 8);
    return threads <= limits.maxComputeInvocationsPerWorkgroup && bytes <= limits.maxComputeWorkgroupStorageSize;
  }).map((variant) => variant.name);
}

/** Up to this many terms a product writes more than it computes, and its order is that of its result. */
const SHORT = 64;

/** Up to this many columns 32 rows are little text too, and a fifth faster (50 against 43 GFLOP/s, 512x16x3072). */
const NARROW = 16;

/** Multiply-adds above which a CPU adapter takes milliseconds for one product. */
const LARGE_PRODUCT = 2 ** 26;

/** The same where B lies along columns: 32 rows read it half as often (66 against 56 GFLOP/s, TN 256x1280x144). */
const LARGE_ALONG_COLUMNS = 2 ** 25;

/** The variant to run without measuring. `isSoftwareAdapter`: the adapter computes on the CPU. */
export function defaultMatmulVariant(shape: MatmulShape, limits: KernelLimits, isSoftwareAdapter: boolean): string {
  const { M, N } = shape;
  if (isSoftwareAdapter) {
    const lanes = vectorLanes(limits);
    const broadcast = subgroupLanes(limits) > 0;
    // 32 rows are a tenth faster than 16 and compile three times as long: worth it for large products only.
    const isFar = stretchesOf(shape, "direct", true).length > 1;
    const work = M * N * shape.K;
    const isLarge = isFar || (M >= 256 && (work >= LARGE_PRODUCT || N <= NARROW));
    const isTall = isLarge || (!shape.transB && M >= 256 && work >= LARGE_ALONG_COLUMNS);
    const most = broadcast ? mostRegisters(lanes, shape, { isFar, isLarge, isTall }) : { rows: 8, cols: 4 };
    // Tiles of a few terms take four rows a load, and one row is no pair.
    const isShared = work >= LARGE_PRODUCT && broadcast && !shape.transA && shape.K >= 8 && M > 1;
    const rows = isShared ? evenShare(M, most.rows) : powerOfTwoAtMost(M, most.rows);
    return direct(rows, powerOfTwoAtMost(Math.ceil(N / lanes), most.cols), lanes, broadcast).name;
  }
  if (M <= 8) return direct(powerOfTwoAtMost(M, 8), 1, 64, false).name;
  const batch = shape.batch ?? 1;
  const tilesOf = (m: number, n: number) => Math.ceil(M / m) * Math.ceil(N / n) * batch;
  // A large card has over a hundred cores: below a few tiles for each, smaller tiles keep more of them busy.
  if (tilesOf(128, 64) >= 256) return "tiled_128x64x16";
  if (tilesOf(64, 64) >= 128) return "tiled_64x64x16";
  return "tiled_32x32x16";
}

/** Rows of tiles that share `count` rows evenly, of at most `most`: 196 are seven times 28 and not six times 32 and 4. */
function evenShare(count: number, most: number): number {
  const tiles = Math.ceil(count / most);
  return 2 * Math.ceil(count / tiles / 2);
}

/** Most rows and columns of a lane. */
function mostRegisters(
  lanes: number,
  { transB, M, N, K }: MatmulShape,
  { isFar, isLarge, isTall }: Record<"isFar" | "isLarge" | "isTall", boolean>,
): { rows: number; cols: number } {
  const work = M * N * K;
  if (lanes === 16 && transB) {
    // Two columns are as fast as four for rows of B that lie along K, and compile in half the time; twice the rows are a tenth
    // faster (256x1024x1024: 32x4 66, 32x2 74, 64x2 83 GFLOP/s).
    return { rows: work >= LARGE_PRODUCT ? 64 : 32, cols: 2 };
  }
  const rows = isTall || (lanes === 16 && M >= 128 && work >= LARGE_ALONG_COLUMNS) ? 32 : 16;
  // Where B lies along columns, more vectors of it in registers are worth another tenth (73 against 65 GFLOP/s); with 16 lanes
  // also where rows of B lie far apart (85 against 78).
  return { rows, cols: isLarge && !transB && (lanes === 16 || !isFar) ? 8 : 4 };
}

/** Terms along K that one dispatch adds on a CPU adapter where rows of B lie far apart, from so many bytes on. */
const FAR_STRETCH = 256;
const FAR_BYTES = 4096;

/**
 * The stretches of K in which a product is added up, one after the other; a single one unless the adapter is a CPU and rows of
 * B are so far apart that a column panel of all of them does not stay in the cache: addresses 4 KiB apart share its sets. Row
 * tiles then pass over the panel of one stretch while it is there (NN, 196x1024x4096: 31 against 20 GFLOP/s).
 */
export function stretchesOf(shape: MatmulShape, variant: string, isSoftwareAdapter: boolean): [number, number][] {
  const { M, N, K } = shape;
  const isFar = isSoftwareAdapter && !shape.transB && 4 * N >= FAR_BYTES && variant.startsWith("direct");
  if (!isFar || M < 32 || K < 2 * FAR_STRETCH) return [[0, K]];
  return Array.from({ length: Math.ceil(K / FAR_STRETCH) }, (_, i) => [
    i * FAR_STRETCH,
    Math.min((i + 1) * FAR_STRETCH, K),
  ]);
}

/** Largest power of two that is at most `value` and `limit`. */
function powerOfTwoAtMost(value: number, limit: number): number {
  let power = 1;
  while (power * 2 <= Math.min(value, limit)) power *= 2;
  return power;
}

/** Source, constants, grid and parameter words for `variant`. Throws an Error on an unknown variant's name. */
export function chooseMatmul(
  shape: MatmulShape,
  variant: string,
  limits: KernelLimits,
  options: MatmulOptions = {},
): KernelChoice {
  const chosen = byName.get(variant) ?? directNamed(variant);
  if (!chosen) throw new Error(`no matmul variant ${variant}; known: ${[...byName.keys()].join(", ")}`);
  const { M, N, K, batch = 1, strideA = M * K, strideB = K * N, strideC = M * N } = shape;
  const { A = "f32", B = "f32", C = "f32" } = options;
  const tileM = chosen.kind === "direct" ? chosen.rows : chosen.tileM;
  const tileN = chosen.kind === "direct" ? chosen.cols * chosen.lanes : chosen.tileN;
  const tilesM = Math.ceil(M / tileM);
  const tilesN = Math.ceil(N / tileN);
  const { grid, fold } = foldGrid(tilesM * tilesN * batch, limits.maxComputeWorkgroupsPerDimension);
  const codes = isCodes(B);
  if (codes && chosen.kind === "direct") throw new Error(`${variant} does not decode ${B} weights`);
  const shared = {
    A,
    B,
    C,
    TRANS_A: Boolean(shape.transA),
    TRANS_B: Boolean(shape.transB),
    ACCUMULATE: Boolean(options.accumulate),
    USES_F16: [A, B, C].includes("f16"),
    EPILOGUE: options.epilogue ?? "",
    EPILOGUE_BINDINGS: options.epilogueBindings ?? "",
  };
  const [first, end] = options.stretch ?? [0, K];
  const words = [M, N, K, batch, strideA, strideB, strideC, tilesM, tilesN, fold, first, end];
  const params = new Uint32Array(words);
  if (chosen.kind === "direct") {
    const { rows, cols, lanes, broadcast } = chosen;
    const step = K < 8 ? 4 : 8;
    // Rows of A that one load serves: eight terms of each, or one term of as many as there are lanes.
    const each = broadcast && !shape.transA ? Math.min(rows, lanes / step) : 1;
    const sub = broadcast && shape.transA ? Math.min(rows, lanes) : rows / each;
    const constants = {
      ...shared,
      GROUPS: rows / each / sub,
      SUB: sub,
      EACH: each,
      COLS: cols,
      LANES: lanes,
      ROWS: rows,
      COLUMNS: tileN,
      BROADCAST: broadcast,
      USES_SUBGROUPS: broadcast,
      COLUMNS_FIRST: K <= SHORT,
      STEP: step,
    };
    return { source: matmulDirect, constants, grid, params, workgroupSize: lanes };
  }
  const { tileK, threadM, threadN } = chosen;
  const threads = (tileM / threadM) * (tileN / threadN);
  const vectorB = B !== "f16" && (shape.transB ? K : N) % 4 === 0 && strideB % 4 === 0;
  const constants = {
    ...shared,
    TILE_M: tileM,
    TILE_N: tileN,
    TILE_K: tileK,
    THREAD_M: threadM,
    THREAD_N: threadN,
    THREADS: threads,
    COLUMN_THREADS: tileN / threadN,
    VECTOR_B: vectorB,
    PLACE_B: codes ? "u32" : vectorB ? "vec4<f32>" : B,
    CODES: codes,
    PAIRS: B === "bf16",
    TABLE: B === "nf4" && vectorB,
    ...decodeConstants(codes ? B : "f16"),
    SCALED: codes && hasScales(B),
    DECODE: codes ? decodeText(B) : "",
    LOADS_A: (tileM * tileK) / threads,
    LOADS_B: (tileN * tileK) / threads / (vectorB ? 4 : 1),
  };
  return { source: matmulTiled, constants, grid, params, workgroupSize: threads };
}

/** Spreads `count` workgroups over x and, above the limit of one dimension, y; kernels read x + y · fold. */
export function foldGrid(count: number, limit: number): { grid: [number, number, number]; fold: number } {
  if (count <= limit) return { grid: [Math.max(1, count), 1, 1], fold: 0 };
  const rows = Math.ceil(count / limit);
  const fold = Math.ceil(count / rows);
  return { grid: [fold, rows, 1], fold };
}
