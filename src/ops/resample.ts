// Resizing pictures as two sparse matrices, one a dimension: each output value is a short weighted run of neighbouring
// inputs. The taps are those of Pillow (`ImagingResample`) and of torch's antialiased interpolation, so that a reward
// model sees the picture that it was trained on; the gradient is the transposed matrix, which is sparse in the same
// way.

import resampleSource from "../../shaders/resample.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { foldGrid } from "../tensor/lower.ts";
import type { Shape } from "../tensor/shape.ts";

/**
 * Gives a tensor of fixed values that the device holds for the life of the run. The same name always means the same
 * values, so that the maker may keep one copy.
 */
export type Constant = (name: string, values: Float32Array | Uint32Array, shape: Shape) => Tensor;

export type Filter = "bilinear" | "bicubic";

export interface FilterOptions {
  filter: Filter;
  /** Widens the filter when the picture shrinks, as Pillow always does and torch does with antialias=True. */
  antialias: boolean;
}

/** A part of the resized picture, in its pixels. */
export interface Crop {
  top: number;
  left: number;
  height: number;
  width: number;
}

/** Rows of a sparse [rows, columns] matrix; row i has weights[i] at columns starts[i], starts[i] + 1, ... */
export interface SparseRows {
  columns: number;
  starts: number[];
  weights: Float64Array[];
}

function triangle(x: number): number {
  return Math.max(0, 1 - Math.abs(x));
}

/** Cubic convolution kernel (Keys 1981) with free parameter a. */
function cubic(x: number, a: number): number {
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? a * (((t - 5) * t + 8) * t - 4) : 0;
}

/**
 * The matrix that resizes a line of `from` pixels to `to` (align_corners=false). Antialiased: bicubic with a = -0.5,
 * the support stretched by the scale when it shrinks, taps cut at the border and normalised. Without: bicubic with a =
 * -0.75, two or four taps, those beyond the border laid on the border pixel.
 */
export function resizeRows(from: number, to: number, { filter, antialias }: FilterOptions): SparseRows {
  return antialias ? antialiasedRows(from, to, filter) : plainRows(from, to, filter);
}

function antialiasedRows(from: number, to: number, filter: Filter): SparseRows {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = (filter === "bicubic" ? 2 : 1) * stretch;
  const rows: SparseRows = { columns: from, starts: [], weights: [] };
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), from);
    const taps = Float64Array.from({ length: last - first }, (_, k) => {
      const x = (first + k - centre + 0.5) / stretch;
      return filter === "bicubic" ? cubic(x, -0.5) : triangle(x);
    });
    const sum = taps.reduce((a, b) => a + b, 0);
    rows.starts.push(first);
    rows.weights.push(taps.map((w) => w / sum));
  }
  return rows;
}

function plainRows(from: number, to: number, filter: Filter): SparseRows {
  const scale = from / to;
  const rows: SparseRows = { columns: from, starts: [], weights: [] };
  for (let i = 0; i < to; i++) {
    let at = (i + 0.5) * scale - 0.5;
    // torch clamps the position for two taps, and the taps alone for four.
    if (filter === "bilinear") at = Math.max(at, 0);
    const base = Math.floor(at);
    const offsets = filter === "bilinear" ? [0, 1] : [-1, 0, 1, 2];
    const places = offsets.map((k) => Math.min(Math.max(base + k, 0), from - 1));
    const first = places[0]!;
    const taps = new Float64Array(places.at(-1)! - first + 1);
    offsets.forEach((k, n) => {
      const x = at - base - k;
      taps[places[n]! - first]! += filter === "bilinear" ? triangle(x) : cubic(x, -0.75);
    });
    rows.starts.push(first);
    rows.weights.push(taps);
  }
  return rows;
}

/** Rows `first` ... `first + count - 1`. */
export function sliceRows(rows: SparseRows, first: number, count: number): SparseRows {
  if (first < 0 || first + count > rows.starts.length) {
    throw new Error(`crop ${first} + ${count} lies outside ${rows.starts.length} resized pixels`);
  }
  const { columns, starts, weights } = rows;
  return { columns, starts: starts.slice(first, first + count), weights: weights.slice(first, first + count) };
}

/** The transposed matrix; a column that no row uses becomes an empty row. */
export function transposeRows(rows: SparseRows): SparseRows {
  const out: SparseRows = { columns: rows.starts.length, starts: [], weights: [] };
  const first = new Array<number>(rows.columns).fill(Number.POSITIVE_INFINITY);
  const last = new Array<number>(rows.columns).fill(-1);
  rows.starts.forEach((start, j) => {
    for (let c = start; c < start + rows.weights[j]!.length; c++) {
      first[c] = Math.min(first[c]!, j);
      last[c] = j;
    }
  });
  for (let c = 0; c < rows.columns; c++) {
    const start = last[c]! < 0 ? 0 : first[c]!;
    out.starts.push(start);
    out.weights.push(
      Float64Array.from({ length: last[c]! < 0 ? 0 : last[c]! - start + 1 }, (_, k) => {
        return rows.weights[start + k]![c - rows.starts[start + k]!] ?? 0;
      }),
    );
  }
  return out;
}

/** The table that the kernel reads, [rows, 2 + most taps]: start, number of taps, weights rounded to float32. */
export function packRows(rows: SparseRows): { words: Uint32Array; shape: [number, number] } {
  const stride = 2 + Math.max(1, ...rows.weights.map((w) => w.length));
  const words = new Uint32Array(rows.starts.length * stride);
  const floats = new Float32Array(words.buffer);
  rows.starts.forEach((start, i) => {
    words[i * stride] = start;
    words[i * stride + 1] = rows.weights[i]!.length;
    floats.set(rows.weights[i]!, i * stride + 2);
  });
  return { words, shape: [rows.starts.length, stride] };
}

const resampleOperation: Operation = {
  name: "resample",
  takesEpilogue: true,
  infer([x, table], attributes) {
    const axis = attributes["axis"] as number;
    if (x!.shape.length < 2 || axis < x!.shape.length - 2) throw new Error("resample works on the last two dimensions");
    if (x!.shape[axis] !== attributes["columns"])
      throw new Error(`a table for ${attributes["columns"]} given ${x!.shape[axis]}`);
    return [{ shape: x!.shape.map((d, i) => (i === axis ? table!.shape[0]! : d)), dtype: "f32" }];
  },
  lower(lowering, node) {
    const [x, table] = node.inputs as [Tensor, Tensor];
    const out = node.outputs[0]!;
    const axis = node.attributes["axis"] as number;
    const inner = x.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
    const grid = foldGrid(Math.ceil(out.size / 64), lowering.target.maxWorkgroups);
    lowering.call({
      label: inner === 1 ? "resample rows" : "resample columns",
      source: resampleSource,
      constants: { X: x.dtype },
      inputs: [lowering.slot(x), lowering.slot(table)],
      outputs: [lowering.slot(out)],
      params: [out.size, x.shape[axis]!, table.shape[0]!, inner, table.shape[1]!, grid[0]],
      grid,
      flops: 2 * out.size * (table.shape[1]! - 2),
      epilogueOf: node,
    });
  },
  gradient(node, [dy]) {
    const { rows, name, axis, constant } = node.attributes as unknown as ResampleAttributes;
    return [resample(dy!, transposeRows(rows), axis, `${name}/transposed`, constant), null];
  },
};

interface ResampleAttributes {
  rows: SparseRows;
  name: string;
  axis: number;
  constant: Constant;
}

/** Multiplies dimension `axis` (one of the last two) of `x` with a sparse matrix; `name` names its table. */
export function resample(x: Tensor, rows: SparseRows, axis: number, name: string, constant: Constant): Tensor {
  const at = axis < 0 ? x.rank + axis : axis;
  const { words, shape } = packRows(rows);
  const table = constant(name, words, shape);
  return apply1(resampleOperation, [x, table], { rows, name, axis: at, constant, columns: rows.columns });
}

/**
 * Resizes pictures [N, C, H, W] to [N, C, height, width], or to the part `crop` of that: rows outside of it are never
 * computed. A dimension that keeps its size is passed through.
 */
export function resize(
  x: Tensor,
  height: number,
  width: number,
  options: FilterOptions & { crop?: Crop; constant: Constant },
): Tensor {
  const crop = options.crop ?? { top: 0, left: 0, height, width };
  const { filter, antialias, constant } = options;
  const kind = `resample/${filter}${antialias ? "-antialiased" : ""}`;
  const pass = (tensor: Tensor, axis: number, to: number, first: number, count: number): Tensor => {
    const from = tensor.dim(axis);
    if (from === to && count === to) return tensor;
    const rows = sliceRows(resizeRows(from, to, { filter, antialias }), first, count);
    return resample(tensor, rows, axis, `${kind}/${from}-${to}/${first}-${count}`, constant);
  };
  return pass(pass(x, -1, width, crop.left, crop.width), -2, height, crop.top, crop.height);
}

/** Python's round: halves go to the even neighbour. */
function roundHalfToEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/**
 * Geometry of torchvision's Resize(size) with CenterCrop(size): the short side becomes `size`, the long side
 * floor(size * long / short), and the middle square is kept.
 */
export function shortSideThenCrop(h: number, w: number, size: number): { height: number; width: number; crop: Crop } {
  const long = Math.floor((size * Math.max(h, w)) / Math.min(h, w));
  const [height, width] = h <= w ? [size, long] : [long, size];
  const top = roundHalfToEven((height - size) / 2);
  const left = roundHalfToEven((width - size) / 2);
  return { height, width, crop: { top, left, height: size, width: size } };
}

/**
 * Geometry of HPS's library: the long side becomes `size`, the short side is rounded, and the picture lies in the middle of
 * a black square (an odd rest is one more row below or column to the right).
 */
export function longSideThenPad(
  h: number,
  w: number,
  size: number,
): { height: number; width: number; top: number; left: number } {
  const scale = size / Math.max(h, w);
  const [height, width] = [h, w].map((side) => Math.max(1, roundHalfToEven(side * scale))) as [number, number];
  return { height, width, top: Math.floor((size - height) / 2), left: Math.floor((size - width) / 2) };
}
