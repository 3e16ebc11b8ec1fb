// The encoder of T5 v1.1 (Raffel et al. 2019; Shazeer 2020): RMS norms, no biases, gated GELU, relative position bias from
// 32 buckets that block 0 owns and all blocks share, and no 1/sqrt(d) on the scores.

import { Linear } from "../../nn/linear.ts";
import { RmsNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { embedding } from "../../ops/embedding.ts";
import { permute } from "../../ops/permute.ts";
import { add, geluTanh, mul } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Variable } from "../../tensor/variable.ts";

export interface T5Config {
  rows: number;
  width: number;
  headSize: number;
  heads: number;
  layers: number;
  inner: number;
  buckets: number;
  eps: number;
}

export function t5Config(json: Record<string, unknown>, rows?: number): T5Config {
  const n = (key: string, fallback: number): number => (json[key] as number | undefined) ?? fallback;
  return {
    rows: rows ?? n("vocab_size", 32128),
    width: n("d_model", 4096),
    headSize: n("d_kv", 64),
    heads: n("num_heads", 64),
    layers: n("num_layers", 24),
    inner: n("d_ff", 10240),
    buckets: n("relative_attention_num_buckets", 32),
    eps: n("layer_norm_epsilon", 1e-6),
  };
}

/** First distance of the buckets 9 to 15 of one side; nearer ones have a bucket each (8 covers 8..11). */
const BUCKET_STARTS = [12, 16, 23, 32, 46, 64, 91];

/** Bucket of key - query, 0..31: the upper half is for keys to the right. */
export function relativeBucket(relative: number): number {
  const distance = Math.abs(relative);
  const side = relative > 0 ? 16 : 0;
  if (distance < 8) return side + distance;
  return side + 8 + BUCKET_STARTS.filter((start) => distance >= start).length;
}

/** Bucket numbers [L, L] for the bias lookup. */
export function bucketTable(length: number): Uint32Array {
  const out = new Uint32Array(length * length);
  for (let q = 0; q < length; q++) for (let k = 0; k < length; k++) out[q * length + k] = relativeBucket(k - q);
  return out;
}

class T5Block {
  private readonly norms: [RmsNorm, RmsNorm];
  private readonly projections: Linear[];
  private readonly out: Linear;
  private readonly gate: Linear;
  private readonly up: Linear;
  private readonly down: Linear;
  private readonly heads: number;

  constructor(parameters: Parameters, config: T5Config) {
    const { width, heads, headSize, inner, eps } = config;
    this.heads = heads;
    const attn = parameters.at("layer.0");
    const mlp = parameters.at("layer.1");
    const bare = { bias: false };
    this.norms = [new RmsNorm(attn.at("layer_norm"), width, eps), new RmsNorm(mlp.at("layer_norm"), width, eps)];
    this.projections = ["q", "k", "v"].map(
      (name) => new Linear(attn.at("SelfAttention").at(name), width, heads * headSize, bare),
    );
    this.out = new Linear(attn.at("SelfAttention.o"), heads * headSize, width, bare);
    this.gate = new Linear(mlp.at("DenseReluDense.wi_0"), width, inner, bare);
    this.up = new Linear(mlp.at("DenseReluDense.wi_1"), width, inner, bare);
    this.down = new Linear(mlp.at("DenseReluDense.wo"), inner, width, bare);
  }

  forward(graph: Graph, x: Tensor, bias: Tensor): Tensor {
    const normed = this.norms[0].forward(graph, x);
    const [q, k, v] = this.projections.map((layer) => layer.forward(graph, normed)) as [Tensor, Tensor, Tensor];
    const attended = attention(q, k, v, { heads: this.heads, scale: 1, bias });
    const y = add(this.out.forward(graph, attended), x);
    const inner = this.norms[1].forward(graph, y);
    return add(
      this.down.forward(graph, mul(geluTanh(this.gate.forward(graph, inner)), this.up.forward(graph, inner))),
      y,
    );
  }
}

export class T5Encoder {
  readonly config: T5Config;
  readonly parameters: Parameters;
  private readonly table: Variable | null;
  private readonly biasTable: Variable;
  private readonly blocks: T5Block[];
  private readonly norm: RmsNorm;

  /** @param tableElsewhere declares no token table; embeddings are then what `forward` takes */
  constructor(parameters: Parameters, config: T5Config, tableElsewhere = false) {
    this.config = config;
    this.parameters = parameters;
    this.table = tableElsewhere ? null : parameters.tensor("shared.weight", [config.rows, config.width]);
    const blocks = parameters.at("encoder.block");
    this.biasTable = blocks
      .at("0.layer.0.SelfAttention")
      .tensor("relative_attention_bias.weight", [config.buckets, config.heads]);
    this.blocks = Array.from({ length: config.layers }, (_, i) => new T5Block(blocks.at(i), config));
    this.norm = new RmsNorm(parameters.at("encoder.final_layer_norm"), config.width, config.eps);
  }

  /**
   * tokens: rows of the table u32 [B, L] or, where it is elsewhere, embeddings [B, L, D]; buckets u32 [L, L]
   * (bucketTable) -> states [B, L, D].
   * @param mask added to the scores [1, 1, L]: 0 for tokens, a large negative number for padding; FLUX uses none
   */
  forward(graph: Graph, tokens: Tensor, buckets: Tensor, mask?: Tensor): Tensor {
    const length = tokens.dim(1);
    const looked = embedding(graph.read(this.biasTable), reshape(buckets, [1, length * length]));
    let bias = permute(reshape(looked, [length, length, this.config.heads]), [2, 0, 1]);
    if (mask) bias = add(bias, mask);
    let x = this.table ? embedding(graph.read(this.table), tokens) : tokens;
    for (const block of this.blocks) x = block.forward(graph, x, bias);
    return this.norm.forward(graph, x);
  }
}
