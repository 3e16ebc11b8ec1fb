// Pre-norm transformer blocks of CLIP (Radford et al. 2021) under the tensor names of open_clip (one fused projection) and
// of transformers (three).

import { Linear } from "../../nn/linear.ts";
import { LayerNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { ACTIVATIONS, add } from "../../ops/pointwise.ts";
import { split } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

export interface BlockConfig {
  width: number;
  heads: number;
  inner: number;
  activation: string;
  causal: boolean;
  layout: "open_clip" | "transformers";
}

export const CLIP_EPS = 1e-5;

export class ClipBlock {
  private readonly config: BlockConfig;
  private readonly halves: boolean;
  private readonly norms: [LayerNorm, LayerNorm];
  private readonly project: (graph: Graph, x: Tensor) => Tensor[];
  private readonly out: Linear;
  private readonly up: Linear;
  private readonly down: Linear;

  constructor(parameters: Parameters, config: BlockConfig) {
    const { width, inner } = config;
    this.config = config;
    this.halves = parameters.halves;
    const open = config.layout === "open_clip";
    const names = open
      ? { norms: ["ln_1", "ln_2"], attn: "attn", up: "mlp.c_fc", down: "mlp.c_proj" }
      : { norms: ["layer_norm1", "layer_norm2"], attn: "self_attn", up: "mlp.fc1", down: "mlp.fc2" };
    this.norms = names.norms.map((name) => new LayerNorm(parameters.at(name), width, CLIP_EPS)) as [
      LayerNorm,
      LayerNorm,
    ];
    const attn = parameters.at(names.attn);
    if (open) {
      const fused = new Linear(attn, width, 3 * width, { names: ["in_proj_weight", "in_proj_bias"] });
      this.project = (graph, x) => split(fused.forward(graph, x), 2, [width, width, width]);
    } else {
      const layers = ["q_proj", "k_proj", "v_proj"].map((name) => new Linear(attn.at(name), width, width));
      this.project = (graph, x) => layers.map((layer) => layer.forward(graph, x));
    }
    this.out = new Linear(attn.at("out_proj"), width, width);
    this.up = new Linear(parameters.at(names.up), width, inner);
    this.down = new Linear(parameters.at(names.down), inner, width);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    const { width, heads, causal, activation } = this.config;
    const [q, k, v] = this.project(graph, this.norms[0].forward(graph, x)) as [Tensor, Tensor, Tensor];
    const attended = attention(q, k, v, {
      heads,
      scale: 1 / Math.sqrt(width / heads),
      causal,
      halves: this.halves,
    });
    const y = add(this.out.forward(graph, attended), x);
    const activate = ACTIVATIONS[activation];
    if (!activate) throw new Error(`no activation ${activation}`);
    return add(this.down.forward(graph, activate(this.up.forward(graph, this.norms[1].forward(graph, y)))), y);
  }
}
