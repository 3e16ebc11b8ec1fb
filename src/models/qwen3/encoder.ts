// Qwen3 (Qwen team 2025) as a text encoder: a decoder-only transformer with RMS norms, normalised queries and keys, key heads
// that several query heads share (Ainslie et al. 2023, "GQA"), gated feed-forward layers and rotary positions. FLUX.2 klein reads
// what stands between its layers, so the layers behind the last one that is read are not declared at all.

import { Linear } from "../../nn/linear.ts";
import { RmsNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { embedding } from "../../ops/embedding.ts";
import { permute } from "../../ops/permute.ts";
import { add, expand, mul, silu } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { rope } from "../../ops/rope.ts";
import { concat, slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { Qwen3Config } from "./config.ts";

const BARE = { bias: false };
const f = Math.fround;

/** What is added to the scores of a padding token's key: exp of it is zero. */
export const HIDDEN_SCORE = -1e9;

/**
 * Rotary tables [length, headSize / 2] of the positions 0, 1, ...; the frequencies 1 / theta^(2i / headSize) and the angles are
 * rounded to float32 as in the reference.
 */
export function qwen3Rotary(
  length: number,
  config: Pick<Qwen3Config, "headSize" | "ropeTheta">,
): { cosine: Float32Array; sine: Float32Array } {
  const half = config.headSize / 2;
  const cosine = new Float32Array(length * half);
  const sine = new Float32Array(length * half);
  for (let i = 0; i < half; i++) {
    const frequency = f(1 / f(config.ropeTheta ** f((2 * i) / config.headSize)));
    for (let position = 0; position < length; position++) {
      const angle = f(position * frequency);
      cosine[position * half + i] = Math.cos(angle);
      sine[position * half + i] = Math.sin(angle);
    }
  }
  return { cosine, sine };
}

/** Scores [n, length] for `Qwen3Inputs.mask`: 0 for the first `counts[i]` tokens of a row, hidden behind them. */
export function paddingScores(counts: readonly number[], length: number): Float32Array {
  const out = new Float32Array(counts.length * length);
  counts.forEach((count, row) => out.fill(HIDDEN_SCORE, row * length + count, (row + 1) * length));
  return out;
}

export interface Qwen3Inputs {
  /** Rows of the table u32 [B, L] or, where it is elsewhere, embeddings [B, L, D]. */
  tokens: Tensor;
  /** Added to the scores of keys, [B, L] (paddingScores); absent where no text is padded. */
  mask?: Tensor;
  /** Rotary tables [L, headSize / 2] (qwen3Rotary). */
  cosine: Tensor;
  sine: Tensor;
}

interface Context {
  cosine: Tensor;
  sine: Tensor;
  /** Of each text of the batch [H, L, L]; null where nothing is hidden but what comes later. */
  biases: Tensor[] | null;
}

class Qwen3Block {
  private readonly norms: [RmsNorm, RmsNorm];
  private readonly projections: [Linear, Linear, Linear];
  private readonly headNorms: [RmsNorm, RmsNorm];
  private readonly out: Linear;
  private readonly gate: Linear;
  private readonly up: Linear;
  private readonly down: Linear;
  private readonly config: Qwen3Config;
  private readonly halves: boolean;

  constructor(parameters: Parameters, config: Qwen3Config) {
    const { width, heads, keyValueHeads, headSize, inner, eps } = config;
    this.config = config;
    this.halves = parameters.halves;
    const attn = parameters.at("self_attn");
    const mlp = parameters.at("mlp");
    this.norms = [
      new RmsNorm(parameters.at("input_layernorm"), width, eps),
      new RmsNorm(parameters.at("post_attention_layernorm"), width, eps),
    ];
    this.projections = [
      new Linear(attn.at("q_proj"), width, heads * headSize, BARE),
      new Linear(attn.at("k_proj"), width, keyValueHeads * headSize, BARE),
      new Linear(attn.at("v_proj"), width, keyValueHeads * headSize, BARE),
    ];
    this.headNorms = [new RmsNorm(attn.at("q_norm"), headSize, eps), new RmsNorm(attn.at("k_norm"), headSize, eps)];
    this.out = new Linear(attn.at("o_proj"), heads * headSize, width, BARE);
    this.gate = new Linear(mlp.at("gate_proj"), width, inner, BARE);
    this.up = new Linear(mlp.at("up_proj"), width, inner, BARE);
    this.down = new Linear(mlp.at("down_proj"), inner, width, BARE);
  }

  forward(graph: Graph, x: Tensor, context: Context): Tensor {
    const y = add(x, this.out.forward(graph, this.attend(graph, this.norms[0].forward(graph, x), context)));
    const normed = this.norms[1].forward(graph, y);
    const inner = mul(silu(this.gate.forward(graph, normed)), this.up.forward(graph, normed));
    return add(y, this.down.forward(graph, inner));
  }

  private attend(graph: Graph, normed: Tensor, { cosine, sine, biases }: Context): Tensor {
    const { heads, keyValueHeads, headSize } = this.config;
    const [q, k, v] = this.projections.map((layer) => layer.forward(graph, normed)) as [Tensor, Tensor, Tensor];
    const turned = (t: Tensor, norm: RmsNorm, count: number) =>
      rope(this.pairHalves(norm.forward(graph, t), count), cosine, sine, count);
    const queries = turned(q, this.headNorms[0], heads);
    const keys = this.share(turned(k, this.headNorms[1], keyValueHeads));
    const values = this.share(v);
    const options = { heads, scale: 1 / Math.sqrt(headSize), causal: true, halves: this.halves };
    if (!biases) return attention(queries, keys, values, options);
    // A bias belongs to all of a batch, and texts are padded differently: one after the other.
    const own = (t: Tensor, i: number) => slice(t, 0, i, 1);
    return concat(
      biases.map((bias, i) => attention(own(queries, i), own(keys, i), own(values, i), { ...options, bias })),
      0,
    );
  }

  /**
   * Qwen turns channel i of a head with channel i + headSize / 2, the kernel neighbours. Queries and keys are reordered alike,
   * which leaves their products as they are.
   */
  private pairHalves(x: Tensor, heads: number): Tensor {
    const [b, l] = x.shape as [number, number];
    return reshape(permute(reshape(x, [b, l, heads, 2, this.config.headSize / 2]), [0, 1, 2, 4, 3]), x.shape);
  }

  /** Keys or values [B, L, keyValueHeads * hd] for every query head, [B, L, heads * hd]: neighbours share. */
  private share(x: Tensor): Tensor {
    const { heads, keyValueHeads, headSize } = this.config;
    if (heads === keyValueHeads) return x;
    const [b, l] = x.shape as [number, number];
    const wide = expand(reshape(x, [b * l * keyValueHeads, 1, headSize]), [
      b * l * keyValueHeads,
      heads / keyValueHeads,
      headSize,
    ]);
    return reshape(wide, [b, l, heads * headSize]);
  }
}

export interface Qwen3Options {
  /** Layers whose outputs are read, counted from 1, in the order in which they are put side by side. */
  layers: readonly number[];
  /** Declares no token table; embeddings are then what `forward` takes. */
  tableElsewhere?: boolean;
}

export class Qwen3Encoder {
  readonly config: Qwen3Config;
  readonly parameters: Parameters;
  private readonly layers: readonly number[];
  private readonly table: Variable | null;
  private readonly blocks: Qwen3Block[];
  private readonly norm: RmsNorm | null;

  /** Declares names as Qwen3ForCausalLM's files have them ("model.layers.0. ..."); see `qwen3Name` for others. */
  constructor(parameters: Parameters, config: Qwen3Config, options: Qwen3Options) {
    const { layers } = options;
    const last = Math.max(...layers);
    if (layers.length === 0 || layers.some((n) => !Number.isInteger(n) || n < 1 || n > config.layers)) {
      throw new RangeError(`layers [${layers}] are not among 1 ... ${config.layers}`);
    }
    this.config = config;
    this.parameters = parameters;
    this.layers = layers;
    const model = parameters.at("model");
    this.table = options.tableElsewhere ? null : model.tensor("embed_tokens.weight", [config.rows, config.width]);
    this.blocks = Array.from({ length: last }, (_, i) => new Qwen3Block(model.at("layers").at(i), config));
    // Where the last layer is read, transformers gives what the final norm makes of it.
    this.norm = last === config.layers ? new RmsNorm(model.at("norm"), config.width, config.eps) : null;
  }

  /** Width of the states: the model's, once a layer that is read. */
  get outputWidth(): number {
    return this.layers.length * this.config.width;
  }

  /** States of the wanted layers side by side, [B, L, outputWidth]; those of padding are states too. */
  forward(graph: Graph, inputs: Qwen3Inputs): Tensor {
    const { tokens, mask } = inputs;
    const [batch, length] = tokens.shape as [number, number];
    const full = [this.config.heads, length, length];
    const biases = mask
      ? Array.from({ length: batch }, (_, i) => expand(reshape(slice(mask, 0, i, 1), [1, 1, length]), full))
      : null;
    const context = { cosine: inputs.cosine, sine: inputs.sine, biases };
    let x = this.table ? embedding(graph.read(this.table), tokens) : tokens;
    const states = new Map<number, Tensor>();
    this.blocks.forEach((block, i) => {
      x = graph.scope(`layers.${i}`, () => block.forward(graph, x, context));
      states.set(i + 1, i + 1 === this.config.layers && this.norm ? this.norm.forward(graph, x) : x);
    });
    return concat(
      this.layers.map((layer) => states.get(layer)!),
      2,
    );
  }
}

/**
 * Names in a file that holds the bare model (Qwen3Model) in place of the language model around it.
 * @param has whether the file has a tensor of that name
 */
export function qwen3Name(has: (name: string) => boolean): (name: string) => string {
  const bare = !has("model.embed_tokens.weight") && has("embed_tokens.weight");
  return (name) => (bare ? name.replace(/^model\./, "") : name);
}
