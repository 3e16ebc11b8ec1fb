// The table of all operations: sample inputs, float64 references and tolerances of every file in src/ops. Tests of
// values, gradients, folding and repetition, and docs/operations.md, are made from it (the idea of one table is
// PyTorch's OpInfo).

import { HEADS } from "./table/heads.ts";
import { MOVES } from "./table/moves.ts";
import { PICTURES_AND_RANDOM } from "./table/pictures.ts";
import { POINTWISE } from "./table/pointwise.ts";
import { PRODUCTS } from "./table/products.ts";
import { QUANTIZED } from "./table/quantized.ts";
import { ROWWISE } from "./table/rows.ts";
import type { Entry } from "./table/types.ts";

export const OPERATIONS: readonly Entry[] = [
  ...POINTWISE,
  ...PRODUCTS,
  ...QUANTIZED,
  ...ROWWISE,
  ...HEADS,
  ...MOVES,
  ...PICTURES_AND_RANDOM,
];

/** Files of src/ops that hold no operation of their own. */
export const NOT_OPERATIONS = [
  "attention_matrix.ts",
  "attention_on_matrices.ts",
  "backward.ts",
  "conv_choice.ts",
  "conv_matrix.ts",
  "conv_on_matrices.ts",
  "detach.ts",
  "halves.ts",
  "matmul_choice.ts",
  "matmul_matrix.ts",
  "matmul_thin.ts",
  "matrix_check.ts",
  "operand.ts",
  "winograd.ts",
];

/** Kernels that no operation calls: the session's copy, and those of src/optim, which have their own tests. */
export const OTHER_KERNELS = [
  "adafactor.wgsl",
  "adafactor_columns.wgsl",
  "adafactor_columns_sum.wgsl",
  "adafactor_means.wgsl",
  "adafactor_rates.wgsl",
  "adafactor_rows.wgsl",
  "adafactor_sizes.wgsl",
  "adam8bit.wgsl",
  "adam_small.wgsl",
  "adamw.wgsl",
  "average.wgsl",
  "clip_scale.wgsl",
  "copy.wgsl",
  "finite_flag.wgsl",
  "lion.wgsl",
  "loss_scale.wgsl",
  "optimizer_report.wgsl",
  "prodigy.wgsl",
  "prodigy_estimate.wgsl",
  "prodigy_gather.wgsl",
  "prodigy_sums.wgsl",
  "sgd.wgsl",
  "sum_of_squares.wgsl",
];
