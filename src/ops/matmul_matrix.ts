// Products on subgroup matrices: which variants an adapter can run, which of them suits a shape, and what a dispatch of
// one needs. Pure decisions like those of matmul_choice.ts, which takes these variants in beside its own.

import matmulMatrix from "../../shaders/matmul_matrix.wgsl" with { type: "text" };
import { hasScales } from "../base/quantize.ts";
import type { KernelLimits, MatrixSize } from "../gpu/kernel_limits.ts";
import { sumChunks } from "./conv_choice.ts";
import { foldGrid, type KernelChoice, type MatmulElement, type MatmulShape } from "./matmul_choice.ts";
import { decodeText, type HalvesLoader, halvesLoader, isCodes, type OperandType } from "./operand.ts";

export interface MatrixVariant {
  name: string;
  size: MatrixSize;
  tileM: number;
  tileN: number;
  /** Subgroups of a workgroup along M and along N. */
  groupsM: number;
  groupsN: number;
  /** Parts of K whose sums a second kernel adds. */
  splits: number;
  /** Rows of tiles that are finished before the next ones; 0 for all. */
  band: number;
  /** Fetches the next tile into registers while the present one is multiplied, and unrolls the steps of a tile. */
  ahead: boolean;
  /** Reads the matrices of A from memory where A holds halves and every tile is whole. */
  straight: boolean;
}

/** Values of K that are staged at a time; 16 and 64 were slower on an H100. */
const TILE_K = 32;
/** Workgroup memory that the table of nf4 takes. */
const TABLE_BYTES = 2048;

type Layout = readonly [tileM: number, tileN: number, groupsM: number, groupsN: number];

/** Tiles for matrices of 16 rows, where a subgroup holds up to 64x64 sums. */
const LARGE: readonly Layout[] = [
  [128, 128, 2, 2],
  [128, 256, 2, 4],
  [128, 64, 2, 2],
  [64, 128, 2, 2],
  [64, 64, 2, 2],
  [32, 32, 2, 2],
];
/** Tiles for matrices of 8 rows, where it holds up to 32x32: such hardware has fewer registers for a subgroup. */
const SMALL: readonly Layout[] = [
  [128, 128, 4, 4],
  [128, 64, 4, 2],
  [64, 128, 2, 4],
  [64, 64, 2, 2],
  [32, 32, 2, 2],
];
const SPLITS = [4, 16] as const;
const BAND = 8;

/** Lanes of every subgroup, or 0 where that is not known for certain. */
export function subgroupLanes(limits: KernelLimits): number {
  return limits.subgroups && limits.subgroupMinSize === limits.subgroupMaxSize ? limits.subgroupMinSize : 0;
}

/** The adapter's sizes of matrix, the largest first: it does most for what a subgroup loads. */
export function matrixSizes(limits: KernelLimits): MatrixSize[] {
  return [...(limits.matrices ?? [])].sort((a, b) => b.m * b.n * b.k - a.m * a.n * a.k);
}

/** All variants that an adapter can run, those of its largest matrices first; none where it reports no f16 matrices with f32 sums. */
export function matrixVariants(limits: KernelLimits): MatrixVariant[] {
  const lanes = subgroupLanes(limits);
  if (lanes === 0) return [];
  return matrixSizes(limits).flatMap((size) =>
    (size.m >= 16 ? LARGE : SMALL).flatMap((layout) => {
      if (!fits(variant(size, layout), lanes, limits)) return [];
      const [tileM, tileN] = layout;
      return [
        variant(size, layout),
        ...(tileM === tileN ? SPLITS.map((splits) => variant(size, layout, { splits })) : []),
        ...(tileM === 128 || (size.m < 16 && tileM === 64 && tileN === 64)
          ? [variant(size, layout, { band: BAND })]
          : []),
        ...(tileM === tileN && tileM !== 64 ? [variant(size, layout, { straight: true })] : []),
        ...(size.m < 16 && tileM <= 64 && tileM === tileN ? [variant(size, layout, { ahead: true })] : []),
      ];
    }),
  );
}

/** Throws an Error on a name that the adapter cannot run. */
export function matrixVariant(name: string, limits: KernelLimits): MatrixVariant {
  const found = matrixVariants(limits).find((entry) => entry.name === name);
  if (!found) throw new Error(`no matrix variant ${name} on this adapter`);
  return found;
}

function variant(
  size: MatrixSize,
  [tileM, tileN, groupsM, groupsN]: Layout,
  extra: Partial<Pick<MatrixVariant, "splits" | "band" | "ahead" | "straight">> = {},
): MatrixVariant {
  // One matrix of 8x8x8 may be computed by hundreds of instructions; unrolled, those compile for seconds.
  const { splits = 1, band = 0, ahead = size.m >= 16, straight = false } = extra;
  const parts = [`matrix_${size.m}x${size.n}x${size.k}_${tileM}x${tileN}`];
  if (splits > 1) parts.push(`split${splits}`);
  if (band > 0) parts.push(`band${band}`);
  if (extra.ahead) parts.push("ahead");
  if (straight) parts.push("straight");
  return { name: parts.join("_"), size, tileM, tileN, groupsM, groupsN, splits, band, ahead, straight };
}

function fits(v: MatrixVariant, lanes: number, limits: KernelLimits): boolean {
  const { m, n, k } = v.size;
  const threads = v.groupsM * v.groupsN * lanes;
  const whole = (count: number) => Number.isInteger(count) && count > 0;
  return (
    [m, n, k].every((side) => side % 8 === 0) &&
    whole(TILE_K / k) &&
    whole(v.tileM / (v.groupsM * m)) &&
    whole(v.tileN / (v.groupsN * n)) &&
    whole((v.tileM * TILE_K) / 8 / threads) &&
    whole((v.tileN * TILE_K) / 8 / threads) &&
    threads <= limits.maxComputeInvocationsPerWorkgroup &&
    16 * stageSize(v, false, true).stage + TABLE_BYTES <= limits.maxComputeWorkgroupStorageSize
  );
}

/** Places of the staged operands in vec4s; the longest rows are those of an operand that is stored transposed. */
function stageSize(v: MatrixVariant, transA: boolean, transB: boolean) {
  const { tileM, tileN } = v;
  const pitchA = (transA ? tileM : TILE_K) / 8 + 1;
  const pitchB = (transB ? TILE_K : tileN) / 8 + 1;
  const startB = pitchA * (transA ? TILE_K : tileM);
  const operands = startB + pitchB * (transB ? tileN : TILE_K);
  // One row of matrices of each subgroup, in f32.
  const results = (v.groupsM * tileN * v.size.m) / 4;
  return { pitchA, pitchB, startB, stage: Math.max(operands, results) };
}

/** Workgroups below which a large card has cores without work. */
export const FULL_CARD = 132;
/** Values of K that a part of a split product has at least. */
export const LEAST_PART = 512;
/** Bytes of an operand above which a card's cache does not hold it, so that the order of tiles matters. */
const CACHED_BYTES = 2 ** 25;

/** The variant to run without measuring, or null where matrices do not pay: few rows leave them empty. */
export function defaultMatrixVariant(shape: MatmulShape, limits: KernelLimits): string | null {
  const { M, N, K, batch = 1 } = shape;
  if (Math.min(M, N) <= 8) return null;
  const all = matrixVariants(limits);
  const own = all.filter(({ size }) => size === all[0]!.size);
  const plain = own.filter((v) => v.splits === 1 && v.band === 0 && !v.straight);
  const tilesOf = (v: MatrixVariant) => Math.ceil(M / v.tileM) * Math.ceil(N / v.tileN) * batch;
  const filling = plain.find((v) => tilesOf(v) >= FULL_CARD && v.tileM < 2 * M && v.tileN < 2 * N);
  if (filling) {
    const wanted = Math.min(M, N) * K * 2 > CACHED_BYTES ? BAND : 0;
    const banded = own.find((v) => v.band === wanted && v.tileM === filling.tileM && v.tileN === filling.tileN);
    return (banded ?? filling).name;
  }
  // Few tiles: small ones, and where K is long its parts beside each other.
  const fitting = plain.filter((v) => v.tileM === v.tileN && v.tileM < 2 * Math.min(M, N));
  const smallest = fitting.at(-1) ?? plain.at(-1);
  if (!smallest) return null;
  const wanted = Math.min(Math.ceil(FULL_CARD / tilesOf(smallest)), Math.floor(K / LEAST_PART));
  const splits = Math.max(1, ...SPLITS.filter((count) => count <= wanted));
  return own.find(
    (v) => v.splits === splits && v.band === 0 && v.tileM === smallest.tileM && v.tileN === smallest.tileN,
  )!.name;
}

/** How often a variant reads each value of the operands; a batch that shares one reads it once for each element. */
export function matrixReads(shape: MatmulShape, name: string, limits: KernelLimits): { A: number; B: number } {
  const { tileM, tileN } = matrixVariant(name, limits);
  const { M, N, batch = 1, strideA, strideB } = shape;
  return {
    A: Math.ceil(N / tileN) * (strideA === 0 ? batch : 1),
    B: Math.ceil(M / tileM) * (strideB === 0 ? batch : 1),
  };
}

/** Everything that a dispatch needs, and the pass that adds the parts of a split product. */
export interface MatrixChoice {
  /** Bindings 1 A, 2 B, 3 the factors of B's blocks where it has some, then C or, with `sum`, the parts. */
  main: KernelChoice;
  /** Bindings 1 parts, f32 [splits, batch, M, N], 2 C. Null where there is one part. */
  sum: KernelChoice | null;
  splits: number;
  /** Values of all parts together. */
  parts: number;
}

export interface MatrixOptions {
  /** What the operands' memory holds, default f32. */
  A?: "f32" | "f16";
  B?: OperandType;
  C?: MatmulElement;
  accumulate?: boolean;
  /** As those of MatmulOptions; the pass that writes C runs it. */
  epilogue?: string;
  epilogueBindings?: string;
  /** The caller will insert an epilogue later. */
  hasEpilogue?: boolean;
}

/** How the kernel reads its operands, and what it knows of pictures where it reads them. */
export interface MatrixOperands {
  loadA: HalvesLoader;
  loadB: HalvesLoader;
  /** A is stored as halves in rows, so that its matrices may come straight from memory. */
  straightA: boolean;
  /** What decodes the words of a stored B. */
  decode?: { text: string; scaled: boolean; table: boolean };
  pictures?: {
    /** The words of `Params` behind those of a product. */
    words: readonly number[];
    /** Columns of C run through the pictures of a batch, each of which holds all rows: the pixels of one. */
    pixels: number | null;
    /** The batch is one more part of K. */
    sumBatch?: boolean;
  };
}

/** Source, constants, grid and parameter words for `variant`. Throws an Error on a name that the adapter cannot run. */
export function chooseMatrix(
  shape: MatmulShape,
  name: string,
  limits: KernelLimits,
  options: MatrixOptions = {},
): MatrixChoice {
  const { M, N, K, strideA = M * K, strideB = K * N } = shape;
  const { A = "f32", B = "f32" } = options;
  const { transA, transB } = shape;
  const operands: MatrixOperands = {
    loadA: halvesLoader("A", A, transA ? ["p.K", "p.M"] : ["p.M", "p.K"], transA ? M : K, strideA),
    loadB: halvesLoader("B", B, transB ? ["p.N", "p.K"] : ["p.K", "p.N"], transB ? K : N, strideB),
    straightA: A === "f16" && strideA % 8 === 0,
    decode: isCodes(B) ? { text: decodeText(B), scaled: hasScales(B), table: B === "nf4" } : undefined,
  };
  return chooseWithOperands(shape, name, limits, operands, options);
}

/** The same for operands that are read in other ways; `options.A` and `options.B` do not count. */
export function chooseWithOperands(
  shape: MatmulShape,
  name: string,
  limits: KernelLimits,
  operands: MatrixOperands,
  options: MatrixOptions,
): MatrixChoice {
  const v = matrixVariant(name, limits);
  const { M, N, K, batch = 1, strideA = M * K, strideB = K * N, strideC = M * N } = shape;
  const { C = "f32", accumulate = false, epilogue = "", epilogueBindings = "" } = options;
  const { loadA, loadB, decode, pictures } = operands;
  const transA = Boolean(shape.transA);
  const transB = Boolean(shape.transB);
  const lanes = subgroupLanes(limits);
  const threads = v.groupsM * v.groupsN * lanes;
  const [tilesM, tilesN] = [Math.ceil(M / v.tileM), Math.ceil(N / v.tileN)];
  const chunk = Math.ceil(Math.ceil(K / v.splits) / TILE_K) * TILE_K;
  const splits = Math.ceil(K / chunk);
  const parts = splits * (pictures?.sumBatch ? batch : 1);
  const isSplit = parts > 1;
  const pixels = pictures?.pixels ?? null;
  const { grid, fold } = foldGrid(tilesM * tilesN * batch * splits, limits.maxComputeWorkgroupsPerDimension);
  const isWhole = M % v.tileM === 0 && N % v.tileN === 0;
  const straight = v.straight && operands.straightA && M % v.tileM === 0 && K % TILE_K === 0;
  const { pitchA, pitchB, startB, stage } = stageSize(v, transA, transB);
  const strideOfC = isSplit ? M * N : strideC;
  const direct =
    isWhole && pixels === null && (isSplit || (C === "f32" && !accumulate && epilogue === "" && !options.hasEpilogue));
  const vectorC = (pixels ?? N) % 4 === 0 && strideOfC % 4 === 0;
  const element = isSplit ? "f32" : C;
  const constants = {
    A: loadA.element,
    B: loadB.element,
    C: direct || !vectorC ? element : `vec4<${element}>`,
    SCALED: Boolean(decode?.scaled),
    TABLE: Boolean(decode?.table),
    DECODE: decode?.text ?? "",
    LOAD_A: loadA.text,
    LOAD_B: loadB.text,
    TRANS_A: transA,
    TRANS_B: transB,
    SIZE_M: v.size.m,
    SIZE_N: v.size.n,
    SIZE_K: v.size.k,
    TILE_M: v.tileM,
    TILE_N: v.tileN,
    TILE_K,
    TILE_M_GROUPS: v.tileM / 8,
    TILE_N_GROUPS: v.tileN / 8,
    TILE_K_GROUPS: TILE_K / 8,
    GROUPS_N: v.groupsN,
    MATRICES_M: v.tileM / v.groupsM / v.size.m,
    MATRICES_N: v.tileN / v.groupsN / v.size.n,
    ROUNDS: v.ahead ? 1 : TILE_K / v.size.k,
    STEPS: v.ahead ? TILE_K / v.size.k : 1,
    PITCH_A: pitchA,
    PITCH_B: pitchB,
    START_B: startB,
    STAGE: stage,
    LANES: lanes,
    THREADS: threads,
    AHEAD: v.ahead,
    STRAIGHT: straight,
    GROUPS_A: (v.tileM * TILE_K) / 8,
    GROUPS_B: (v.tileN * TILE_K) / 8,
    LOADS_A: (v.tileM * TILE_K) / 8 / threads,
    LOADS_B: (v.tileN * TILE_K) / 8 / threads,
    DIRECT: direct,
    VECTOR_C: vectorC,
    ACCUMULATE: accumulate && !isSplit,
    PICTURES: pictures !== undefined,
    PLACE:
      pixels === null ? "start + row * p.N + col" : "start + (col / p.pixels * p.M + row) * p.pixels + col % p.pixels",
    EPILOGUE: isSplit ? "" : epilogue,
    EPILOGUE_BINDINGS: isSplit ? "" : epilogueBindings,
  };
  const band = Math.min(v.band || tilesM, tilesM);
  const words = [M, N, K, batch, strideA, strideB, strideOfC, tilesM, tilesN, fold, band, splits, chunk];
  words.push(...(pictures?.words ?? [0, 0, 0]));
  const count = pictures?.sumBatch ? M * N : batch * M * N;
  return {
    main: { source: matmulMatrix, constants, grid, params: new Uint32Array(words), workgroupSize: threads },
    sum: isSplit ? sumChunks(count, parts, limits, { Y: C, accumulate, epilogue, epilogueBindings }) : null,
    splits,
    parts: parts * count,
  };
}
