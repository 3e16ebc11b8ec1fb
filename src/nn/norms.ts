// Norm layers with their parameters under the names that PyTorch modules use.

import { rotatedHeads } from "../ops/heads.ts";
import { groupNorm, layerNorm, rmsNorm } from "../ops/norm.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Variable } from "../tensor/variable.ts";
import type { Parameters } from "./parameters.ts";

export class LayerNorm {
  private readonly weight: Variable;
  private readonly bias: Variable;
  private readonly eps: number;

  constructor(parameters: Parameters, width: number, eps: number) {
    this.weight = parameters.tensor("weight", [width]);
    this.bias = parameters.tensor("bias", [width]);
    this.eps = eps;
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return layerNorm(x, this.eps, graph.read(this.weight), graph.read(this.bias));
  }
}

/** RMSNorm over the last `width` channels; a smaller width than the tensor's normalises each head by itself. */
export class RmsNorm {
  private readonly weight: Variable;
  private readonly eps: number;

  constructor(parameters: Parameters, width: number, eps: number) {
    this.weight = parameters.tensor("weight", [width]);
    this.eps = eps;
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return rmsNorm(x, this.eps, graph.read(this.weight));
  }

  /** Heads of queries or keys of one or two streams, each normalised by its own norm, rotated into the joint sequence. */
  static rotated(
    graph: Graph,
    streams: readonly { norm: RmsNorm; x: Tensor }[],
    { cosine, sine }: { cosine: Tensor; sine: Tensor },
    heads: number,
  ): Tensor {
    const parts = streams.map(({ norm, x }) => ({ x, gain: graph.read(norm.weight) }));
    return rotatedHeads(parts, cosine, sine, { heads, eps: streams[0]!.norm.eps });
  }
}

export class GroupNorm {
  private readonly weight: Variable;
  private readonly bias: Variable;
  private readonly groups: number;
  private readonly eps: number;

  constructor(parameters: Parameters, groups: number, channels: number, eps: number) {
    this.weight = parameters.tensor("weight", [channels]);
    this.bias = parameters.tensor("bias", [channels]);
    this.groups = groups;
    this.eps = eps;
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return groupNorm(x, this.groups, this.eps, graph.read(this.weight), graph.read(this.bias));
  }
}
