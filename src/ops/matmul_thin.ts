// Products with a thin side on CPU adapters, where matmul_direct's registers go to waste: sums of few terms, whose time is
// that of writing the result, and few columns. The factors of a LoRA have both. Decided without a device.

import matmulNarrow from "../../shaders/matmul_narrow.wgsl" with { type: "text" };
import matmulOuter from "../../shaders/matmul_outer.wgsl" with { type: "text" };
import { vectorLanes } from "../gpu/kernel_limits.ts";
import type { Target, WideVariant } from "../tensor/lower.ts";
import { foldGrid, type KernelChoice, type MatmulElement, type MatmulShape } from "./matmul_choice.ts";

/** Most terms of a sum that are worth keeping a column of B in registers for. */
const MOST_TERMS = 16;

/** Most columns of a product whose lanes lie along rows, and most rows of one whose columns' factor is read in long pieces. */
const MOST_COLUMNS = 4;

/** Rows that go by while a workgroup keeps its columns. */
const ROWS = 16;

export type ThinChoice = Omit<KernelChoice, "workgroupSize"> & {
  wide: WideVariant | null;
  /** The kernel's first input is the product's second factor. */
  swapped: boolean;
};

/** The kernel of a thin product on a CPU adapter, or null where others are as good. */
export function chooseThin(
  shape: MatmulShape,
  { A, B, accumulate }: { A: MatmulElement; B: MatmulElement; accumulate: boolean },
  { maxWorkgroups, kernels }: Pick<Target, "maxWorkgroups" | "kernels">,
): ThinChoice | null {
  const { M, N, K, batch = 1, strideA = M * K, strideB = K * N, strideC = M * N } = shape;
  const lanes = vectorLanes(kernels);
  /** Columns of a workgroup, four to a lane. */
  const width = 4 * lanes;
  const common = {
    LANES: lanes,
    A,
    B,
    TRANS_A: Boolean(shape.transA),
    TRANS_B: Boolean(shape.transB),
    ACCUMULATE: accumulate,
    USES_F16: A === "f16" || B === "f16",
  };
  if (K <= MOST_TERMS && M >= 8 && N >= width && N % 4 === 0 && strideC % 4 === 0) {
    const tilesM = Math.ceil(M / ROWS);
    const tilesN = Math.ceil(N / width);
    const { grid, fold } = foldGrid(tilesM * tilesN * batch, maxWorkgroups);
    return {
      source: matmulOuter,
      constants: { ...common, TERMS: K, ROWS, VECTORS: false, STEP: "f32" },
      wide: { constants: { VECTORS: true, STEP: "vec4<f32>" } },
      swapped: false,
      params: new Uint32Array([M, N, batch, strideA, strideB, strideC, tilesM, tilesN, fold]),
      grid,
    };
  }
  const fits = (long: number, few: number, stride: number) =>
    few <= MOST_COLUMNS && long >= width && long % 4 === 0 && stride % 4 === 0;
  const isNarrow = shape.transA && fits(M, N, strideA);
  if (!isNarrow && !(!shape.transB && fits(N, M, strideB))) return null;
  // In the kernel's terms the long factor comes first, and lies along its rows.
  const [long, few] = isNarrow ? [M, N] : [N, M];
  const VECS = long >= 8 * width ? 4 : 1;
  const tiles = Math.ceil(long / width / VECS);
  const { grid, fold } = foldGrid(tiles * batch, maxWorkgroups);
  const strides = isNarrow ? [strideA, strideB] : [strideB, strideA];
  return {
    source: matmulNarrow,
    constants: {
      ...common,
      ...(isNarrow ? {} : { A: B, B: A, TRANS_B: !shape.transA }),
      COLS: few,
      VECS,
      SWAPPED: !isNarrow,
    },
    wide: null,
    swapped: !isNarrow,
    params: new Uint32Array([long, few, K, batch, ...strides, strideC, tiles, fold]),
    grid,
  };
}
