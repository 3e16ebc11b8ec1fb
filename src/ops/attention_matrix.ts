// Attention on subgroup matrices: which form an adapter can run, and the constants and grids of its kernels. Pure
// decisions; attention_on_matrices.ts turns them into kernel calls.

import forwardSource from "../../shaders/attention_matrix_forward.wgsl" with { type: "text" };
import gradKeyValueSource from "../../shaders/attention_matrix_grad_key_value.wgsl" with { type: "text" };
import gradQuerySource from "../../shaders/attention_matrix_grad_query.wgsl" with { type: "text" };
import type { KernelLimits, MatrixSize } from "../gpu/kernel_limits.ts";
import type { TemplateConstants } from "../gpu/template.ts";
import { matrixSizes, subgroupLanes } from "./matmul_matrix.ts";
import { halvesLoader } from "./operand.ts";

/** How the kernels cut their work. */
export interface AttentionMatrices {
  name: string;
  size: MatrixSize;
  lanes: number;
  /** Subgroups of a workgroup, each with `size.m` rows (dK and dV: keys). */
  groups: number;
  /** Keys (dK and dV: rows) that are staged at a time. */
  keys: number;
  /** Subgroups that own the same keys in the kernel for dK and dV and split the columns; 1 in the others. */
  sharers: number;
  /** Fetches the next keys into registers while the present ones are used, and unrolls. */
  ahead: boolean;
}

export type AttentionKernel = "forward" | "grad_query" | "grad_key_value";

/** Head size above which the results of a subgroup do not stay in registers. */
const MAX_HEAD_SIZE = 128;
/** Head size above which two subgroups share the keys of dK and dV, on adapters whose matrices are large. */
const UNSHARED_HEAD_SIZE = 64;
/** Keys that are staged at a time; 64 would not leave room for the scores on adapters with 32 KiB. */
const KEYS = 32;
const GROUPS = [4, 8] as const;

/** Places in workgroup memory, in vec4s: the second staged operand, the scores, and the end. */
function placesOf(kernel: AttentionKernel, form: AttentionMatrices, headSize: number) {
  const { size, groups, keys, sharers } = form;
  const tile = keys * (headSize / 8 + 1);
  const rows = (groups / sharers) * size.m;
  const scores = keys / 4 + 1;
  const weights = keys / 8 + 1;
  if (kernel === "grad_query") return { second: tile, scores: 2 * tile, total: 2 * tile + rows * 2 * scores };
  if (kernel === "grad_key_value")
    return { second: tile, scores: 2 * tile, total: 2 * tile + rows * 2 * (scores + weights) };
  // Where results are scaled, one matrix of each subgroup takes the place of the keys.
  const second = Math.max(tile, (groups * size.m * size.n) / 4);
  return { second, scores: second + tile, total: second + tile + rows * scores };
}

/** Forms of a kernel that an adapter can run for a head size, the default first; none where no matrices fit. */
export function attentionMatrices(
  kernel: AttentionKernel,
  limits: KernelLimits,
  headSize: number,
): AttentionMatrices[] {
  const lanes = subgroupLanes(limits);
  return matrixSizes(limits).flatMap((size) => {
    const isLarge = size.m >= 16;
    const shared = isLarge && headSize > UNSHARED_HEAD_SIZE ? [2, 1] : [1, 2];
    return GROUPS.flatMap((groups) =>
      (kernel === "grad_key_value" ? shared : [1]).flatMap((sharers) =>
        // Loops around small matrices compile fast on adapters that take them apart into many instructions.
        [isLarge, !isLarge].map((ahead) => {
          const matrix = `matrix_${size.m}x${size.n}x${size.k}_${groups}`;
          const name = `${matrix}${sharers > 1 ? `_shared${sharers}` : ""}${ahead ? "_ahead" : ""}`;
          return { name, size, lanes, groups, keys: KEYS, sharers, ahead };
        }),
      ),
    ).filter((form) => fits(kernel, form, headSize, limits));
  });
}

function fits(kernel: AttentionKernel, form: AttentionMatrices, headSize: number, limits: KernelLimits): boolean {
  const { size, lanes, groups, keys, sharers } = form;
  const { m, n, k } = size;
  const threads = groups * lanes;
  const parts = lanes / m;
  const own = keys / sharers / parts;
  const whole = (value: number) => Number.isInteger(value) && value > 0;
  return (
    headSize <= MAX_HEAD_SIZE &&
    [m, n, k].every((side) => side % 8 === 0) &&
    whole(headSize / sharers / n) &&
    whole(headSize / k) &&
    whole(keys / sharers / n) &&
    whole(keys / k) &&
    whole(Math.log2(2 * parts)) &&
    // Halves of a matrix's columns take the place of the same lane's scores; dK and dV have a place of their own for them.
    whole(own / (kernel === "grad_key_value" ? 8 : k)) &&
    threads <= limits.maxComputeInvocationsPerWorkgroup &&
    whole((keys * headSize) / 8 / threads) &&
    16 * placesOf(kernel, form, headSize).total + 16 <= limits.maxComputeWorkgroupStorageSize
  );
}

type Element = "f32" | "f16";

export interface AttentionSizes {
  batch: number;
  rows: number;
  keys: number;
  heads: number;
  headSize: number;
}

/** Source, constants and number of workgroups along the rows of a head. */
export interface AttentionMatrixChoice {
  source: string;
  constants: TemplateConstants & Record<string, string | number | boolean>;
  groups: number;
}

/** Stretches of a head's columns in which a workgroup's own rows fit the whole of its memory. */
function stretches(rows: number, k: number, headSize: number, total: number): number {
  const counts = Array.from({ length: headSize / k }, (_, i) => i + 1);
  const fitting = counts.find(
    (count) => Number.isInteger(headSize / k / count) && rows * (headSize / 8 / count + 1) <= total,
  );
  if (fitting === undefined) throw new Error(`${rows} rows of ${k} columns do not fit the workgroup memory`);
  return fitting;
}

const SOURCES: Readonly<Record<AttentionKernel, string>> = {
  forward: forwardSource,
  grad_query: gradQuerySource,
  grad_key_value: gradKeyValueSource,
};

/** Workgroups along the rows (dK and dV: keys) of a head, which all read the whole of the other side. */
export function attentionReads(kernel: AttentionKernel, s: AttentionSizes, form: AttentionMatrices): number {
  const owned = kernel === "grad_key_value" ? s.keys : s.rows;
  return Math.ceil(owned / ((form.groups / form.sharers) * form.size.m));
}

/**
 * Source, constants and workgroups of a kernel.
 * @param types of the tensors in memory; `out` for the forward kernel, `dout` for the others
 */
export function chooseAttentionMatrix(
  kernel: AttentionKernel,
  s: AttentionSizes & { causal: boolean },
  form: AttentionMatrices,
  types: { q: Element; k: Element; v: Element; out?: Element; dout?: Element },
): AttentionMatrixChoice {
  const { size, lanes, groups, keys, sharers, ahead } = form;
  const { headSize } = s;
  const width = s.heads * headSize;
  const rows = (groups / sharers) * size.m;
  const places = placesOf(kernel, form, headSize);
  const count = stretches(rows, size.k, headSize, places.total);
  const load = (name: "q" | "k" | "v" | "dout", side: "rows" | "keys") =>
    halvesLoader(name, types[name] ?? "f32", [`p.${side}`, "p.width"], width, s[side] * width);
  const [q, k, v, dout] = [load("q", "rows"), load("k", "keys"), load("v", "keys"), load("dout", "rows")];
  const own = keys / sharers / (lanes / size.m);
  const [scoreSteps, keySteps] = [keys / sharers / size.n, keys / size.k];
  return {
    source: SOURCES[kernel],
    constants: {
      Q: q.element,
      K: k.element,
      V: v.element,
      DOUT: dout.element,
      OUT: types.out ?? "f32",
      LOAD_Q: q.text,
      LOAD_K: k.text,
      LOAD_V: v.text,
      LOAD_DOUT: dout.text,
      CAUSAL: s.causal,
      SIZE_M: size.m,
      SIZE_N: size.n,
      SIZE_K: size.k,
      LANES: lanes,
      GROUPS: groups,
      SHARERS: sharers,
      THREADS: groups * lanes,
      KEYS: keys,
      HEAD: headSize,
      AHEAD: ahead,
      LOADS: (keys * headSize) / 8 / (groups * lanes),
      SCORE_ROUNDS: ahead ? 1 : scoreSteps,
      SCORE_STEPS: ahead ? scoreSteps : 1,
      KEY_ROUNDS: ahead ? 1 : keySteps,
      KEY_STEPS: ahead ? keySteps : 1,
      OUT_MATRICES: headSize / sharers / size.n,
      OWN_VECTORS: own / 4,
      OWN_PAIRS: own / 8,
      SHUFFLES: Math.log2(lanes / size.m),
      START_V: places.second,
      START_S: places.scores,
      STAGE: places.total,
      STRETCHES: count,
      STRETCH_EIGHTS: headSize / 8 / count,
      STRETCH_MATRICES: headSize / size.k / count,
    },
    groups: attentionReads(kernel, s, form),
  };
}
