// A test of the adapter's subgroup matrices before anything relies on them: the interface is experimental, and drivers have
// compiled such kernels wrongly. Each size of matrix computes a small product, a convolution and attention with their
// gradients, which cross tiles in every direction; the product is compared with the host, the others with the kernels
// that compute in f32. A size that fails is not used.

import type { AdapterFacts, Gpu } from "../gpu/device.ts";
import type { MatrixSize } from "../gpu/kernel_limits.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Target } from "../tensor/lower.ts";
import { Session } from "../tensor/session.ts";
import type { Shape } from "../tensor/shape.ts";
import { targetOf } from "../tensor/target.ts";
import type { Variable } from "../tensor/variable.ts";
import { attention } from "./attention.ts";
import { backward } from "./backward.ts";
import { conv2d } from "./conv2d.ts";
import { matmul } from "./matmul.ts";
import { type MatrixVariant, matrixVariants } from "./matmul_matrix.ts";

/** Values are whole numbers of this size at most, so that f16 holds them and sums are exact in f32. */
const LARGEST = 8;
/** Difference of attention's results, relative to their size, that rounding its factors to f16 explains. */
const ATTENTION_BOUND = 0.02;

const [M, N, K] = [75, 68, 140];
/** Sums of 45, 63 and 2 * 35 terms: more than one tile along the pixels and along the terms of a sum. */
const [PICTURES, WEIGHTS, SEEDS] = [
  [2, 5, 7, 5],
  [7, 5, 3, 3],
  [2, 7, 7, 5],
] as const;
/** Two heads; more keys than are staged at a time. */
const [HEADS, ROWS, KEYS] = [2, 21, 37];

/** A size of matrix that gave wrong numbers or did not compile. */
export interface MatrixFault {
  size: MatrixSize;
  why: string;
}

function values(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 24) % (2 * LARGEST + 1)) - LARGEST;
  });
}

interface Problem {
  name: string;
  /** Largest difference, relative to the size of the result; 0: the same numbers. */
  bound: number;
  inputs: readonly Shape[];
  body(inputs: Tensor[]): Tensor;
  /** Shape of the gradient of the result; asks for the gradients of the inputs. */
  seed?: Shape;
}

/** What is computed. Heads have few columns on CPU adapters, where every one is hundreds of instructions. */
const problems = (software: boolean): Problem[] => {
  const width = HEADS * (software ? 16 : 64);
  return [
    {
      name: "a product",
      bound: 0,
      inputs: [
        [M, K],
        [N, K],
      ],
      body: ([a, b]) => matmul(a!, b!, { transposeB: true }),
    },
    {
      name: "a convolution",
      bound: 0,
      inputs: [PICTURES, WEIGHTS],
      body: ([x, w]) => conv2d(x!, w!, { padding: [1, 1, 1, 1] }),
      seed: SEEDS,
    },
    {
      name: "attention",
      bound: ATTENTION_BOUND,
      inputs: [
        [1, ROWS, width],
        [1, KEYS, width],
        [1, KEYS, width],
      ],
      body: ([q, k, v]) => attention(q!, k!, v!, { heads: HEADS }),
      seed: [1, ROWS, width],
    },
  ];
};

/** Results and gradients of every problem on kernels that `use` chooses. */
async function solve(gpu: Gpu, use: Partial<Target>, all: readonly Problem[]): Promise<Float32Array[][]> {
  const session = new Session({ ...targetOf(gpu), ...use });
  const inputs: [Variable, Float32Array][] = [];
  const results = all.map(() => [] as Variable[]);
  const data = (name: string, shape: Shape, seed: number) => {
    const variable = session.data(`${name} ${seed}`, shape);
    inputs.push([variable, values(variable.size, seed)]);
    return variable;
  };
  const keep = (graph: Graph, i: number, value: Tensor) => {
    const variable = session.data(`result ${i}.${results[i]!.length}`, value.shape);
    results[i]!.push(variable);
    graph.assign(variable, value);
  };
  const plans = all.map((problem, i) => {
    const { name, seed } = problem;
    const variables = problem.inputs.map((shape, k) => data(name, shape, k + 1));
    const along = seed ? data(name, seed, variables.length + 1) : null;
    return session.plan(`check of ${name}`, (graph) => {
      const leaves = variables.map((variable) => graph.read(variable, along !== null));
      const y = problem.body(leaves);
      keep(graph, i, y);
      if (along) for (const gradient of backward(graph, [[y, graph.read(along)]], leaves)) keep(graph, i, gradient!);
    });
  });
  try {
    await session.open(gpu);
    for (const [variable, source] of inputs) session.write(variable, source);
    for (const plan of plans) session.run(plan);
    return await Promise.all(results.map((list) => Promise.all(list.map((variable) => session.read(variable)))));
  } finally {
    session.close();
  }
}

/** The product of the first problem on the host, with the values that `solve` gives it. */
function productOnHost(): Float32Array {
  const [a, b] = [values(M * K, 1), values(N * K, 2)];
  const c = new Float32Array(M * N);
  for (let at = 0; at < c.length; at++) {
    const [m, n] = [Math.floor(at / N), at % N];
    for (let k = 0; k < K; k++) c[at]! += a[m * K + k]! * b[n * K + k]!;
  }
  return c;
}

/** What is wrong with the first result that is; null where all are right. */
function differenceOf(all: readonly Problem[], found: Float32Array[][], wanted: Float32Array[][]): string | null {
  for (const [i, { name, bound }] of all.entries()) {
    for (const [k, exact] of wanted[i]!.entries()) {
      const what = `${k === 0 ? "" : `gradient ${k} of `}${name}`;
      const got = found[i]![k]!;
      const wrong = exact.filter((v, at) => got[at] !== v).length;
      if (bound === 0 && wrong > 0) return `${wrong} of ${exact.length} values of ${what} are wrong`;
      let [error, size] = [0, 0];
      exact.forEach((v, at) => {
        error += (got[at]! - v) ** 2;
        size += v ** 2;
      });
      if (!(error <= bound ** 2 * size))
        return `${what} is off by ${Math.sqrt(error / size).toPrecision(2)} of its size`;
    }
  }
  return null;
}

/** Kernels on matrices of one size; the least tile of all compiles fastest and has every part of the others. */
function onMatrices(variants: readonly MatrixVariant[], size: MatrixSize): Partial<Target> {
  const { name } = variants.filter((v) => v.size === size && /_\d+x\d+$/.test(v.name)).at(-1)!;
  const isOwn = (other: string) => other.startsWith(`matrix_${size.m}x${size.n}x${size.k}_`);
  return {
    matrices: "all",
    // Attention has forms of its own, and none where its columns are not whole matrices.
    choose: (_family, _key, names) => (names.includes(name) ? name : (names.find(isOwn) ?? "plain")),
  };
}

/**
 * Tries every size of f16 matrices with f32 sums and takes those that fail out of the adapter's facts.
 * @returns what was taken out
 */
export async function dropFaultyMatrices(gpu: Gpu): Promise<MatrixFault[]> {
  const variants = matrixVariants(targetOf(gpu).kernels);
  const sizes = [...new Set(variants.map(({ size }) => size))];
  if (sizes.length === 0) return [];
  const all = problems(gpu.facts.software);
  const [plain, solved] = await Promise.all([
    solve(gpu, { matrices: "off" }, all.slice(1)),
    Promise.all(sizes.map((size) => solve(gpu, onMatrices(variants, size), all).catch((error: Error) => error))),
  ]);
  const exact = [[productOnHost()], ...plain];
  const found = sizes.flatMap((size, i): MatrixFault[] => {
    const results = solved[i]!;
    const why = results instanceof Error ? results.message : differenceOf(all, results, exact);
    return why === null ? [] : [{ size, why }];
  });
  const isSound = ({ component, result, m, n, k }: AdapterFacts["subgroupMatrices"][number]) =>
    component !== "f16" || result !== "f32" || !found.some(({ size }) => size.m === m && size.n === n && size.k === k);
  gpu.facts.subgroupMatrices = gpu.facts.subgroupMatrices.filter(isSound);
  return found;
}
