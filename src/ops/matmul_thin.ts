// Products with a thin side on CPU adapters, where matmul_direct's registers go to waste: sums of few terms, whose time is
// that of writing the result, and few columns. The factors of a LoRA have both. Decided without a device.

import matmulNarrow from "../../shaders/matmul_narrow.wgsl" with { type: "text" };
import matmulOuter from "../../shaders/matmul_outer.wgsl" with { type: "text" };
import type { WideVariant } from "../tensor/lower.ts";
import { foldGrid, type KernelChoice, type MatmulElement, type MatmulShape } from "./matmul_choice.ts";

/** Most terms of a sum that are worth keeping a column of B in registers for. */
const MOST_TERMS = 16;

/** Most columns of a product whose lanes lie along rows. */
const MOST_COLUMNS = 4;

/** Rows that go by while a workgroup keeps its columns. */
const ROWS = 64;

/** Lanes of a workgroup, four values each. */
const WIDTH = 8 * 4;

export type ThinChoice = Omit<KernelChoice, "workgroupSize"> & { wide: WideVariant | null };

/** The kernel of a thin product on a CPU adapter, or null where others are as good. */
export function chooseThin(
  shape: MatmulShape,
  { A, B, accumulate }: { A: MatmulElement; B: MatmulElement; accumulate: boolean },
  maxWorkgroups: number,
): ThinChoice | null {
  const { M, N, K, batch = 1, strideA = M * K, strideB = K * N, strideC = M * N } = shape;
  const common = {
    A,
    B,
    TRANS_A: Boolean(shape.transA),
    TRANS_B: Boolean(shape.transB),
    ACCUMULATE: accumulate,
    USES_F16: A === "f16" || B === "f16",
  };
  if (K <= MOST_TERMS && M >= 8 && N >= WIDTH && N % 4 === 0 && strideC % 4 === 0) {
    const tilesM = Math.ceil(M / ROWS);
    const tilesN = Math.ceil(N / WIDTH);
    const { grid, fold } = foldGrid(tilesM * tilesN * batch, maxWorkgroups);
    return {
      source: matmulOuter,
      constants: { ...common, TERMS: K, ROWS, VECTORS: false, STEP: "f32" },
      wide: { constants: { VECTORS: true, STEP: "vec4<f32>" } },
      params: new Uint32Array([M, N, batch, strideA, strideB, strideC, tilesM, tilesN, fold]),
      grid,
    };
  }
  if (shape.transA && N <= MOST_COLUMNS && M >= WIDTH && M % 4 === 0 && strideA % 4 === 0) {
    const VECS = M >= 8 * WIDTH ? 4 : 1;
    const tilesM = Math.ceil(M / WIDTH / VECS);
    const { grid, fold } = foldGrid(tilesM * batch, maxWorkgroups);
    return {
      source: matmulNarrow,
      constants: { ...common, COLS: N, VECS },
      wide: null,
      params: new Uint32Array([M, N, K, batch, strideA, strideB, strideC, tilesM, fold]),
      grid,
    };
  }
  return null;
}
