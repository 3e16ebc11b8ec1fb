// Operations of the table that move values: permutations, slabs, rows by index.

import { embedding } from "../../../src/ops/embedding.ts";
import { gatherRows } from "../../../src/ops/gather_rows.ts";
import { permute, transpose } from "../../../src/ops/permute.ts";
import { reshape } from "../../../src/ops/reshape.ts";
import { concat, pad, slice, split } from "../../../src/ops/slab.ts";
import { elements, type Shape } from "../../../src/tensor/shape.ts";
import { type Case, type Draw, type Entry, gathered, indices, input } from "./types.ts";

type Type = "f32" | "f16";

const strides = (shape: Shape) => shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));

function permuteCase(shape: number[], order: number[], dtype: Type = "f32"): Case {
  const to = order.map((d) => shape[d]!);
  const [from, own] = [strides(shape), strides(to)];
  return {
    label: `${dtype} [${shape}] by [${order}]`,
    inputs: [input(shape, { dtype })],
    body: ([x]) => [permute(x!, order)],
    reference: ([x]) => [
      gathered(x!, x!.length, (i) => order.reduce((at, d, k) => at + (Math.floor(i / own[k]!) % to[k]!) * from[d]!, 0)),
    ],
    terms: 1,
  };
}

/** Output values of a part of dimension d that starts at `start`: flat index in the whole. */
function partIndex(whole: Shape, part: Shape, d: number, start: number): (i: number) => number {
  const inner = whole.slice(d + 1).reduce((a, b) => a * b, 1);
  const [run, row] = [part[d]! * inner, whole[d]! * inner];
  return (i) => Math.floor(i / run) * row + start * inner + (i % run);
}

function sliceCase(shape: number[], d: number, start: number, length: number, dtype: Type = "f32"): Case {
  const part = shape.map((n, i) => (i === d ? length : n));
  return {
    label: `${dtype} [${shape}], ${length} from ${start} of dimension ${d}`,
    inputs: [input(shape, { dtype })],
    body: ([x]) => [slice(x!, d, start, length)],
    reference: ([x]) => [gathered(x!, elements(part), partIndex(shape, part, d, start))],
    terms: 1,
  };
}

function padCase(shape: number[], d: number, start: number, size: number, dtype: Type = "f32"): Case {
  const whole = shape.map((n, i) => (i === d ? size : n));
  return {
    label: `${dtype} [${shape}] at ${start} of ${size} in dimension ${d}`,
    inputs: [input(shape, { dtype })],
    body: ([x]) => [pad(x!, d, start, size)],
    reference: ([x]) => {
      const out = new Float64Array(elements(whole));
      const at = partIndex(whole, shape, d, start);
      x!.forEach((v, i) => (out[at(i)] = v));
      return [out];
    },
    terms: 1,
  };
}

function splitCase(shape: number[], d: number, sizes: number[], dtype: Type = "f32"): Case {
  const starts = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0));
  const parts = sizes.map((size) => shape.map((n, i) => (i === d ? size : n)));
  return {
    label: `${dtype} [${shape}] into ${sizes} of dimension ${d}`,
    inputs: [input(shape, { dtype })],
    body: ([x]) => split(x!, d, sizes),
    reference: ([x]) => parts.map((part, k) => gathered(x!, elements(part), partIndex(shape, part, d, starts[k]!))),
    terms: 1,
  };
}

function concatCase(shape: number[], d: number, sizes: number[], dtype: Type = "f32"): Case {
  const whole = shape.map((n, i) => (i === d ? sizes.reduce((a, b) => a + b, 0) : n));
  const parts = sizes.map((size) => shape.map((n, i) => (i === d ? size : n)));
  return {
    label: `${dtype} parts ${sizes} of [${whole}] in dimension ${d}`,
    inputs: parts.map((part, i) => input(part, { seed: i + 1, dtype })),
    body: (tensors) => [concat(tensors, d)],
    reference: (values) => {
      const out = new Float64Array(elements(whole));
      let start = 0;
      parts.forEach((part, k) => {
        const at = partIndex(whole, part, d, start);
        values[k]!.forEach((v, i) => (out[at(i)] = v));
        start += part[d]!;
      });
      return [out];
    },
    terms: 1,
  };
}

function embeddingCase(entries: number, width: number, count: number, dtype: Type = "f32"): Case {
  return {
    label: `${dtype} [${entries}, ${width}], ${count} ids`,
    inputs: [input([entries, width], { dtype }), indices([count], entries)],
    body: ([t, ids]) => [embedding(t!, ids!)],
    reference: ([t, ids]) => [gathered(t!, count * width, (i) => ids![Math.floor(i / width)]! * width + (i % width))],
    terms: count,
  };
}

function gatherCase(batch: number, length: number, width: number, dtype: Type = "f32"): Case {
  return {
    label: `${dtype} [${batch}, ${length}, ${width}]`,
    inputs: [input([batch, length, width], { dtype }), indices([batch], length)],
    body: ([x, ids]) => [gatherRows(x!, ids!)],
    reference: ([x, ids]) => [
      gathered(
        x!,
        batch * width,
        (i) => (Math.floor(i / width) * length + ids![Math.floor(i / width)]!) * width + (i % width),
      ),
    ],
    terms: 1,
  };
}

const SLAB = { file: "slab.ts", kernels: ["slab.wgsl"], types: "f32, f16, u32 (the type of x)" };
const drawShape = (r: Draw) => Array.from({ length: r.int(1, 4) }, () => r.int(1, 9));

export const MOVES: Entry[] = [
  {
    name: "permute, transpose",
    file: "permute.ts",
    kernels: ["permute.wgsl"],
    formula: "dimension k of the output is dimension order[k] of x",
    shapes: "up to six dimensions",
    types: "f32, f16, u32 (the type of x)",
    gradient: "the inverse permutation",
    cases: [
      permuteCase([1, 1], [1, 0]),
      permuteCase([2, 3, 5], [2, 0, 1]),
      permuteCase([16, 17], [1, 0]),
      permuteCase([255, 5], [1, 0]),
      permuteCase([2, 3, 4, 5], [0, 2, 3, 1]),
      permuteCase([2, 1, 3, 2, 5, 3], [5, 0, 3, 1, 4, 2]),
      permuteCase([7, 3, 5], [1, 2, 0], "f16"),
      permuteCase([67, 61], [1, 0]),
      // The last dimension stays: vectors of four and of two, and one that no vector divides.
      permuteCase([3, 5, 8], [1, 0, 2]),
      permuteCase([3, 2, 5, 4], [2, 0, 1, 3], "f16"),
      permuteCase([2, 3, 4, 2, 5, 2], [0, 2, 4, 1, 3, 5]),
      permuteCase([3, 4, 6], [1, 0, 2]),
      permuteCase([3, 2, 16], [1, 0, 2]),
      permuteCase([2, 5, 9], [1, 0, 2]),
      permuteCase([5, 2, 40], [1, 0, 2], "f16"),
      permuteCase([4, 3, 7], [1, 0, 2]),
      // Blocks of 4x4, with dimensions between and around them, and shapes that miss them by one side.
      permuteCase([4, 4], [1, 0]),
      permuteCase([68, 60], [1, 0]),
      permuteCase([3, 12, 20], [2, 1, 0]),
      permuteCase([2, 8, 3, 4], [0, 3, 2, 1], "f16"),
      permuteCase([2, 12, 3, 5, 8], [4, 2, 0, 3, 1]),
      permuteCase([8, 6], [1, 0]),
      permuteCase([6, 8], [1, 0]),
      // Dimensions of one between others move no value.
      permuteCase([1, 5, 1, 3], [1, 0, 3, 2]),
      permuteCase([4, 1, 8, 1], [3, 2, 1, 0]),
      { ...permuteCase([3, 31, 11], [0, 2, 1]), label: "transpose of [3, 31, 11]", body: ([x]) => [transpose(x!)] },
    ],
    draw: (r) => {
      const shape = drawShape(r);
      const order = shape.map((_, i) => i);
      for (let i = order.length - 1; i > 0; i--) {
        const k = r.int(0, i);
        [order[i], order[k]] = [order[k]!, order[i]!];
      }
      return permuteCase(shape, order);
    },
  },
  {
    name: "reshape",
    file: "reshape.ts",
    kernels: [],
    formula: "the same memory under another shape; no kernel runs",
    shapes: "any of the same number of elements",
    types: "any",
    gradient: "dy under the shape of x",
    cases: [
      {
        label: "[6, 35] to [5, 42]",
        inputs: [input([6, 35])],
        body: ([x]) => [reshape(x!, [5, -1])],
        reference: ([x]) => [x!],
        terms: 1,
      },
    ],
  },
  {
    ...SLAB,
    name: "slice",
    adapterKernels: ["fill.wgsl"],
    formula: "a run of one dimension",
    shapes: "any",
    gradient: "dy in zeros",
    cases: [
      sliceCase([1], 0, 0, 1),
      sliceCase([7], 0, 6, 1),
      sliceCase([5, 13, 3], 1, 4, 7),
      sliceCase([257, 3], 1, 1, 1),
      sliceCase([4, 65], 1, 0, 64),
      sliceCase([71, 79], 1, 9, 67),
      sliceCase([5, 9], 1, 3, 3, "f16"),
    ],
    draw: (r) => {
      const shape = drawShape(r);
      const d = r.int(0, shape.length - 1);
      const start = r.int(0, shape[d]! - 1);
      return sliceCase(shape, d, start, r.int(1, shape[d]! - start));
    },
  },
  {
    ...SLAB,
    name: "split",
    kernels: ["slabs.wgsl"],
    formula: "parts of one dimension",
    shapes: "any",
    gradient: "one concatenation",
    cases: [
      splitCase([6], 0, [1, 2, 3]),
      splitCase([2, 5, 12], 2, [3, 4, 5]),
      splitCase([3, 130, 2], 1, [65, 1, 64]),
      splitCase([3, 9], 1, [4, 5], "f16"),
    ],
    draw: (r) => {
      const sizes = Array.from({ length: r.int(2, 4) }, () => r.int(1, 9));
      const shape = drawShape(r);
      const d = r.int(0, shape.length - 1);
      return splitCase(
        shape.map((n, i) => (i === d ? sizes.reduce((a, b) => a + b, 0) : n)),
        d,
        sizes,
      );
    },
  },
  {
    ...SLAB,
    name: "concat",
    kernels: ["slabs.wgsl"],
    formula: "parts beside each other along one dimension; each is written at its offset",
    shapes: "any parts that differ in one dimension alone",
    gradient: "one slice a part",
    cases: [
      concatCase([1], 0, [1, 1]),
      concatCase([2, 1, 5], 1, [3, 1, 7]),
      concatCase([3, 1], 1, [64, 65, 1]),
      concatCase([3, 1], 1, [1, 4], "f16"),
    ],
    draw: (r) => {
      const shape = drawShape(r);
      return concatCase(
        shape,
        r.int(0, shape.length - 1),
        Array.from({ length: r.int(2, 4) }, () => r.int(1, 9)),
      );
    },
  },
  {
    ...SLAB,
    name: "pad",
    kernels: ["slab.wgsl", "fill.wgsl"],
    formula: "zeros of a larger dimension with x at an offset",
    shapes: "any",
    gradient: "a slice",
    cases: [
      padCase([1], 0, 1, 3),
      padCase([5, 7], 1, 2, 11),
      padCase([2, 3, 64], 1, 0, 4),
      padCase([3, 5], 1, 1, 7, "f16"),
    ],
    draw: (r) => {
      const shape = drawShape(r);
      const d = r.int(0, shape.length - 1);
      const start = r.int(0, 5);
      return padCase(shape, d, start, shape[d]! + start + r.int(0, 5));
    },
  },
  {
    name: "embedding",
    file: "embedding.ts",
    kernels: ["embedding.wgsl", "embedding_grad.wgsl"],
    formula: "out[n] = table[ids[n]]; zeros for an id outside",
    shapes: "table [entries, D], ids [...]",
    types: "table f32, f16, ids u32; f32 out",
    gradient: "each row of the table adds the dy of its ids, in their order",
    cases: [
      embeddingCase(1, 1, 1),
      embeddingCase(7, 1031, 5),
      embeddingCase(7, 63, 5),
      embeddingCase(5, 64, 40),
      embeddingCase(300, 65, 31),
      embeddingCase(9, 20, 7, "f16"),
    ],
    draw: (r) => embeddingCase(r.int(1, 60), r.int(1, 90), r.int(1, 60)),
  },
  {
    name: "gatherRows",
    file: "gather_rows.ts",
    kernels: ["gather_rows.wgsl"],
    formula: "out[b] = x[b, index[b]]; zeros for an index outside",
    shapes: "x [B, L, D], index [B]",
    types: "x f32, f16, index u32; f32 out",
    gradient: "dy in its row, zeros elsewhere",
    cases: [
      gatherCase(1, 1, 1),
      gatherCase(4, 2, 1031),
      gatherCase(2, 5, 63),
      gatherCase(3, 7, 64),
      gatherCase(5, 77, 65),
      gatherCase(3, 5, 9, "f16"),
    ],
    draw: (r) => gatherCase(r.int(1, 9), r.int(1, 30), r.int(1, 90)),
  },
];
