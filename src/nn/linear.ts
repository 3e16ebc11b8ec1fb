// Linear layer y = x Wᵀ + b with a slot for an adapter (src/nn/adapters): whatever kind it is, it gets the layer's input
// and output and returns the changed output, so that a model traces the same way with and without one.

import { matmul } from "../ops/matmul.ts";
import { add } from "../ops/pointwise.ts";
import { decodeMatrix, storedLinear } from "../ops/quantized.ts";
import { concat } from "../ops/slab.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import { Variable } from "../tensor/variable.ts";
import type { Declaration, Parameters } from "./parameters.ts";
import { SplitMatrix } from "./split_matrix.ts";

/** What hangs on a Linear layer and changes what it gives. */
export interface LinearAdapter {
  /**
   * The layer's output with the adapter.
   * @param x input [..., in]
   * @param y output without the adapter, x Wᵀ + b, [..., out]
   */
  apply(graph: Graph, linear: Linear, x: Tensor, y: Tensor): Tensor;
}

export class Linear {
  /** A variable [out, in], codes that products decode, or parts of these by rows. */
  readonly weight: Declaration;
  readonly bias: Variable | null;
  readonly inputs: number;
  readonly outputs: number;
  adapter: LinearAdapter | null = null;

  constructor(
    parameters: Parameters,
    inputs: number,
    outputs: number,
    options: { bias?: boolean; names?: [string, string] } = {},
  ) {
    const [weight, bias] = options.names ?? ["weight", "bias"];
    this.inputs = inputs;
    this.outputs = outputs;
    this.weight = parameters.matrix(weight, [outputs, inputs]);
    this.bias = options.bias === false ? null : parameters.tensor(bias, [outputs]);
    // A layer with tensor names of its own shares its place with other tensors: it is no module that a LoRA could name.
    if (!options.names) parameters.register(this);
  }

  /** The weight [out, in] as a tensor that operations read; a stored one is decoded and has no gradient. */
  weightTensor(graph: Graph): Tensor {
    return asTensor(graph, this.weight);
  }

  /** The product with the weight alone: x [..., in] -> x Wᵀ [..., out], without bias and adapter. */
  project(graph: Graph, x: Tensor): Tensor {
    return product(graph, x, this.weight);
  }

  /** x [..., in] -> [..., out]. */
  forward(graph: Graph, x: Tensor): Tensor {
    const product = this.project(graph, x);
    const y = this.bias ? add(product, graph.read(this.bias)) : product;
    return this.adapter ? this.adapter.apply(graph, this, x, y) : y;
  }
}

/** A split matrix becomes one value again, which must fit a binding. */
function asTensor(graph: Graph, weight: Declaration): Tensor {
  if (weight instanceof SplitMatrix) {
    return concat(
      weight.parts.map((part) => asTensor(graph, part)),
      0,
    );
  }
  return weight instanceof Variable ? graph.read(weight) : decodeMatrix(graph, weight);
}

/** x Wᵀ; the parts of a split matrix make stretches of the columns, and their shares of dL/dx add up. */
function product(graph: Graph, x: Tensor, weight: Declaration): Tensor {
  if (weight instanceof SplitMatrix) {
    return concat(
      weight.parts.map((part) => product(graph, x, part)),
      -1,
    );
  }
  return weight instanceof Variable ? matmul(x, graph.read(weight), { transposeB: true }) : storedLinear(x, weight);
}
