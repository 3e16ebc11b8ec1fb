// Reordering of up to six dimensions.

import division from "../../shaders/lib/division.wgsl" with { type: "text" };
import source from "../../shaders/permute.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { f32Bits, laneGrid } from "../tensor/lower.ts";
import type { Shape } from "../tensor/shape.ts";
import { reshape } from "./reshape.ts";

/** Up to this many items a quotient is one multiplication (shaders/lib/division.wgsl). */
const SMALL = 2 ** 22;

/** A dimension of the output, and how far apart its places lie in x and in the output. */
interface Dimension {
  size: number;
  from: number;
  to: number;
}

interface Moves {
  /** Values of an item: four or two where the last dimension stays the last, or in blocks. */
  item: 1 | 2 | 4;
  /** Neighbouring items that move together, as one step of the innermost dimension. */
  run: number;
  /** Whether four vectors of x along one dimension become four of the output along another. */
  block: boolean;
  /** Runs or blocks. */
  count: number;
  /** From the innermost outwards, sizes in runs or blocks, strides in items. */
  dims: Dimension[];
  /** How far apart the vectors of a block lie in x and in the output. */
  rows: number;
  columns: number;
}

/** How the values move, in the largest items that sizes and strides allow; at least two dimensions must change places. */
export function movesOf(shape: Shape, order: readonly number[]): Moves {
  const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
  const dims: Dimension[] = [];
  let to = 1;
  for (const d of [...order].reverse()) {
    const [size, from] = [shape[d]!, strides[d]!];
    if (size === 1) continue;
    const last = dims.at(-1);
    // Neighbours that stay neighbours are one dimension.
    if (last && from === last.from * last.size) last.size *= size;
    else dims.push({ size, from, to });
    to *= size;
  }
  const [first, ...outer] = dims as [Dimension, ...Dimension[]];
  const plain = { run: 1, block: false, rows: 0, columns: 0 };
  if (first.from === 1) {
    const item = ([4, 2] as const).find((n) => dims.every(({ size, from }, k) => (k ? from : size) % n === 0)) ?? 1;
    const run = [4, 3, 2].find((n) => (first.size / item) % n === 0) ?? 1;
    const inner = { size: first.size / item / run, from: run, to: run };
    const inItems = outer.map(({ size, from, to }) => ({ size, from: from / item, to: to / item }));
    return { ...plain, item, run, count: to / item / run, dims: counted([inner, ...inItems]) };
  }
  const last = dims.find(({ from }) => from === 1)!;
  if (first.size % 4 !== 0 || last.size % 4 !== 0) return { ...plain, item: 1, count: to, dims };
  // Strides of all other dimensions are multiples of the last size, in x and in the output.
  const blocks = dims.map(({ size, from, to }) =>
    from === 1 || to === 1 ? { size: size / 4, from, to } : { size, from: from / 4, to: to / 4 },
  );
  const apart = { rows: first.from / 4, columns: last.to / 4 };
  return { ...plain, item: 4, block: true, count: to / 16, dims: counted(blocks), ...apart };
}

/** Dimensions that are more than one place; one at least. */
function counted(dims: Dimension[]): Dimension[] {
  const many = dims.filter(({ size }) => size > 1);
  return many.length > 0 ? many : dims.slice(0, 1);
}

/** Whether every dimension is there once. */
function isOrder({ shape }: { shape: Shape }, order: readonly number[]): boolean {
  return order.length === shape.length && [...order].sort((a, b) => a - b).every((d, i) => d === i);
}

const permuteOperation: Operation = {
  name: "permute",
  infer([x], attributes) {
    const order = attributes["order"] as number[];
    if (!isOrder(x!, order) || order.length > 6) {
      throw new Error(`order [${order}] does not permute [${x!.shape}]`);
    }
    return [{ shape: order.map((d) => x!.shape[d]!), dtype: x!.dtype }];
  },
  lower(lowering, node) {
    const x = node.inputs[0]!;
    const { item, run, block, count, dims, rows, columns } = movesOf(x.shape, node.attributes["order"] as number[]);
    const { grid, lanes } = laneGrid(count, lowering.target, item * run > 2);
    const isSmall = count < SMALL;
    const outer = dims.at(-1)!;
    lowering.call({
      label: "permute",
      source,
      constants: {
        ITEM: item > 1 ? `vec${item}<${x.dtype}>` : x.dtype,
        RUN: run,
        BLOCK: block,
        INNER: dims.length - 1,
        SMALL: isSmall,
        DIVISION: isSmall ? division : "",
        ...lanes,
      },
      inputs: [lowering.slot(x)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [
        ...[count, grid[0], rows, columns, outer.from, outer.to],
        ...dims.slice(0, -1).flatMap(({ size, from, to }) => [size, f32Bits(1 / size), from, to]),
      ],
      grid,
    });
  },
  gradient(node, [dy]) {
    const order = node.attributes["order"] as number[];
    return [
      permute(
        dy!,
        order.map((_, i) => order.indexOf(i)),
      ),
    ];
  },
};

/** out[i_0, ...] has dimension k of the output equal to dimension order[k] of `x`. */
export function permute(x: Tensor, order: number[]): Tensor {
  // Dimensions of size 1 may move without any value doing so.
  const moving = order.filter((d) => x.shape[d] !== 1);
  if (isOrder(x, order) && moving.every((d, i) => i === 0 || d > moving[i - 1]!))
    return reshape(
      x,
      order.map((d) => x.shape[d]!),
    );
  return apply1(permuteOperation, [x], { order });
}

/** The last two dimensions swapped. */
export function transpose(x: Tensor): Tensor {
  const order = x.shape.map((_, i) => i);
  [order[x.rank - 1], order[x.rank - 2]] = [order[x.rank - 2]!, order[x.rank - 1]!];
  return permute(x, order);
}
