// Kernels whose time goes by their arithmetic, at sizes that fill the adapter: matrix products square and of FLUX's and a
// LoRA's shapes, attention, convolutions of an autoencoder, forward and backward.

import { attention } from "../../ops/attention.ts";
import { conv2d } from "../../ops/conv2d.ts";
import { matmul } from "../../ops/matmul.ts";
import type { DType } from "../../tensor/shape.ts";
import { isBackward, type Part, type Task, traced } from "./measure.ts";

/** FLUX's width and rank of a LoRA; 512 rows, as many as its text has. */
const [WIDTH, ROWS, RANK] = [3072, 512, 16];

const all = (name: string, flops?: number): Part[] => [
  { name, of: () => true, ...(flops === undefined ? {} : { flops }) },
];

function product(m: number, k: number, n: number, dtype: DType): Task {
  const name = `${m} x ${k} x ${n}${dtype === "f16" ? ", f16" : ""}`;
  const inputs = [
    [m, k],
    [n, k],
  ];
  // As a Linear layer has them: the weight is [out, in].
  return traced({ name, inputs, dtype, body: ([x, w]) => matmul(x!, w!, { transposeB: true }), parts: all(name) });
}

function attentionTask(batch: number, tokens: number, heads: number, head: number): Task {
  const shape = [batch, tokens, heads * head];
  const name = `${heads} heads of ${head}, ${tokens} tokens${batch > 1 ? ` x ${batch}` : ""}`;
  return traced({
    name,
    inputs: [shape, shape, shape],
    body: ([q, k, v]) => attention(q!, k!, v!, { heads }),
    gradients: [0, 1, 2],
    parts: [
      { name: `${name}, forward`, of: (call) => !isBackward(call) },
      { name: `${name}, backward`, of: isBackward },
    ],
  });
}

function convolution(batch: number, channels: number, side: number): Task[] {
  const shape = `3x3 ${channels} to ${channels}, ${side}x${side}${batch > 1 ? ` x ${batch}` : ""}`;
  const task = (what: string, gradients?: number[]) =>
    traced({
      name: `${shape}, ${what}`,
      inputs: [
        [batch, channels, side, side],
        [channels, channels, 3, 3],
      ],
      body: ([x, w]) => conv2d(x!, w!, { padding: [1, 1, 1, 1] }),
      ...(gradients ? { gradients } : {}),
      // Winograd's form multiplies less than the sum that it is.
      parts: all(`${shape}, ${what}`, 18 * batch * channels ** 2 * side ** 2),
    });
  return [task("forward"), task("input gradient", [0]), task("weight gradient", [1])];
}

export interface Section {
  title: string;
  tasks: Task[];
}

/**
 * The tasks for an adapter of this kind.
 * @param f16 whether it stores half floats
 */
export function arithmeticSections(software: boolean, f16: boolean): Section[] {
  const squares = software ? [256, 512, 1024] : [1024, 2048, 4096];
  const products = [
    ...squares.map((n): [number, number, number] => [n, n, n]),
    [ROWS, WIDTH, software ? WIDTH / 4 : WIDTH],
    [ROWS, WIDTH, RANK],
    [ROWS, RANK, WIDTH],
  ] as const;
  const widest = products[squares.length]!;
  // A software adapter gains nothing by halves: one product shows it.
  const halves = f16 ? (software ? [widest] : [products[squares.length - 1]!, widest]) : [];
  return [
    {
      title: "matrix products, m x k x n",
      tasks: [
        ...products.map(([m, k, n]) => product(m, k, n, "f32")),
        ...halves.map(([m, k, n]) => product(m, k, n, "f16")),
      ],
    },
    {
      title: "attention",
      tasks: software
        ? [attentionTask(4, 36, 4, 64), attentionTask(1, 256, 8, 128)]
        : [attentionTask(1, 4608, 24, 128)],
    },
    {
      title: "convolutions",
      tasks: software
        ? [...convolution(4, 64, 32), ...convolution(1, 256, 32)]
        : [...convolution(1, 512, 128), ...convolution(1, 256, 256)],
    },
  ];
}
