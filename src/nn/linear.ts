// Linear layer y = x Wᵀ + b with a slot for a low-rank adapter: y += s · (x Aᵀ) Bᵀ (Hu et al. 2021). The strength s is a
// scalar on the device, so a sample with another LoRA strength replays the same plan.

import { linear, matmul } from "../ops/matmul.ts";
import { add, mul } from "../ops/pointwise.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Variable } from "../tensor/variable.ts";
import type { Parameters } from "./parameters.ts";

export interface LowRank {
  /** [rank, in] */
  down: Variable;
  /** [out, rank] */
  up: Variable;
  /** [1]: alpha / rank times the strength. */
  scale: Variable;
}

export class Linear {
  readonly weight: Variable;
  readonly bias: Variable | null;
  readonly inputs: number;
  readonly outputs: number;
  adapter: LowRank | null = null;

  constructor(
    parameters: Parameters,
    inputs: number,
    outputs: number,
    options: { bias?: boolean; names?: [string, string] } = {},
  ) {
    const [weight, bias] = options.names ?? ["weight", "bias"];
    this.inputs = inputs;
    this.outputs = outputs;
    this.weight = parameters.tensor(weight, [outputs, inputs]);
    this.bias = options.bias === false ? null : parameters.tensor(bias, [outputs]);
    // A layer with tensor names of its own shares its place with other tensors: it is no module that a LoRA could name.
    if (!options.names) parameters.register(this);
  }

  /** x [..., in] -> [..., out]. */
  forward(graph: Graph, x: Tensor): Tensor {
    let y = linear(x, graph.read(this.weight), this.bias ? graph.read(this.bias) : undefined);
    if (this.adapter) {
      const low = matmul(x, graph.read(this.adapter.down), { transposeB: true });
      const update = matmul(low, graph.read(this.adapter.up), { transposeB: true });
      y = add(y, mul(update, graph.read(this.adapter.scale)));
    }
    return y;
  }
}
