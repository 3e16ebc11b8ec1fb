// Matrix products in all transposes, batched, and the linear layer. Gradients are products again: of C = A B, dA = dC Bᵀ
// and dB = Aᵀ dC, so NN, NT and TN are all that is ever needed. A weight gradient that nothing else reads is added into
// its gradient buffer by the kernel itself.

import type { EpilogueScope } from "../tensor/epilogue.ts";
import type { Node, Operation, Tensor } from "../tensor/graph.ts";
import { apply1 } from "../tensor/graph.ts";
import type { CallRequest, Lowering, Slot, Target } from "../tensor/lower.ts";
import type { DType, Shape } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { COPY_FROM_READS, roundedCopy } from "./halves.ts";
import { chooseMatmul, defaultMatmulVariant, type MatmulShape, matmulVariants, stretchesOf } from "./matmul_choice.ts";
import { chooseMatrix, defaultMatrixVariant, type MatrixChoice, matrixReads, matrixVariants } from "./matmul_matrix.ts";
import { chooseThin } from "./matmul_thin.ts";
import { isCodes, type OperandType } from "./operand.ts";
import { add } from "./pointwise.ts";
import { reshape } from "./reshape.ts";

export interface MatmulTransposes {
  /** A is stored [..., K, M]. */
  transposeA?: boolean;
  /** B is stored [..., N, K]. */
  transposeB?: boolean;
}

/** Product of [batch, ., .] with [batch or 1, ., .]; the public functions below bring their arguments to this form. */
const matmulOperation: Operation = {
  name: "matmul",
  takesEpilogue: true,
  infer([a, b], attributes) {
    const { M, N, batch } = sizes(a!.shape, b!.shape, attributes as MatmulTransposes);
    return [{ shape: [batch, M, N], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [a, b] = node.inputs as [Tensor, Tensor];
    const operand = ({ shape, dtype }: Tensor, slot: Slot): MatmulOperand => ({ slot, shape, dtype });
    const operands = [operand(a, lowering.slot(a)), operand(b, lowering.slot(b))] as const;
    lowerProduct(lowering, node, operands, node.attributes as MatmulTransposes);
  },
  gradient(node, [dy], needs) {
    const [a, b] = node.inputs as [Tensor, Tensor];
    const { transposeA, transposeB } = node.attributes as MatmulTransposes;
    if (a.dim(0) !== b.dim(0)) throw new Error("matmul with a shared batch has no gradient; flatten the rows instead");
    let da: Tensor | null = null;
    let db: Tensor | null = null;
    if (needs[0]) {
      da = transposeA
        ? product(b, dy!, { transposeA: transposeB, transposeB: true })
        : product(dy!, b, { transposeB: !transposeB });
    }
    if (needs[1]) {
      db = transposeB
        ? product(dy!, a, { transposeA: true, transposeB: transposeA })
        : product(a, dy!, { transposeA: !transposeA });
    }
    return [da, db];
  },
  addInto(node, target) {
    if (node.attributes["epilogue"] !== undefined || target.dtype !== "f32") return null;
    return { ...node, operation: accumulatingMatmul, attributes: { ...node.attributes, accumulateInto: target } };
  },
};

/** One side of a product as a kernel sees it. */
export interface MatmulOperand {
  slot: Slot;
  /** [batch or 1, rows, columns] */
  shape: Shape;
  dtype: DType;
  /** Set where `slot` holds the words of a stored weight, which `dtype` is what they are decoded to. */
  stored?: {
    storage: OperandType;
    /** Factors of its blocks, where it has some. */
    scales: Slot | null;
    /** Makes a decoded copy, for kernels that do not decode by themselves. */
    decode(): Slot;
  };
}

type CallResult = Pick<CallRequest, "outputs" | "inPlace">;

/** Calls the kernel that makes output 0 of `node` from two operands, wherever they lie. */
export function lowerProduct(
  lowering: Lowering,
  node: Node,
  [a, b]: readonly [MatmulOperand, MatmulOperand],
  transposes: MatmulTransposes,
  labelled?: string,
): void {
  const { M, N, K, batch } = sizes(a.shape, b.shape, transposes);
  const { transposeA: transA, transposeB: transB } = transposes;
  const shape: MatmulShape = {
    M,
    N,
    K,
    batch,
    strideA: a.shape[0] === 1 ? 0 : M * K,
    strideB: b.shape[0] === 1 ? 0 : K * N,
    transA,
    transB,
  };
  const { target } = lowering;
  const into = node.attributes["accumulateInto"] as Variable | undefined;
  // What a kernel that decodes by itself reads.
  const words = b.stored && target.stagedDecoding ? b.stored : null;
  const matrices = matricesFor(target, a.dtype, b.dtype) ? matrixVariants(target.kernels).map((v) => v.name) : [];
  const measured = target.choose("matmul", matmulKey(shape, a.dtype, words?.storage ?? b.dtype), [
    ...matmulVariants(target.kernels),
    ...matrices,
  ]);
  const name =
    measured ??
    (matrices.length > 0 && takesMatrices(target) ? defaultMatrixVariant(shape, target.kernels) : null) ??
    defaultMatmulVariant(shape, target.kernels, target.software);
  const label =
    labelled ?? `matmul ${transA ? "T" : "N"}${transB ? "T" : "N"} ${M}x${N}x${K}${batch > 1 ? ` x${batch}` : ""}`;
  const place = into ? lowering.variable(into) : lowering.slot(node.outputs[0]!);
  // A gradient buffer is read and written; it is no output that somebody makes.
  const result = into ? { outputs: [], inPlace: [place] } : { outputs: [place] };
  const flops = 2 * M * N * K * batch;
  const staged = words && decodesWhileStaging(name) && (isCodes(words.storage) || target.f16) ? words : null;
  const weight = b.stored && !staged ? b.stored.decode() : b.slot;
  const B = staged ? staged.storage : (b.dtype as "f32" | "f16");
  const inputs = [a.slot, weight, ...(staged?.scales ? [staged.scales] : [])];
  const accumulate = into !== undefined;
  const thin =
    target.software && measured === null && name.startsWith("direct")
      ? chooseThin(shape, { A: a.dtype as "f32", B: B as "f32", accumulate }, target)
      : null;
  if (thin) {
    const epilogueScope = thin.swapped ? undefined : productScope(thin.source, M, N);
    const [first, second] = inputs as [Slot, Slot];
    const { swapped, ...choice } = thin;
    const factors = swapped ? [second, first] : [first, second];
    lowering.call({ label, ...choice, inputs: factors, ...result, flops, epilogueOf: node, epilogueScope });
    return;
  }
  if (!name.startsWith("matrix")) {
    for (const stretch of stretchesOf(shape, name, target.software)) {
      const [first, end] = stretch;
      const adds = accumulate || first > 0;
      const options = { A: a.dtype as "f32", B, accumulate: adds, stretch };
      const { source, constants, params, grid } = chooseMatmul(shape, name, target.kernels, options);
      lowering.call({
        label,
        source,
        constants,
        inputs,
        ...(adds ? { outputs: [], inPlace: [place] } : result),
        params,
        grid,
        flops: (flops * (end - first)) / K,
        ...(end === K ? { epilogueOf: node, epilogueScope: productScope(source, M, N) } : {}),
      });
    }
    return;
  }
  const hasEpilogue = node.attributes["epilogue"] !== undefined;
  const factors = { A: a.dtype as "f32" | "f16", B };
  const reads = matrixReads(shape, name, target.kernels);
  if (factors.A === "f32" && reads.A >= COPY_FROM_READS) {
    inputs[0] = roundedCopy(lowering, a.slot, M * K * a.shape[0]!);
    factors.A = "f16";
  }
  if (factors.B === "f32" && reads.B >= COPY_FROM_READS) {
    inputs[1] = roundedCopy(lowering, b.slot, N * K * b.shape[0]!);
    factors.B = "f16";
  }
  const options = { ...factors, accumulate, hasEpilogue };
  callMatrix(lowering, label, chooseMatrix(shape, name, target.kernels, options), { inputs, result, flops, node });
}

/** Calls a product on subgroup matrices, and the pass that adds its parts. */
export function callMatrix(
  lowering: Lowering,
  label: string,
  { main, sum, parts: count }: MatrixChoice,
  { inputs, result, flops, node }: { inputs: Slot[]; result: CallResult; flops: number; node: Node },
): void {
  const parts = sum ? lowering.scratch(count) : null;
  const { source, constants, params, grid } = main;
  lowering.call({
    label,
    source,
    constants,
    inputs,
    ...(parts ? { outputs: [parts] } : result),
    params,
    grid,
    flops,
    ...(parts ? {} : { epilogueOf: node }),
  });
  if (!sum) return;
  lowering.call({
    label: `${label}, sum of parts`,
    source: sum.source,
    constants: sum.constants,
    inputs: [parts!],
    ...result,
    params: sum.params,
    grid: sum.grid,
    flops: count,
    epilogueOf: node,
  });
}

/** What an epilogue finds in scope in a kernel that finishes its values by row and column. */
export function productScope(source: string, M: number, N: number): EpilogueScope | undefined {
  if (!/fn finish\(sum : [^,]+, row : u32, col : u32, b : u32\)/.test(source)) return undefined;
  return {
    axes: [
      { size: N, place: "col", before: "(b * p.M + row)" },
      { size: M, place: "row", before: "b" },
    ],
  };
}

/** Whether a product of these element types may run on subgroup matrices. */
export function matricesFor(target: Target, a: DType, b: DType): boolean {
  if (!target.f16 || target.matrices === "off") return false;
  return target.matrices === "all" || a === "f16" || b === "f16";
}

/** Whether matrices are the default where they may run; on CPU adapters they are slower than other kernels. */
export function takesMatrices(target: Target): boolean {
  return !target.software || target.matrices === "all";
}

/** Kernels that stage their operands can decode them on the way. */
function decodesWhileStaging(variant: string): boolean {
  return variant.startsWith("matrix") || variant.startsWith("tiled");
}

/** Key under which a tuner remembers a shape. */
export function matmulKey(s: MatmulShape, a: string, b: string): string {
  return `${s.transA ? "T" : "N"}${s.transB ? "T" : "N"} ${s.M}x${s.N}x${s.K}x${s.batch ?? 1} ${a} ${b}`;
}

function sizes(a: readonly number[], b: readonly number[], t: MatmulTransposes) {
  if (a.length !== 3 || b.length !== 3) throw new Error(`operands [${a}] and [${b}] must be [batch, rows, columns]`);
  const [M, K] = t.transposeA ? [a[2]!, a[1]!] : [a[1]!, a[2]!];
  const [N, K2] = t.transposeB ? [b[1]!, b[2]!] : [b[2]!, b[1]!];
  if (K !== K2)
    throw new Error(`inner sizes differ: [${a}]${t.transposeA ? "ᵀ" : ""} times [${b}]${t.transposeB ? "ᵀ" : ""}`);
  if (a[0] !== b[0] && a[0] !== 1 && b[0] !== 1) throw new Error(`batches of [${a}] and [${b}] differ`);
  return { M, N, K, batch: Math.max(a[0]!, b[0]!) };
}

function product(a: Tensor, b: Tensor, transposes: MatmulTransposes): Tensor {
  return apply1(matmulOperation, [a, b], { ...transposes });
}

/**
 * a [..., M, K] times b: a matrix [K, N] for all of the batch (its rows are flattened then), or [..., K, N] of equal batch.
 */
export function matmul(a: Tensor, b: Tensor, transposes: MatmulTransposes = {}): Tensor {
  if (b.rank === 2 && !transposes.transposeA) {
    const columns = transposes.transposeB ? b.dim(0) : b.dim(1);
    const flat = product(reshape(a, [1, a.size / a.dim(-1), a.dim(-1)]), reshape(b, [1, ...b.shape]), transposes);
    return reshape(flat, [...a.shape.slice(0, -1), columns]);
  }
  const batch = a.shape.slice(0, -2);
  const count = batch.reduce((x, y) => x * y, 1);
  const fold = (t: Tensor) => reshape(t, [t.rank === 2 ? 1 : count, t.dim(-2), t.dim(-1)]);
  const c = product(fold(a), fold(b), transposes);
  return reshape(c, [...batch, c.dim(1), c.dim(2)]);
}

/** x [..., in], weight [out, in], bias [out] -> [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const y = matmul(x, weight, { transposeB: true });
  return bias ? add(y, bias) : y;
}

const accumulatingMatmul: Operation = {
  ...matmulOperation,
  name: "matmul_accumulate",
  sideEffect: true,
  takesEpilogue: false,
};
