// CLIP text towers: transformers' CLIPTextModel (FLUX's pooled vector) and the text half of an open_clip model (rewards).
// Tables may be compact: they hold only the rows in use, and ids are mapped to rows before they come here.

import { LayerNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { embedding } from "../../ops/embedding.ts";
import { gatherRows } from "../../ops/gather_rows.ts";
import { matmul } from "../../ops/matmul.ts";
import { add } from "../../ops/pointwise.ts";
import { slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Variable } from "../../tensor/variable.ts";
import { CLIP_EPS, ClipBlock } from "./blocks.ts";

export interface ClipTextConfig {
  /** Rows of the token table. */
  rows: number;
  positions: number;
  width: number;
  heads: number;
  layers: number;
  inner: number;
  activation: string;
}

/** transformers' CLIPTextModel. */
export class ClipTextModel {
  readonly parameters: Parameters;
  readonly config: ClipTextConfig;
  private readonly table: Variable | null;
  private readonly positions: Variable;
  private readonly blocks: ClipBlock[];
  private readonly norm: LayerNorm;

  /** @param tableElsewhere declares no token table; embeddings are then what `forward` takes */
  constructor(parameters: Parameters, config: ClipTextConfig, tableElsewhere = false) {
    this.parameters = parameters;
    this.config = config;
    const model = parameters.at("text_model");
    this.table = tableElsewhere ? null : model.tensor("embeddings.token_embedding.weight", [config.rows, config.width]);
    this.positions = model.tensor("embeddings.position_embedding.weight", [config.positions, config.width]);
    this.blocks = Array.from(
      { length: config.layers },
      (_, i) => new ClipBlock(model.at("encoder.layers").at(i), { ...config, causal: true, layout: "transformers" }),
    );
    this.norm = new LayerNorm(model.at("final_layer_norm"), config.width, CLIP_EPS);
  }

  /**
   * tokens: rows of the table u32 [B, L] or, where it is elsewhere, embeddings [B, L, D]; end u32 [B] = position of the
   * end token -> states [B, L, D] and pooled [B, D].
   */
  forward(graph: Graph, tokens: Tensor, end: Tensor): { states: Tensor; pooled: Tensor } {
    const positions = slice(graph.read(this.positions), 0, 0, tokens.dim(1));
    let x = add(this.table ? embedding(graph.read(this.table), tokens) : tokens, positions);
    for (const block of this.blocks) x = block.forward(graph, x);
    const states = this.norm.forward(graph, x);
    return { states, pooled: gatherRows(states, end) };
  }
}

export interface OpenClipTextConfig extends ClipTextConfig {
  embed: number;
}

/** The text half of an open_clip model. */
export class OpenClipText {
  private readonly table: Variable | null;
  private readonly positions: Variable;
  private readonly blocks: ClipBlock[];
  private readonly norm: LayerNorm;
  private readonly projection: Variable;

  /** @param tableElsewhere declares no token table; embeddings are then what `forward` takes */
  constructor(parameters: Parameters, config: OpenClipTextConfig, tableElsewhere = false) {
    this.table = tableElsewhere ? null : parameters.tensor("token_embedding.weight", [config.rows, config.width]);
    this.positions = parameters.tensor("positional_embedding", [config.positions, config.width]);
    this.blocks = Array.from(
      { length: config.layers },
      (_, i) =>
        new ClipBlock(parameters.at("transformer.resblocks").at(i), { ...config, causal: true, layout: "open_clip" }),
    );
    this.norm = new LayerNorm(parameters.at("ln_final"), config.width, CLIP_EPS);
    this.projection = parameters.tensor("text_projection", [config.width, config.embed]);
  }

  /** tokens: rows u32 [B, L] or embeddings [B, L, D]; end u32 [B] -> features [B, E], not normalised. */
  forward(graph: Graph, tokens: Tensor, end: Tensor): Tensor {
    const positions = slice(graph.read(this.positions), 0, 0, tokens.dim(1));
    let x = add(this.table ? embedding(graph.read(this.table), tokens) : tokens, positions);
    for (const block of this.blocks) x = block.forward(graph, x);
    // The norm acts on each token by itself: pick the end token first.
    return matmul(this.norm.forward(graph, gatherRows(x, end)), graph.read(this.projection));
  }
}
