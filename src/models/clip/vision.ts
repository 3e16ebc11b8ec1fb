// The picture half of an open_clip ViT (HPSv2, and the embedded reward and judge): patches, class token, pre-norm blocks,
// projection. Pictures come in as normalised NCHW.

import { LayerNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { linear, matmul } from "../../ops/matmul.ts";
import { permute } from "../../ops/permute.ts";
import { add, expand } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { concat, slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Variable } from "../../tensor/variable.ts";
import { CLIP_EPS, ClipBlock } from "./blocks.ts";

export interface OpenClipVisionConfig {
  imageSize: number;
  patch: number;
  width: number;
  heads: number;
  layers: number;
  inner: number;
  embed: number;
  activation: string;
}

export class OpenClipVision {
  private readonly config: OpenClipVisionConfig;
  private readonly patches: Variable;
  private readonly classToken: Variable;
  private readonly positions: Variable;
  private readonly normPre: LayerNorm;
  private readonly blocks: ClipBlock[];
  private readonly normPost: LayerNorm;
  private readonly projection: Variable;

  /** `parameters` is the subtree `visual`. */
  constructor(parameters: Parameters, config: OpenClipVisionConfig) {
    this.config = config;
    const tokens = (config.imageSize / config.patch) ** 2 + 1;
    this.patches = parameters.tensor("conv1.weight", [config.width, 3, config.patch, config.patch]);
    this.classToken = parameters.tensor("class_embedding", [config.width]);
    this.positions = parameters.tensor("positional_embedding", [tokens, config.width]);
    this.normPre = new LayerNorm(parameters.at("ln_pre"), config.width, CLIP_EPS);
    this.blocks = Array.from(
      { length: config.layers },
      (_, i) =>
        new ClipBlock(parameters.at("transformer.resblocks").at(i), { ...config, causal: false, layout: "open_clip" }),
    );
    this.normPost = new LayerNorm(parameters.at("ln_post"), config.width, CLIP_EPS);
    this.projection = parameters.tensor("proj", [config.width, config.embed]);
  }

  /** Normalised pictures [B, 3, S, S] -> features [B, E], not normalised. */
  forward(graph: Graph, pictures: Tensor): Tensor {
    const { patch, imageSize, width } = this.config;
    const batch = pictures.dim(0);
    const side = imageSize / patch;
    // A convolution whose stride is its kernel size is a product of unfolded patches with the flattened weights.
    const unfolded = permute(reshape(pictures, [batch, 3, side, patch, side, patch]), [0, 2, 4, 1, 3, 5]);
    const tokens = linear(
      reshape(unfolded, [batch, side * side, 3 * patch * patch]),
      reshape(graph.read(this.patches), [width, 3 * patch * patch]),
    );
    const first = expand(reshape(graph.read(this.classToken), [1, 1, width]), [batch, 1, width]);
    let x = this.normPre.forward(graph, add(concat([first, tokens], 1), graph.read(this.positions)));
    for (const block of this.blocks) x = block.forward(graph, x);
    const pooled = this.normPost.forward(graph, reshape(slice(x, 1, 0, 1), [batch, width]));
    return matmul(pooled, graph.read(this.projection));
  }
}
