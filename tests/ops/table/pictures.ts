// Operations of the table that make pictures of another size, and random numbers.

import { RandomStream } from "../../../src/base/random.ts";
import { affineSample } from "../../../src/ops/affine_sample.ts";
import { dropout } from "../../../src/ops/dropout.ts";
import { cast } from "../../../src/ops/pointwise.ts";
import { randomKey, randomNormal, randomUniform, randomWords } from "../../../src/ops/random.ts";
import { type Filter, resize, resizeRows, type SparseRows } from "../../../src/ops/resample.ts";
import { downsampleSum, upsampleNearest2x } from "../../../src/ops/upsample.ts";
import { type Case, type Draw, type Entry, gathered, input } from "./types.ts";

type Type = "f32" | "f16";

type Picture = readonly [number, number, number, number];

/** Where pixel i of the doubled picture comes from. */
const doubled = (h: number, w: number) => (i: number) => {
  const y = Math.floor(i / (2 * w)) % (2 * h);
  return Math.floor(i / (4 * h * w)) * h * w + (y >> 1) * w + ((i % (2 * w)) >> 1);
};

function upsampleCase([n, c, h, w]: Picture, dtype: Type = "f32"): Case {
  return {
    label: `${dtype} [${n}, ${c}, ${h}, ${w}]`,
    inputs: [input([n, c, h, w], { dtype })],
    body: ([x]) => [upsampleNearest2x(x!)],
    reference: ([x]) => [gathered(x!, 4 * n * c * h * w, doubled(h, w))],
    terms: 4,
  };
}

function downsampleCase([n, c, h, w]: Picture): Case {
  return {
    label: `[${n}, ${c}, ${2 * h}, ${2 * w}]`,
    inputs: [input([n, c, 2 * h, 2 * w])],
    body: ([x]) => [downsampleSum(x!)],
    reference: ([x]) => {
      const out = new Float64Array(n * c * h * w);
      const from = doubled(h, w);
      x!.forEach((v, i) => (out[from(i)]! += v));
      return [out];
    },
    terms: 4,
  };
}

/** Pictures through affine maps in float64, 0.25 outside. */
function affineCase([n, c, h, w]: Picture, dtype: Type = "f32"): Case {
  const fill = 0.25;
  const reference = (x: Float64Array, maps: Float64Array): Float64Array =>
    Float64Array.from({ length: n * c * h * w }, (_, i) => {
      const m = Math.floor(i / (c * h * w)) * 6;
      const [fromX, fromY] = [(2 * (i % w) + 1) / w - 1, (2 * (Math.floor(i / w) % h) + 1) / h - 1];
      const place = (at: number, size: number) =>
        ((maps[m + at]! * fromX + maps[m + at + 1]! * fromY + maps[m + at + 2]! + 1) * size - 1) / 2;
      const [px, py] = [place(0, w), place(3, h)];
      let sum = fill;
      for (const row of [Math.floor(py), Math.floor(py) + 1]) {
        for (const column of [Math.floor(px), Math.floor(px) + 1]) {
          if (row < 0 || column < 0 || row >= h || column >= w) continue;
          const weight = (1 - Math.abs(px - column)) * (1 - Math.abs(py - row));
          sum += weight * (x[Math.floor(i / (h * w)) * h * w + row * w + column]! - fill);
        }
      }
      return sum;
    });
  return {
    label: `${dtype} [${n}, ${c}, ${h}, ${w}]`,
    inputs: [input([n, c, h, w], { dtype }), input([n, 6], { seed: 2 })],
    body: ([x, maps]) => [affineSample(x!, maps!, fill)],
    reference: ([x, maps]) => [reference(x!, maps!)],
    terms: 4,
  };
}

/** A sparse matrix along the middle of [outer, rows.columns, inner]. */
function sparseProduct(rows: SparseRows, x: Float64Array, outer: number, inner: number): Float64Array {
  const out = new Float64Array(outer * rows.starts.length * inner);
  for (let o = 0; o < outer; o++) {
    rows.starts.forEach((start, j) => {
      for (let i = 0; i < inner; i++) {
        let total = 0;
        rows.weights[j]!.forEach((w, t) => (total += w * x[(o * rows.columns + start + t) * inner + i]!));
        out[(o * rows.starts.length + j) * inner + i] = total;
      }
    });
  }
  return out;
}

function resizeCase(
  [n, c, h, w]: Picture,
  [height, width]: readonly [number, number],
  filter: Filter,
  antialias: boolean,
  dtype: Type = "f32",
): Case {
  const options = { filter, antialias };
  return {
    label: `${dtype} [${n}, ${c}, ${h}, ${w}] to ${height}x${width}, ${filter}${antialias ? ", antialiased" : ""}`,
    inputs: [input([n, c, h, w], { dtype })],
    body: ([x], _graph, constant) => [resize(x!, height, width, { ...options, constant })],
    reference: ([x]) => {
      const wide = w === width ? x! : sparseProduct(resizeRows(w, width, options), x!, n * c * h, 1);
      return [h === height ? wide : sparseProduct(resizeRows(h, height, options), wide, n * c, width)];
    },
    terms: 8 * (Math.max(h / height, height / h) + Math.max(w / width, width / w)),
  };
}

function randomCase(kind: "words" | "uniform" | "normal", count: number): Case {
  const stream = new RandomStream(20261122, "table");
  const make = { words: randomWords, uniform: randomUniform, normal: randomNormal }[kind];
  return {
    label: `[${count}]`,
    inputs: [{ shape: [4], dtype: "u32", values: Array.from(randomKey(stream, 5)) }],
    body: ([key]) => [kind === "words" ? cast(make(key!, [count]), "f32") : make(key!, [count])],
    reference: () => [
      Float64Array.from(
        kind === "words"
          ? stream.words(5, count)
          : kind === "uniform"
            ? stream.uniforms(5, count)
            : stream.normals(5, count),
      ),
    ],
    terms: 1,
  };
}

function dropoutCase(count: number, rate: number, first = 0, dtype: "f32" | "f16" = "f32"): Case {
  const stream = new RandomStream(20261122, "table");
  // Element i stays or falls with number first + i of the stream, in steps of 2⁻²⁴ as the numbers are.
  const bound = Math.round(rate * 2 ** 24) / 2 ** 24;
  const factors = Float64Array.from(stream.uniforms(5, count, first), (u) => (u >= bound ? 1 / (1 - rate) : 0));
  return {
    label: `[${count}] rate ${rate} from ${first} ${dtype}`,
    inputs: [
      { shape: [4], dtype: "u32", values: Array.from(randomKey(stream, 5)) },
      input([count], { seed: 3, dtype }),
    ],
    body: ([key, x]) => [dropout(x!, key!, { rate, first })],
    reference: ([, x]) => [x!.map((value, i) => value * factors[i]!)],
    terms: 1,
    gradientFloor: 1,
  };
}

const PICTURES: Picture[] = [
  [2, 1, 33, 37],
  [1, 1, 1, 1],
  [1, 1, 1, 63],
  [2, 3, 8, 8],
  [1, 5, 13, 1],
  [3, 1, 7, 37],
  [1, 2, 101, 5],
  // Rows of whole vectors, upwards alone and both ways, around a workgroup's share.
  [1, 1, 1, 2],
  [2, 3, 5, 6],
  [1, 1, 1, 4],
  [3, 2, 7, 12],
  [1, 3, 33, 32],
];
const drawPicture = (r: Draw): Picture => [r.int(1, 3), r.int(1, 4), r.int(1, 20), r.int(1, 20)];

export const PICTURES_AND_RANDOM: Entry[] = [
  {
    name: "upsampleNearest2x",
    file: "upsample.ts",
    kernels: ["upsample.wgsl"],
    formula: "every pixel becomes a square of four",
    shapes: "[N, C, H, W] to [N, C, 2H, 2W]",
    types: "f32, f16 (the type of x)",
    gradient: "downsampleSum",
    cases: [
      ...PICTURES.map((p) => upsampleCase(p)),
      upsampleCase([1, 2, 3, 5], "f16"),
      upsampleCase([1, 2, 3, 8], "f16"),
    ],
    draw: (r) => upsampleCase(drawPicture(r)),
  },
  {
    name: "downsampleSum",
    file: "upsample.ts",
    kernels: ["upsample.wgsl"],
    formula: "sums over squares of four",
    shapes: "[N, C, 2H, 2W] to [N, C, H, W]",
    types: "f32, f16 (the type of x)",
    gradient: "upsampleNearest2x",
    cases: PICTURES.map(downsampleCase),
    draw: (r) => downsampleCase(drawPicture(r)),
  },
  {
    name: "resample, resize",
    file: "resample.ts",
    kernels: ["resample.wgsl"],
    formula: "a sparse matrix along each of the last two dimensions; taps of Pillow and of torch",
    shapes: "[N, C, H, W] to [N, C, height, width] or a part of it",
    types: "f32, f16 in; f32 out",
    gradient: "the transposed matrices",
    cases: [
      resizeCase([1, 1, 1, 1], [3, 2], "bilinear", true),
      resizeCase([2, 3, 15, 37], [28, 9], "bicubic", true),
      resizeCase([1, 3, 64, 45], [28, 28], "bicubic", true),
      resizeCase([1, 2, 9, 8], [5, 16], "bicubic", false),
      resizeCase([1, 2, 9, 8], [18, 3], "bilinear", false),
      resizeCase([1, 1, 3, 257], [3, 65], "bilinear", true),
      resizeCase([1, 2, 8, 6], [4, 9], "bicubic", true, "f16"),
    ],
    draw: (r) =>
      resizeCase(
        drawPicture(r),
        [r.int(1, 40), r.int(1, 40)],
        r.pick(["bilinear", "bicubic"] as const),
        r.int(0, 1) === 1,
      ),
  },
  {
    name: "affineSample",
    file: "affine_sample.ts",
    kernels: ["affine_sample.wgsl"],
    formula: "bilinear value of the picture at the place that an affine map gives, a fill value outside",
    shapes: "x [N, C, H, W], maps [N, 6]",
    types: "f32, f16 in; f32 out",
    gradient: "",
    slack: [20, "places are worked out in f32, and neighbouring pixels of noise differ by their whole size"],
    cases: [
      affineCase([1, 1, 1, 1]),
      affineCase([2, 3, 5, 7]),
      affineCase([3, 3, 16, 16]),
      affineCase([2, 1, 9, 4], "f16"),
    ],
    draw: (r) => affineCase(drawPicture(r)),
  },
  ...(["words", "uniform", "normal"] as const).map(
    (kind): Entry => ({
      name: `random${kind[0]!.toUpperCase()}${kind.slice(1)}`,
      file: "random.ts",
      kernels: ["random.wgsl"],
      adapterKernels: kind === "words" ? ["pointwise.wgsl"] : [],
      formula: {
        words: "Philox4x32-10 words of (seed, stream, step, element)",
        uniform: "words / 2³² in steps of 2⁻²⁴",
        normal: "Box–Muller of two words",
      }[kind],
      shapes: "any; key [4]",
      types: kind === "words" ? "u32 out" : "f32 out",
      gradient: "",
      slack: [3, "normal numbers agree with the host's to 1e-6"],
      cases: [1, 3, 4, 5, 255, 257, 1023, 4099].map((n) => randomCase(kind, n)),
      draw: (r) => randomCase(kind, r.int(1, 5000)),
    }),
  ),
  {
    name: "dropout",
    file: "dropout.ts",
    kernels: ["random.wgsl"],
    formula: "x / (1 − rate) where the uniform number of the element is at least the rate, else 0",
    shapes: "any; key [4]",
    types: "f32, f16 in; f32 out",
    gradient: "itself, with the same numbers",
    cases: [
      dropoutCase(1, 0.5),
      dropoutCase(257, 0.1, 1024),
      dropoutCase(1023, 0.9),
      dropoutCase(4099, 0.25, 8),
      dropoutCase(300, 0),
      dropoutCase(511, 0.3, 4, "f16"),
    ],
    draw: (r) => dropoutCase(r.int(1, 3000), r.int(0, 95) / 100, 4 * r.int(0, 100)),
  },
];
