// The FLUX.2 transformer (Black Forest Labs 2025; tensor names of diffusers' Flux2Transformer2DModel). Other than FLUX.1 it has
// one modulation for all blocks of a kind, gated feed-forward layers (SwiGLU, Shazeer 2020), single blocks of two fused matrices
// (Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters"), no biases and no pooled text. Output: velocity
// v = noise - data in packed form.

import { Linear } from "../../nn/linear.ts";
import { RmsNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { modulatedLayerNorm } from "../../ops/norm.ts";
import { add, mul, silu } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { concat, slice, split } from "../../ops/slab.ts";
import { swiglu } from "../../ops/swiglu.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { SINUSOID_WIDTH } from "../flux/embeddings.ts";
import type { VelocityInputs, VelocityNetwork, VelocityOptions } from "../velocity_network.ts";
import type { Flux2Config } from "./config.ts";

const BARE = { bias: false };

interface Rotary {
  cosine: Tensor;
  sine: Tensor;
}

/** Shift, scale and gate, each [B, 1, D]. */
type Modulation = [shift: Tensor, scale: Tensor, gate: Tensor];

class Embedder {
  private readonly first: Linear;
  private readonly second: Linear;

  constructor(parameters: Parameters, width: number) {
    this.first = new Linear(parameters.at("linear_1"), SINUSOID_WIDTH, width, BARE);
    this.second = new Linear(parameters.at("linear_2"), width, width, BARE);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return this.second.forward(graph, silu(this.first.forward(graph, x)));
  }
}

/** Chunks of a modulation vector, each [B, 1, D]. */
function chunks(graph: Graph, layer: Linear, active: Tensor, parts: number): Tensor[] {
  const all = layer.forward(graph, active);
  const sizes = Array.from({ length: parts }, () => layer.outputs / parts);
  return split(reshape(all, [all.dim(0), 1, layer.outputs]), 2, sizes);
}

function modulated(x: Tensor, [shift, scale]: Modulation, eps: number): Tensor {
  return modulatedLayerNorm(x, eps, scale, shift);
}

class FeedForward {
  private readonly up: Linear;
  private readonly down: Linear;

  constructor(parameters: Parameters, width: number, inner: number) {
    this.up = new Linear(parameters.at("linear_in"), width, 2 * inner, BARE);
    this.down = new Linear(parameters.at("linear_out"), inner, width, BARE);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return this.down.forward(graph, swiglu(this.up.forward(graph, x)));
  }
}

/** One stream of a double block: its own attention projections and feed-forward. */
class Stream {
  private readonly layers: [Linear, Linear, Linear];
  readonly norms: [RmsNorm, RmsNorm];
  private readonly out: Linear;
  private readonly feedForward: FeedForward;
  private readonly eps: number;

  constructor(
    block: Parameters,
    config: Flux2Config,
    names: { layers: [string, string, string]; norms: [string, string]; out: string; feedForward: string },
  ) {
    const { width, headSize, inner, eps } = config;
    const attn = block.at("attn");
    this.eps = eps;
    this.layers = names.layers.map((name) => new Linear(attn.at(name), width, width, BARE)) as [Linear, Linear, Linear];
    this.norms = names.norms.map((name) => new RmsNorm(attn.at(name), headSize, eps)) as [RmsNorm, RmsNorm];
    this.out = new Linear(attn.at(names.out), width, width, BARE);
    this.feedForward = new FeedForward(block.at(names.feedForward), width, inner);
  }

  /** Query, key and value of the modulated stream, before the norms of queries and keys. */
  project(graph: Graph, x: Tensor, modulation: Modulation): [Tensor, Tensor, Tensor] {
    const normed = modulated(x, modulation, this.eps);
    return this.layers.map((layer) => layer.forward(graph, normed)) as [Tensor, Tensor, Tensor];
  }

  /** The stream after attention's part of it and the feed-forward. */
  finish(graph: Graph, x: Tensor, attended: Tensor, gate: Tensor, modulation: Modulation): Tensor {
    const y = add(x, mul(this.out.forward(graph, attended), gate));
    return add(y, mul(this.feedForward.forward(graph, modulated(y, modulation, this.eps)), modulation[2]));
  }
}

class DoubleBlock {
  private readonly image: Stream;
  private readonly text: Stream;
  private readonly config: Flux2Config;
  private readonly halves: boolean;

  constructor(parameters: Parameters, config: Flux2Config) {
    this.config = config;
    this.halves = parameters.halves;
    this.image = new Stream(parameters, config, {
      layers: ["to_q", "to_k", "to_v"],
      norms: ["norm_q", "norm_k"],
      out: "to_out.0",
      feedForward: "ff",
    });
    this.text = new Stream(parameters, config, {
      layers: ["add_q_proj", "add_k_proj", "add_v_proj"],
      norms: ["norm_added_q", "norm_added_k"],
      out: "to_add_out",
      feedForward: "ff_context",
    });
  }

  /** @param mods the six chunks of the image stream's modulation, then the text stream's */
  forward(graph: Graph, image: Tensor, text: Tensor, mods: readonly Tensor[], rotary: Rotary): [Tensor, Tensor] {
    const { heads, headSize } = this.config;
    const at = (first: number) => mods.slice(first, first + 3) as Modulation;
    const [qi, ki, vi] = this.image.project(graph, image, at(0));
    const [qt, kt, vt] = this.text.project(graph, text, at(6));
    const rotated = (norm: 0 | 1, textPart: Tensor, imagePart: Tensor) => {
      const streams = [
        { norm: this.text.norms[norm], x: textPart },
        { norm: this.image.norms[norm], x: imagePart },
      ];
      return RmsNorm.rotated(graph, streams, rotary, heads);
    };
    const q = rotated(0, qt, qi);
    const k = rotated(1, kt, ki);
    const joint = attention(q, k, concat([vt, vi], 1), { heads, scale: 1 / Math.sqrt(headSize), halves: this.halves });
    const [ot, oi] = split(joint, 1, [text.dim(1), image.dim(1)]) as [Tensor, Tensor];
    return [this.image.finish(graph, image, oi, mods[2]!, at(3)), this.text.finish(graph, text, ot, mods[8]!, at(9))];
  }
}

/** Attention and feed-forward side by side: one matrix makes query, key, value and both halves of the gated layer. */
class SingleBlock {
  private readonly fused: Linear;
  private readonly norms: [RmsNorm, RmsNorm];
  private readonly out: Linear;
  private readonly config: Flux2Config;
  private readonly halves: boolean;

  constructor(parameters: Parameters, config: Flux2Config) {
    const { width, headSize, inner, eps } = config;
    this.config = config;
    this.halves = parameters.halves;
    const attn = parameters.at("attn");
    this.fused = new Linear(attn.at("to_qkv_mlp_proj"), width, 3 * width + 2 * inner, BARE);
    this.norms = [new RmsNorm(attn.at("norm_q"), headSize, eps), new RmsNorm(attn.at("norm_k"), headSize, eps)];
    this.out = new Linear(attn.at("to_out"), width + inner, width, BARE);
  }

  forward(graph: Graph, x: Tensor, modulation: Modulation, rotary: Rotary): Tensor {
    const { heads, headSize, width, inner, eps } = this.config;
    const all = this.fused.forward(graph, modulated(x, modulation, eps));
    const [q, k, v, gated] = split(all, 2, [width, width, width, 2 * inner]) as [Tensor, Tensor, Tensor, Tensor];
    const rotated = (norm: 0 | 1, x: Tensor) => RmsNorm.rotated(graph, [{ norm: this.norms[norm], x }], rotary, heads);
    const options = { heads, scale: 1 / Math.sqrt(headSize), halves: this.halves };
    const attended = attention(rotated(0, q), rotated(1, k), v, options);
    const out = this.out.forward(graph, concat([attended, swiglu(gated)], 2));
    return add(x, mul(out, modulation[2]));
  }
}

export interface Flux2Trace {
  /** The velocity [B, Li, outChannels]. */
  output: Tensor;
  /** Conditioning vector [B, D]; image and text streams after every block, for comparisons. */
  vector: Tensor;
  blocks: { name: string; image: Tensor; text: Tensor }[];
}

export class Flux2Transformer implements VelocityNetwork {
  readonly config: Flux2Config;
  readonly parameters: Parameters;
  private readonly imageIn: Linear;
  private readonly textIn: Linear;
  private readonly time: Embedder;
  private readonly guidance: Embedder | null;
  private readonly modulations: { image: Linear; text: Linear; single: Linear };
  private readonly doubles: DoubleBlock[];
  private readonly singles: SingleBlock[];
  private readonly normOut: Linear;
  private readonly out: Linear;

  constructor(parameters: Parameters, config: Flux2Config) {
    const { width } = config;
    this.config = config;
    this.parameters = parameters;
    this.imageIn = new Linear(parameters.at("x_embedder"), config.inChannels, width, BARE);
    this.textIn = new Linear(parameters.at("context_embedder"), config.jointWidth, width, BARE);
    const embed = parameters.at("time_guidance_embed");
    this.time = new Embedder(embed.at("timestep_embedder"), width);
    this.guidance = config.guidance ? new Embedder(embed.at("guidance_embedder"), width) : null;
    const modulation = (name: string, sets: number) =>
      new Linear(parameters.at(name).at("linear"), width, 3 * sets * width, BARE);
    this.modulations = {
      image: modulation("double_stream_modulation_img", 2),
      text: modulation("double_stream_modulation_txt", 2),
      single: modulation("single_stream_modulation", 1),
    };
    this.doubles = Array.from(
      { length: config.doubleBlocks },
      (_, i) => new DoubleBlock(parameters.at("transformer_blocks").at(i), config),
    );
    this.singles = Array.from(
      { length: config.singleBlocks },
      (_, i) => new SingleBlock(parameters.at("single_transformer_blocks").at(i), config),
    );
    this.normOut = new Linear(parameters.at("norm_out.linear"), width, 2 * width, BARE);
    this.out = new Linear(parameters.at("proj_out"), width, config.outChannels, BARE);
  }

  forward(graph: Graph, inputs: VelocityInputs, options: VelocityOptions = {}): Flux2Trace {
    const rotary = { cosine: inputs.cosine, sine: inputs.sine };
    const textTokens = inputs.states.dim(1);
    const imageTokens = inputs.latents.dim(1);
    let vector = this.time.forward(graph, inputs.time);
    if (this.guidance) {
      if (!inputs.guidance) throw new Error("this model reads a guidance scale, and none was given");
      vector = add(vector, this.guidance.forward(graph, inputs.guidance));
    }
    const active = silu(vector);
    const doubleMods = [
      ...chunks(graph, this.modulations.image, active, 6),
      ...chunks(graph, this.modulations.text, active, 6),
    ];
    const singleMods = chunks(graph, this.modulations.single, active, 3);
    let image = this.imageIn.forward(graph, inputs.latents);
    let text = this.textIn.forward(graph, inputs.states);
    const blocks: Flux2Trace["blocks"] = [];
    const traced = (name: string, tensors: Tensor[], body: (t: Tensor[]) => Tensor[]): Tensor[] =>
      graph.scope(name, () => (options.checkpoint ? graph.checkpoint(tensors, body) : body(tensors)));
    this.doubles.forEach((block, i) => {
      [image, text] = traced(`transformer_blocks.${i}`, [image, text, ...doubleMods], ([a, b, ...mods]) =>
        block.forward(graph, a!, b!, mods, rotary),
      ) as [Tensor, Tensor];
      blocks.push({ name: `double${i}`, image, text });
    });
    let joint = concat([text, image], 1);
    this.singles.forEach((block, i) => {
      [joint] = traced(`single_transformer_blocks.${i}`, [joint, ...singleMods], ([a, ...mods]) => [
        block.forward(graph, a!, mods as Modulation, rotary),
      ]) as [Tensor];
      blocks.push({
        name: `single${i}`,
        image: slice(joint, 1, textTokens, imageTokens),
        text: slice(joint, 1, 0, textTokens),
      });
    });
    const last = slice(joint, 1, textTokens, imageTokens);
    // diffusers' order here is scale, shift.
    const [scale, shift] = chunks(graph, this.normOut, active, 2);
    const output = this.out.forward(graph, modulatedLayerNorm(last, this.config.eps, scale!, shift!));
    return { output, vector, blocks };
  }
}
