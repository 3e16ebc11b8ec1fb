// From attention nodes to calls of the kernels on subgroup matrices: whether a node takes them, in which form, and what of
// its inputs is rounded to f16 beforehand.

import type { Node, Tensor } from "../tensor/graph.ts";
import { f32Bits, foldGrid, type Lowering } from "../tensor/lower.ts";
import {
  type AttentionKernel,
  type AttentionMatrices,
  type AttentionSizes,
  attentionMatrices,
  attentionReads,
  chooseAttentionMatrix,
} from "./attention_matrix.ts";
import { COPY_FROM_READS, roundedCopy } from "./halves.ts";

export const ATTENTION_LABELS: Readonly<Record<AttentionKernel, string>> = {
  forward: "attention forward",
  grad_query: "attention query gradient",
  grad_key_value: "attention key and value gradient",
};

/** Products of size [Lq, hd] x [hd, Lk] that a kernel makes for every head. */
const PRODUCTS: Readonly<Record<AttentionKernel, number>> = { forward: 2, grad_query: 3, grad_key_value: 4 };

/** FLOP of one such product for all heads; a causal mask saves half of them. */
export function productFlops(s: AttentionSizes, causal: boolean): number {
  return 2 * s.batch * s.heads * s.rows * s.keys * s.headSize * (causal ? 0.5 : 1);
}

/** The form on subgroup matrices that a node takes, or null: with a bias, for other head sizes, where factors stay f32. */
function matrixForm(
  lowering: Lowering,
  node: Node,
  kernel: AttentionKernel,
  s: AttentionSizes,
): AttentionMatrices | null {
  const { target } = lowering;
  const [q, k, v] = node.inputs as [Tensor, Tensor, Tensor];
  const bias = node.inputs[kernel === "forward" ? 3 : 6];
  if (bias || node.attributes["variant"] || !target.f16 || target.matrices === "off") return null;
  const isRounded = Boolean(node.attributes["halves"]) || [q, k, v].every(({ dtype }) => dtype === "f16");
  if (target.matrices === "auto" && !isRounded) return null;
  const forms = attentionMatrices(kernel, target.kernels, s.headSize);
  if (forms.length === 0) return null;
  const key = `${kernel} ${s.batch}x${s.heads}x${s.rows}x${s.keys}x${s.headSize} ${q.dtype} ${k.dtype} ${v.dtype}`;
  const name = target.choose("attention", key, ["plain", ...forms.map((form) => form.name)]);
  if (name) return forms.find((form) => form.name === name) ?? null;
  return target.software && target.matrices !== "all" ? null : forms[0]!;
}

/** Calls a kernel on subgroup matrices; false where the node takes another one. */
export function lowerOnMatrices(lowering: Lowering, node: Node, kernel: AttentionKernel, s: AttentionSizes): boolean {
  const isForward = kernel === "forward";
  const form = matrixForm(lowering, node, kernel, s);
  if (!form) return false;
  const causal = Boolean(node.attributes["causal"]);
  const inputs = node.inputs.map((t) => ({ slot: lowering.slot(t), dtype: t.dtype as "f32" | "f16", size: t.size }));
  // Every workgroup reads all that it does not own.
  for (const read of kernel === "grad_key_value" ? [inputs[0]!, inputs[3]!] : [inputs[1]!, inputs[2]!]) {
    if (read.dtype === "f16" || attentionReads(kernel, s, form) < COPY_FROM_READS) continue;
    read.slot = roundedCopy(lowering, read.slot, read.size);
    read.dtype = "f16";
  }
  const [q, k, v, dout] = inputs.map(({ dtype }) => dtype) as ["f32", "f32", "f32", "f32"];
  const types = { q, k, v, ...(isForward ? { out: node.outputs[0]!.dtype as "f32" } : { dout }) };
  const { source, constants, groups } = chooseAttentionMatrix(kernel, { ...s, causal }, form, types);
  const grid = foldGrid(groups * s.heads * s.batch, lowering.target.maxWorkgroups);
  const scale = f32Bits(node.attributes["scale"] as number);
  lowering.call({
    label: ATTENTION_LABELS[kernel],
    source,
    constants,
    inputs: inputs.map(({ slot }) => slot),
    outputs: node.outputs.map((t) => lowering.slot(t)),
    params: [s.batch, s.heads, s.rows, s.keys, groups, grid[0], scale, s.heads * s.headSize],
    grid,
    flops: PRODUCTS[kernel] * productFlops(s, causal),
  });
  return true;
}
