// Convolution on NCHW with weights OIHW.

import { conv2d, type Padding } from "../ops/conv2d.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Variable } from "../tensor/variable.ts";
import type { Parameters } from "./parameters.ts";

export class Conv2d {
  readonly weight: Variable;
  readonly bias: Variable | null;
  private readonly stride: number;
  private readonly padding: Padding;

  constructor(
    parameters: Parameters,
    inputs: number,
    outputs: number,
    kernel: number,
    options: { stride?: number; padding?: Padding; bias?: boolean } = {},
  ) {
    this.weight = parameters.tensor("weight", [outputs, inputs, kernel, kernel]);
    this.bias = options.bias === false ? null : parameters.tensor("bias", [outputs]);
    this.stride = options.stride ?? 1;
    const half = (kernel - 1) / 2;
    this.padding = options.padding ?? [half, half, half, half];
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return conv2d(x, graph.read(this.weight), {
      bias: this.bias ? graph.read(this.bias) : undefined,
      stride: this.stride,
      padding: this.padding,
    });
  }
}
