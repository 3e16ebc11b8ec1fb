// Scaled dot-product attention in the flash form (Dao et al. 2022, "FlashAttention"): no tensor of size Lq * Lk exists.
// The forward kernel keeps each row's log-sum-exp, from which the two backward kernels compute the weights again.
// Heads are column blocks of the last dimension, so that no transpose is needed around the operation.

import deltaSource from "../../shaders/attention_delta.wgsl" with { type: "text" };
import forwardSource from "../../shaders/attention_forward.wgsl" with { type: "text" };
import gradBiasSource from "../../shaders/attention_grad_bias.wgsl" with { type: "text" };
import gradKeyValueSource from "../../shaders/attention_grad_key_value.wgsl" with { type: "text" };
import gradQuerySource from "../../shaders/attention_grad_query.wgsl" with { type: "text" };
import { vectorLanes } from "../gpu/kernel_limits.ts";
import { apply1, type Node, type Operation, type Tensor, type TensorType } from "../tensor/graph.ts";
import { type Constants, f32Bits, foldGrid, grid1d, type Lowering } from "../tensor/lower.ts";
import { type DType, sameShape, showShape } from "../tensor/shape.ts";
import type { AttentionKernel, AttentionSizes } from "./attention_matrix.ts";
import { ATTENTION_LABELS, lowerOnMatrices, productFlops } from "./attention_on_matrices.ts";
import { sum } from "./reduce.ts";
import { concat } from "./slab.ts";

export interface AttentionOptions {
  /** Number of heads; the last dimension of q, k and v is heads * head size. */
  heads: number;
  /** Factor on the scores; 1 / sqrt(head size) by default. */
  scale?: number;
  /** Row i sees the keys j <= i. */
  causal?: boolean;
  /** Added to the scores, [H, Lq, Lk], the same for the whole batch (T5). */
  bias?: Tensor;
  /** Element type of the result; f32 by default. */
  output?: "f32" | "f16";
  /** Which kernels run: keys read in place or staged in workgroup memory; by default what suits the adapter. */
  variant?: "in_place" | "staged";
  /** q, k and v may be rounded to f16, as kernels on subgroup matrices do; by default only where all of them are f16. */
  halves?: boolean;
}

/** How one kernel cuts its work; see the kernels' headers. */
export interface AttentionVariant {
  /** Rows (dK and dV: keys) of a workgroup. */
  rows: number;
  /** Invocations that share a row. */
  parts: number;
  /** Keys (dK and dV: rows) that are handled together in the inner loop. */
  keys: number;
  /** Keys staged in workgroup memory at a time; 0 reads them in place. */
  tile: number;
}

/** Largest head size; longer rows would need more than 256 invocations or registers than devices have. */
const MAX_HEAD_SIZE = 512;
/** Bytes of workgroup memory that the two staged tiles may fill, so that two workgroups fit beside each other. */
const TILE_BYTES = 8192;

/**
 * The variant that suits an adapter. An adapter that computes on the CPU reads keys in place, at addresses that its
 * lanes share, one row a lane and one workgroup a vector of lanes; a GPU stages them in workgroup memory and cuts rows
 * so that they stay in registers.
 */
export function attentionVariant(
  kernel: AttentionKernel,
  headSize: number,
  inPlace: boolean,
  vector = 8,
): AttentionVariant {
  if (inPlace) {
    // The inner loop is unrolled over the head: more keys in it overflow the instruction cache and compile slowly.
    const parts = splitHead(headSize, 128);
    return { rows: Math.min(vector, powerBelow(256 / parts)), parts, keys: headSize <= 64 ? 2 : 1, tile: 0 };
  }
  const parts = splitHead(headSize, kernel === "forward" ? 64 : 32);
  const keys = Math.max(1, Math.min(4, powerBelow(TILE_BYTES / 8 / headSize)));
  const tile = Math.min(32, Math.floor(TILE_BYTES / 8 / headSize / keys) * keys);
  return { rows: Math.min(64, powerBelow(128 / parts)), parts, keys, tile };
}

/** The largest power of two up to `n`. */
function powerBelow(n: number): number {
  return 2 ** Math.floor(Math.log2(n));
}

/** The least number of equal parts of at most `most` columns, each a multiple of 4. */
function splitHead(headSize: number, most: number): number {
  const vectors = headSize / 4;
  for (let parts = 1; parts < vectors; parts++) {
    if (vectors % parts === 0 && headSize / parts <= most) return parts;
  }
  return vectors;
}

function sizesOf(q: TensorType, k: TensorType, v: TensorType, heads: number): AttentionSizes {
  if (q.shape.length !== 3 || k.shape.length !== 3) {
    throw new Error(`q ${showShape(q.shape)} and k ${showShape(k.shape)} must be [B, L, heads * head size]`);
  }
  if (!sameShape(k.shape, v.shape)) throw new Error(`k ${showShape(k.shape)} and v ${showShape(v.shape)} differ`);
  const [batch, rows, width] = q.shape as [number, number, number];
  const keys = k.shape[1]!;
  if (k.shape[0] !== batch || k.shape[2] !== width) {
    throw new Error(`q ${showShape(q.shape)} and k ${showShape(k.shape)} differ in batch or width`);
  }
  const headSize = width / heads;
  if (!Number.isInteger(headSize) || headSize % 4 !== 0 || headSize > MAX_HEAD_SIZE || headSize < 4) {
    throw new Error(`${heads} heads of ${width} columns: a head's size must be a multiple of 4 up to ${MAX_HEAD_SIZE}`);
  }
  return { batch, rows, keys, heads, headSize };
}

function sizesOfNode(node: Node): AttentionSizes {
  const [q, k, v] = node.inputs as [Tensor, Tensor, Tensor];
  return sizesOf(q, k, v, node.attributes["heads"] as number);
}

/** Placeholders and grid that the three large kernels share; `owned` is the length that workgroups divide. */
function plan(lowering: Lowering, node: Node, kernel: AttentionKernel, bias: Tensor | undefined) {
  const s = sizesOfNode(node);
  const { software, kernels } = lowering.target;
  const wanted = node.attributes["variant"] as AttentionOptions["variant"];
  const variant = attentionVariant(
    kernel,
    s.headSize,
    wanted ? wanted === "in_place" : software,
    software ? vectorLanes(kernels) : 8,
  );
  const owned = kernel === "grad_key_value" ? s.keys : s.rows;
  const groups = Math.ceil(owned / variant.rows);
  const grid = foldGrid(groups * s.heads * s.batch, lowering.target.maxWorkgroups);
  const invocations = variant.rows * variant.parts;
  const staged = variant.tile > 0;
  const [q, k, v] = node.inputs as [Tensor, Tensor, Tensor];
  const constants: Constants = {
    Q: q.dtype,
    K: k.dtype,
    V: v.dtype,
    BIAS: bias !== undefined,
    BIAS_TYPE: bias?.dtype ?? "f32",
    BIAS_NOTE: bias ? ", then bias [H, Lq, Lk]" : "",
    CAUSAL: Boolean(node.attributes["causal"]),
    ROWS: variant.rows,
    PARTS: variant.parts,
    OWN: s.headSize / 4 / variant.parts,
    KEYS: variant.keys,
    SPLIT: variant.parts > 1,
    PARTIALS: variant.keys * invocations,
    STAGED: staged,
    TILE: variant.tile,
    TILE_SIZE: (variant.tile * s.headSize) / 4,
    INVOCATIONS: invocations,
  };
  const params = [s.batch, s.heads, s.rows, s.keys, groups, grid[0], f32Bits(node.attributes["scale"] as number)];
  const product = productFlops(s, Boolean(node.attributes["causal"]));
  return { s, variant, grid, staged, constants, params, product };
}

/** Inputs q, k, v, [bias]; outputs out [B, Lq, D] and log-sum-exp [B, H, Lq]. */
const attentionOperation: Operation = {
  name: "attention",
  infer([q, k, v, bias], attributes) {
    const s = sizesOf(q!, k!, v!, attributes["heads"] as number);
    if (bias && !sameShape(bias.shape, [s.heads, s.rows, s.keys])) {
      throw new Error(
        `the bias is ${showShape(bias.shape)}, not [heads, Lq, Lk] = ${showShape([s.heads, s.rows, s.keys])}`,
      );
    }
    return [
      { shape: q!.shape, dtype: attributes["output"] as DType },
      { shape: [s.batch, s.heads, s.rows], dtype: "f32" },
    ];
  },
  lower(lowering, node) {
    const [q, k, v, bias] = node.inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
    if (lowerOnMatrices(lowering, node, "forward", sizesOfNode(node))) return;
    const { constants, staged, params, grid, product } = plan(lowering, node, "forward", bias);
    const inputs = (bias ? [q, k, v, bias] : [q, k, v]).map((t) => lowering.slot(t));
    lowering.call({
      label: ATTENTION_LABELS.forward,
      source: forwardSource,
      constants: {
        ...constants,
        OUT: node.outputs[0]!.dtype,
        OUT_AT: inputs.length + 1,
        LSE_AT: inputs.length + 2,
        KS: staged ? "k_tile" : "k",
        VS: staged ? "v_tile" : "v",
      },
      inputs,
      outputs: node.outputs.map((t) => lowering.slot(t)),
      params,
      grid,
      flops: 2 * product,
    });
  },
  gradient(node, [dout, dlse], needs) {
    if (dlse) throw new Error("attention: the log-sum-exp is there for the backward pass and has no gradient itself");
    const [q, k, v, bias] = node.inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
    const [out, logSumExp] = node.outputs as [Tensor, Tensor];
    const delta = apply1(deltaOperation, [dout!, out], { heads: node.attributes["heads"] });
    const inputs = [q, k, v, dout!, logSumExp, delta, ...(bias ? [bias] : [])];
    const dq = needs[0] ? apply1(gradQueryOperation, inputs, { ...node.attributes }) : null;
    // With a bias both numbers of a row lie in one buffer: WebGPU promises eight to a kernel.
    const both = bias ? [q, k, v, dout!, concat([logSumExp, delta], 0), bias] : inputs;
    const attributes = { ...node.attributes, biased: bias !== undefined };
    const [dk, dv] = needs[1] || needs[2] ? q.graph.apply(gradKeyValueOperation, both, attributes) : [null, null];
    const dbias = bias && needs[3] ? sum(apply1(gradBiasOperation, inputs, { ...node.attributes }), 0) : null;
    return [dq, needs[1] ? dk! : null, needs[2] ? dv! : null, dbias].slice(0, node.inputs.length);
  },
};

/** Inputs dout and out [B, Lq, D]; output [B, H, Lq]. */
const deltaOperation: Operation = {
  name: "attention delta",
  infer: ([dout], attributes) => [
    { shape: [dout!.shape[0]!, attributes["heads"] as number, dout!.shape[1]!], dtype: "f32" },
  ],
  lower(lowering, node) {
    const [dout, out] = node.inputs as [Tensor, Tensor];
    const [batch, heads, rows] = node.outputs[0]!.shape as [number, number, number];
    const grid = grid1d(batch * rows * heads, 64, lowering.target);
    lowering.call({
      label: "attention delta",
      source: deltaSource,
      constants: { DOUT: dout.dtype, OUT: out.dtype },
      inputs: [lowering.slot(dout), lowering.slot(out)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [batch, heads, rows, grid[0], out.dim(-1) / heads / 4],
      grid,
      flops: 2 * out.size,
    });
  },
};

/** Inputs q, k, v, dout, log-sum-exp, delta, [bias]; output dq in f32. */
const gradQueryOperation: Operation = {
  name: "attention query gradient",
  infer: ([q]) => [{ shape: q!.shape, dtype: "f32" }],
  lower(lowering, node) {
    if (lowerOnMatrices(lowering, node, "grad_query", sizesOfNode(node))) return;
    const { constants, staged, params, grid, product } = plan(lowering, node, "grad_query", node.inputs[6]);
    lowering.call({
      label: ATTENTION_LABELS.grad_query,
      source: gradQuerySource,
      constants: {
        ...constants,
        DOUT: node.inputs[3]!.dtype,
        DQ_AT: node.inputs.length + 1,
        KS: staged ? "k_tile" : "k",
        VS: staged ? "v_tile" : "v",
      },
      inputs: node.inputs.map((t) => lowering.slot(t)),
      outputs: [lowering.slot(node.outputs[0]!)],
      params,
      grid,
      flops: 3 * product,
    });
  },
};

/**
 * Inputs as for the query gradient, or, `biased`, q, k, v, dout, log-sum-exp with delta behind it, bias; outputs dk and dv in
 * f32.
 */
const gradKeyValueOperation: Operation = {
  name: "attention key and value gradient",
  infer: ([, k, v]) => [
    { shape: k!.shape, dtype: "f32" },
    { shape: v!.shape, dtype: "f32" },
  ],
  lower(lowering, node) {
    const bias = node.attributes["biased"] ? node.inputs[5] : undefined;
    if (!bias && lowerOnMatrices(lowering, node, "grad_key_value", sizesOfNode(node))) return;
    const { constants, staged, variant, params, grid, product } = plan(lowering, node, "grad_key_value", bias);
    lowering.call({
      label: ATTENTION_LABELS.grad_key_value,
      source: gradKeyValueSource,
      constants: {
        ...constants,
        DOUT: node.inputs[3]!.dtype,
        DK_AT: node.inputs.length + 1,
        DV_AT: node.inputs.length + 2,
        ALIGN: staged ? variant.tile : variant.keys,
        QS: staged ? "q_tile" : "q",
        DS: staged ? "d_tile" : "dout",
      },
      inputs: node.inputs.map((t) => lowering.slot(t)),
      outputs: node.outputs.map((t) => lowering.slot(t)),
      params,
      grid,
      flops: 4 * product,
    });
  },
};

/** Samples that one invocation of the bias gradient adds up: few biases and a large batch must still fill a device. */
const BIAS_CHUNK = 16;

/** Inputs as for the query gradient, with the bias; output [chunks, H, Lq, Lk], sums over parts of the batch. */
const gradBiasOperation: Operation = {
  name: "attention bias gradient",
  infer: ([q, , , , , , bias]) => [{ shape: [Math.ceil(q!.shape[0]! / BIAS_CHUNK), ...bias!.shape], dtype: "f32" }],
  lower(lowering, node) {
    const s = sizesOfNode(node);
    const out = node.outputs[0]!;
    const grid = grid1d(out.size, 64, lowering.target);
    const [q, k, v, dout, , , bias] = node.inputs as Tensor[];
    const count = s.headSize / 4;
    lowering.call({
      label: "attention bias gradient",
      source: gradBiasSource,
      constants: {
        Q: q!.dtype,
        K: k!.dtype,
        V: v!.dtype,
        DOUT: dout!.dtype,
        BIAS_TYPE: bias!.dtype,
        CAUSAL: Boolean(node.attributes["causal"]),
      },
      inputs: node.inputs.map((t) => lowering.slot(t)),
      outputs: [lowering.slot(out)],
      params: [
        s.batch,
        s.heads,
        s.rows,
        s.keys,
        count,
        BIAS_CHUNK,
        out.size,
        grid[0],
        f32Bits(node.attributes["scale"] as number),
      ],
      grid,
      flops: 4 * s.batch * s.heads * s.rows * s.keys * s.headSize,
    });
  },
};

/**
 * softmax(scale * q kᵀ + bias) v for every head: q [B, Lq, H * hd], k and v [B, Lk, H * hd] → [B, Lq, H * hd].
 * Elements are f32 or f16, arithmetic is f32; gradients of q, k, v and the bias come back in f32. A key whose bias is below -1e38
 * (-inf included) has no part in its row; a row without any key gives zeros.
 * @throws Error where shapes do not fit, the head size is no multiple of 4 or above 512
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { heads, bias } = options;
  const scale = options.scale ?? 1 / Math.sqrt(q.dim(-1) / heads);
  return q.graph.apply(attentionOperation, bias ? [q, k, v, bias] : [q, k, v], {
    heads,
    scale,
    causal: options.causal ?? false,
    output: options.output ?? "f32",
    variant: options.variant,
    halves: options.halves,
  })[0]!;
}
