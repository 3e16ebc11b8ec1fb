// Frozen weights in a compact storage (src/base/quantize.ts): a decoder into the arena, and a product y = x Wᵀ that keeps
// the decoded weight for the time of one kernel call. Its gradient decodes the weight again, so between the forward and
// the backward pass only the codes exist (the recomputation of QLoRA, Dettmers et al. 2023). There is a gradient of the
// input alone: stored weights are never trained.

import dequantizeSource from "../../shaders/dequantize.wgsl" with { type: "text" };
import { CODES_PER_WORD, type CompactStorage, hasScales, scaleCount, wordCount } from "../base/quantize.ts";
import { apply1, type Graph, type Operation, type Tensor } from "../tensor/graph.ts";
import { type Lowering, laneGrid, type Slot, type Target } from "../tensor/lower.ts";
import { showShape } from "../tensor/shape.ts";
import type { Variable } from "../tensor/variable.ts";
import { lowerProduct, type MatmulOperand } from "./matmul.ts";
import { decodeConstants, decodeText } from "./operand.ts";
import { reshape } from "./reshape.ts";

/** A matrix [out, in] on the device as codes. */
export interface StoredMatrix {
  readonly name: string;
  readonly storage: CompactStorage;
  readonly shape: readonly [number, number];
  /** u32 [words] */
  readonly codes: Variable;
  /** f32 [blocks of 64], for int8 and nf4. */
  readonly scales: Variable | null;
  /** What products read: f16 where the adapter has shader-f16 and it is asked for, else f32. */
  readonly decoded: Decoded;
}

/** Element type of a decoded weight. f16 rounds once more, to half the bytes; sums are f32 either way. */
export type Decoded = "f32" | "f16";

interface StoredAttributes {
  storage: CompactStorage;
  /** [out, in] */
  shape: readonly [number, number];
  decoded: Decoded;
  /** True for x Wᵀ, false for the gradient's dy W. */
  transposeB?: boolean;
}

/** Leaves of a stored matrix, in the order that the operations take. */
function leaves(graph: Graph, { name, storage, codes, scales }: StoredMatrix): Tensor[] {
  // Its codes are no numbers that a step could be added to.
  if (codes.gradient) throw new Error(`${name} is stored as ${storage} and cannot be trained; load it as f32`);
  return [graph.read(codes), ...(scales ? [graph.read(scales)] : [])];
}

/** A plain Error where the parts are not those of a matrix in this storage. */
function checkParts(parts: readonly { shape: readonly number[]; dtype: string }[], attributes: StoredAttributes): void {
  const { storage, shape } = attributes;
  const count = shape[0] * shape[1];
  const wanted = [`u32[${wordCount(storage, count)}]`, ...(hasScales(storage) ? [`f32[${scaleCount(count)}]`] : [])];
  const given = parts.map((part) => `${part.dtype}${showShape(part.shape)}`);
  if (given.join() !== wanted.join())
    throw new Error(`${storage} weights ${showShape(shape)} are ${wanted.join(" and ")}, not ${given.join(" and ")}`);
}

/** Calls the decoder; `out` has as many elements as the matrix. */
function lowerDecoder(lowering: Lowering, parts: readonly Slot[], out: Slot, attributes: StoredAttributes): void {
  const { storage, decoded } = attributes;
  const { target } = lowering;
  const count = attributes.shape[0] * attributes.shape[1];
  const QUADS = !target.software && count % 4 === 0;
  const { grid, lanes } = laneGrid(QUADS ? count / 4 : count, target);
  lowering.call({
    label: `decode ${storage}`,
    source: dequantizeSource,
    constants: {
      ...decodeConstants(storage),
      DECODE: decodeText(storage),
      OUT: decoded,
      PLACE: QUADS ? `vec4<${decoded}>` : decoded,
      QUADS,
      PAIRS: CODES_PER_WORD[storage] === 2,
      ...lanes,
    },
    inputs: [...parts],
    outputs: [out],
    params: [count, grid[0]],
    grid,
  });
}

const decodeOperation: Operation = {
  name: "decode",
  infer(parts, attributes) {
    const own = attributes as unknown as StoredAttributes;
    checkParts(parts, own);
    return [{ shape: own.shape, dtype: own.decoded }];
  },
  lower(lowering, node) {
    const parts = node.inputs.map((part) => lowering.slot(part));
    lowerDecoder(lowering, parts, lowering.slot(node.outputs[0]!), node.attributes as unknown as StoredAttributes);
  },
  gradient: (node) => node.inputs.map(() => null),
};

/** The whole matrix [out, in] as numbers, without a gradient: it lives from here to its last reader. */
export function decodeMatrix(graph: Graph, matrix: StoredMatrix, decoded: Decoded = "f32"): Tensor {
  const { storage, shape } = matrix;
  return graph.apply(decodeOperation, leaves(graph, matrix), { storage, shape, decoded })[0]!;
}

/**
 * On a CPU adapter a product reads halves one lane at a time, at two thirds of the speed of f32; from this number of rows
 * on, decoding first is the smaller cost.
 */
const DECODE_FIRST_ROWS = 32;

/** Whether a product with so many rows takes the stored halves themselves as its f16 operand. */
function readsHalves(target: Target, storage: CompactStorage, rows: number): boolean {
  return storage === "f16" && target.f16 && !(target.software && rows >= DECODE_FIRST_ROWS);
}

/** Inputs x [1, M, in] (or dy [1, M, out]), codes, scales. */
const storedProductOperation: Operation = {
  name: "stored product",
  takesEpilogue: true,
  infer([x, ...parts], attributes) {
    const own = attributes as unknown as StoredAttributes;
    checkParts(parts, own);
    const [outputs, inputs] = own.shape;
    const [K, N] = own.transposeB ? [inputs, outputs] : [outputs, inputs];
    if (x!.shape[2] !== K) throw new Error(`${showShape(x!.shape)} has rows of another length than ${K}`);
    return [{ shape: [1, x!.shape[1]!, N], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [x, codes] = node.inputs as [Tensor, Tensor];
    const { storage, shape, decoded, transposeB } = node.attributes as unknown as StoredAttributes;
    const { target } = lowering;
    const type = decoded === "f16" && target.f16 ? "f16" : "f32";
    const factor = { slot: lowering.slot(x), shape: x.shape, dtype: x.dtype };
    // Operands of an epilogue follow the parts of the weight.
    const parts = node.inputs.slice(1, hasScales(storage) ? 3 : 2).map((part) => lowering.slot(part));
    const weight: MatmulOperand = { slot: lowering.slot(codes), shape: [1, ...shape], dtype: "f16" };
    if (!readsHalves(target, storage, x.dim(1))) {
      weight.dtype = type;
      weight.stored = {
        storage,
        scales: parts[1] ?? null,
        decode() {
          const slot = lowering.scratch(shape[0] * shape[1], type);
          lowerDecoder(lowering, parts, slot, { storage, shape, decoded: type });
          return slot;
        },
      };
    }
    lowerProduct(lowering, node, [factor, weight], { transposeB });
  },
  gradient(node, [dy], needs) {
    const [, ...parts] = node.inputs as [Tensor, ...Tensor[]];
    const attributes = { ...node.attributes, transposeB: !node.attributes["transposeB"] };
    const dx = needs[0] ? apply1(storedProductOperation, [dy!, ...parts], attributes) : null;
    return [dx, ...parts.map(() => null)];
  },
};

/** y = x Wᵀ with a stored W: x [..., in] -> [..., out]. Equal to the product with the decoded weight. */
export function storedLinear(x: Tensor, matrix: StoredMatrix): Tensor {
  const { storage, shape, decoded } = matrix;
  const [outputs, inputs] = shape;
  if (x.dim(-1) !== inputs) throw new Error(`x ${showShape(x.shape)} does not fit ${matrix.name} ${showShape(shape)}`);
  const flat = reshape(x, [1, x.size / inputs, inputs]);
  const parts = leaves(x.graph, matrix);
  const y = apply1(storedProductOperation, [flat, ...parts], { storage, shape, decoded, transposeB: true });
  return reshape(y, [...x.shape.slice(0, -1), outputs]);
}
