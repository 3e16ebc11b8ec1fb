// LoKr layers (Yeh et al. 2023): ΔW is the Kronecker product of two matrices, either of them stored whole or as a product of
// two factors. Names and shapes follow LyCORIS, which PEFT shares: w1 [a, b], w2 [c, d] with a·c outputs and b·d inputs.

import type { KroneckerFactor, LokrLayer } from "./adapter_layers.ts";
import type { LoraPart } from "./lora_keys.ts";
import type { FusedNames } from "./lora_names.ts";

type Shapes = ReadonlyMap<LoraPart, readonly number[]>;

/**
 * Puts a layer together from its tensors, with scale 1.
 * @returns the layer and the rank of its factors (null where both matrices are whole), or why it cannot be one
 */
export function readLokrLayer(
  shapes: Shapes,
  values: ReadonlyMap<LoraPart, Float32Array>,
): { layer: LokrLayer; rank: number | null } | string {
  const first = readFactor("lokr_w1", shapes, values);
  if (typeof first === "string") return first;
  const second = readFactor("lokr_w2", shapes, values);
  if (typeof second === "string") return second;
  const rank = "rank" in second ? second.rank : "rank" in first ? first.rank : null;
  const layer = {
    inputs: first.columns * second.columns,
    outputs: first.rows * second.rows,
    first,
    second,
    scale: 1,
  };
  return { layer, rank };
}

function readFactor(
  name: "lokr_w1" | "lokr_w2",
  shapes: Shapes,
  values: ReadonlyMap<LoraPart, Float32Array>,
): KroneckerFactor | string {
  const [a, b]: LoraPart[] = [`${name}_a`, `${name}_b`];
  const whole = shapes.get(name);
  if (whole && (shapes.has(a!) || shapes.has(b!))) return `${name} is there whole and as a product`;
  if (whole) {
    if (whole.length !== 2 || whole.some((size) => size < 1)) return `${name} of shape [${whole}] is no matrix`;
    return { rows: whole[0]!, columns: whole[1]!, whole: values.get(name)! };
  }
  const [left, right] = [shapes.get(a!), shapes.get(b!)];
  if (!left && !right) return `${name} is missing`;
  if (!left || !right) return `${left ? b : a} is missing`;
  if (left.length !== 2 || right.length !== 2) return `${a} [${left}] and ${b} [${right}] are no matrices`;
  const [rows, rank] = left as [number, number];
  if (right[0] !== rank || rank < 1 || rows < 1 || right[1]! < 1) {
    return `${a} [${left}] and ${b} [${right}] have no common rank`;
  }
  return { rows, columns: right[1]!, rank, left: values.get(a!)!, right: values.get(b!)! };
}

/** The factor as one matrix [rows, columns]. */
export function wholeFactor(factor: KroneckerFactor): Float64Array {
  if ("whole" in factor) return Float64Array.from(factor.whole);
  const { rows, columns, rank, left, right } = factor;
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < rank; k++) {
      const value = left[i * rank + k]!;
      if (value === 0) continue;
      for (let j = 0; j < columns; j++) out[i * columns + j]! += value * right[k * columns + j]!;
    }
  }
  return out;
}

/**
 * Takes a layer of a fused matrix apart. That works where the rows of the first matrix share out in the same proportion,
 * because each of them stands for a block of rows of the product; null where they do not.
 */
export function splitLokr(names: FusedNames, layer: LokrLayer): Map<string, LokrLayer> | null {
  const { first, second, inputs } = layer;
  if (names.modules.length === 1 && !names.swapHalves) return new Map([[names.modules[0]!, layer]]);
  const parts = names.modules.length;
  const heights =
    names.rows === "equal"
      ? names.modules.map(() => layer.outputs / parts)
      : [inputs, inputs, inputs, layer.outputs - 3 * inputs];
  // The halves of the final modulation change places as a whole.
  const blocks = names.swapHalves ? [layer.outputs / 2, layer.outputs / 2] : heights;
  if (blocks.some((height) => height < 1 || height % second.rows !== 0)) return null;
  const matrix = "whole" in first ? first.whole : first.left;
  const width = "whole" in first ? first.columns : first.rank;
  const pieces: Float32Array[] = [];
  let row = 0;
  for (const height of blocks) {
    const rows = height / second.rows;
    pieces.push(matrix.slice(row * width, (row + rows) * width));
    row += rows;
  }
  if (names.swapHalves) {
    const turned = new Float32Array(matrix.length);
    turned.set(pieces[1]!);
    turned.set(pieces[0]!, pieces[1]!.length);
    return new Map([[names.modules[0]!, { ...layer, first: withRows(first, turned, first.rows) }]]);
  }
  return new Map(
    names.modules.map((module, i) => {
      const rows = heights[i]! / second.rows;
      return [module, { ...layer, outputs: heights[i]!, first: withRows(first, pieces[i]!, rows) }];
    }),
  );
}

function withRows(factor: KroneckerFactor, values: Float32Array, rows: number): KroneckerFactor {
  return "whole" in factor ? { ...factor, rows, whole: values } : { ...factor, rows, left: values };
}

/**
 * The two numbers whose product is `size`, as LyCORIS and PEFT choose them: the factor itself where it divides, else the
 * pair nearest to a square whose smaller number is at most the factor (-1: no bound).
 */
export function factorisation(size: number, factor: number): [number, number] {
  if (factor > 0 && size % factor === 0) return [factor, size / factor];
  const most = factor === -1 ? size : factor;
  let [small, large] = [1, size];
  for (let candidate = 2; candidate <= most && candidate * candidate <= size; candidate++) {
    if (size % candidate === 0) [small, large] = [candidate, size / candidate];
  }
  return [small, large];
}

/** The `decompose_factor` under which PEFT makes factors of these sizes, or null where there is none. */
export function decomposeFactor(layers: Iterable<LokrLayer>): number | null {
  const all = [...layers];
  const candidates = [-1, ...new Set(all.map(({ first }) => first.rows))].sort((a, b) => a - b);
  const fits = (factor: number) =>
    all.every(({ first, second, outputs, inputs }) => {
      const [rows, columns] = [factorisation(outputs, factor), factorisation(inputs, factor)];
      return (
        rows[0] === first.rows &&
        rows[1] === second.rows &&
        columns[0] === first.columns &&
        columns[1] === second.columns
      );
    });
  return candidates.find(fits) ?? null;
}
