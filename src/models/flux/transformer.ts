// The FLUX.1 transformer (Black Forest Labs 2024; tensor names of diffusers' FluxTransformer2DModel): text and image streams
// with separate weights in the double blocks, one joint sequence in the single blocks, adaptive norms from time, guidance
// and pooled text, rotary positions on joint attention. Output: velocity v = noise - data in packed form.

import { Linear } from "../../nn/linear.ts";
import { RmsNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { modulatedLayerNorm } from "../../ops/norm.ts";
import { add, geluTanh, mul, silu } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { concat, slice, split } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { VelocityInputs, VelocityNetwork, VelocityOptions } from "../velocity_network.ts";
import type { FluxConfig } from "./config.ts";
import { SINUSOID_WIDTH } from "./embeddings.ts";

const EPS = 1e-6;

class Embedder {
  private readonly first: Linear;
  private readonly second: Linear;

  constructor(parameters: Parameters, inputs: number, width: number) {
    this.first = new Linear(parameters.at("linear_1"), inputs, width);
    this.second = new Linear(parameters.at("linear_2"), width, width);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return this.second.forward(graph, silu(this.first.forward(graph, x)));
  }
}

/** Chunks of a modulation vector, each [B, 1, D]. */
function modulation(graph: Graph, layer: Linear, vector: Tensor, parts: number): Tensor[] {
  const all = layer.forward(graph, vector);
  const width = layer.outputs / parts;
  return split(
    reshape(all, [all.dim(0), 1, layer.outputs]),
    2,
    Array.from({ length: parts }, () => width),
  );
}

/** Query, key and value projections of one stream, and the norms of its queries and keys. */
class Projections {
  private readonly layers: [Linear, Linear, Linear];
  readonly norms: [RmsNorm, RmsNorm];

  constructor(
    parameters: Parameters,
    width: number,
    headSize: number,
    names: [string, string, string],
    norms: [string, string],
  ) {
    this.layers = names.map((name) => new Linear(parameters.at(name), width, width)) as [Linear, Linear, Linear];
    this.norms = norms.map((name) => new RmsNorm(parameters.at(name), headSize, EPS)) as [RmsNorm, RmsNorm];
  }

  forward(graph: Graph, x: Tensor): [Tensor, Tensor, Tensor] {
    return this.layers.map((layer) => layer.forward(graph, x)) as [Tensor, Tensor, Tensor];
  }
}

class FeedForward {
  private readonly up: Linear;
  private readonly down: Linear;

  constructor(parameters: Parameters, width: number, inner: number) {
    this.up = new Linear(parameters.at("net.0.proj"), width, inner);
    this.down = new Linear(parameters.at("net.2"), inner, width);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return this.down.forward(graph, geluTanh(this.up.forward(graph, x)));
  }
}

/** Rotary tables [tokens, headSize / 2], text first. */
export interface Rotary {
  cosine: Tensor;
  sine: Tensor;
}

class DoubleBlock {
  private readonly modulations: [Linear, Linear];
  private readonly image: Projections;
  private readonly text: Projections;
  private readonly outputs: [Linear, Linear];
  private readonly feedForwards: [FeedForward, FeedForward];
  private readonly config: FluxConfig;
  private readonly halves: boolean;

  constructor(parameters: Parameters, config: FluxConfig) {
    const { width, headSize, mlpRatio } = config;
    this.config = config;
    this.halves = parameters.halves;
    this.modulations = [
      new Linear(parameters.at("norm1.linear"), width, 6 * width),
      new Linear(parameters.at("norm1_context.linear"), width, 6 * width),
    ];
    const attn = parameters.at("attn");
    this.image = new Projections(attn, width, headSize, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"]);
    this.text = new Projections(
      attn,
      width,
      headSize,
      ["add_q_proj", "add_k_proj", "add_v_proj"],
      ["norm_added_q", "norm_added_k"],
    );
    this.outputs = [new Linear(attn.at("to_out.0"), width, width), new Linear(attn.at("to_add_out"), width, width)];
    this.feedForwards = [
      new FeedForward(parameters.at("ff"), width, mlpRatio * width),
      new FeedForward(parameters.at("ff_context"), width, mlpRatio * width),
    ];
  }

  forward(graph: Graph, image: Tensor, text: Tensor, vector: Tensor, rotary: Rotary): [Tensor, Tensor] {
    const { heads, headSize } = this.config;
    const streams = [image, text];
    const mods = this.modulations.map((layer) => modulation(graph, layer, vector, 6));
    const normed = streams.map((x, s) => modulatedLayerNorm(x, EPS, mods[s]![1]!, mods[s]![0]!));
    const [qi, ki, vi] = this.image.forward(graph, normed[0]!);
    const [qt, kt, vt] = this.text.forward(graph, normed[1]!);
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
    const [ot, oi] = split(joint, 1, [text.dim(1), image.dim(1)]);
    const out = [oi!, ot!].map((o, s) => {
      const attended = add(streams[s]!, mul(this.outputs[s]!.forward(graph, o), mods[s]![2]!));
      const inner = this.feedForwards[s]!.forward(graph, modulatedLayerNorm(attended, EPS, mods[s]![4]!, mods[s]![3]!));
      return add(attended, mul(inner, mods[s]![5]!));
    });
    return [out[0]!, out[1]!];
  }
}

class SingleBlock {
  private readonly modulationLayer: Linear;
  private readonly projections: Projections;
  private readonly up: Linear;
  private readonly out: Linear;
  private readonly config: FluxConfig;
  private readonly halves: boolean;

  constructor(parameters: Parameters, config: FluxConfig) {
    const { width, headSize, mlpRatio } = config;
    this.config = config;
    this.halves = parameters.halves;
    this.modulationLayer = new Linear(parameters.at("norm.linear"), width, 3 * width);
    this.projections = new Projections(
      parameters.at("attn"),
      width,
      headSize,
      ["to_q", "to_k", "to_v"],
      ["norm_q", "norm_k"],
    );
    this.up = new Linear(parameters.at("proj_mlp"), width, mlpRatio * width);
    this.out = new Linear(parameters.at("proj_out"), (1 + mlpRatio) * width, width);
  }

  forward(graph: Graph, x: Tensor, vector: Tensor, rotary: Rotary): Tensor {
    const { heads, headSize } = this.config;
    const [shift, scale, gate] = modulation(graph, this.modulationLayer, vector, 3);
    const normed = modulatedLayerNorm(x, EPS, scale!, shift!);
    const [q, k, v] = this.projections.forward(graph, normed);
    const rotated = (norm: 0 | 1, x: Tensor) =>
      RmsNorm.rotated(graph, [{ norm: this.projections.norms[norm], x }], rotary, heads);
    const options = { heads, scale: 1 / Math.sqrt(headSize), halves: this.halves };
    const attended = attention(rotated(0, q), rotated(1, k), v, options);
    const inner = geluTanh(this.up.forward(graph, normed));
    return add(x, mul(this.out.forward(graph, concat([attended, inner], 2)), gate!));
  }
}

export interface FluxTrace {
  /** The velocity [B, Li, outChannels]. */
  output: Tensor;
  /** Conditioning vector [B, D]; image and text streams after every block, for comparisons. */
  vector: Tensor;
  blocks: { name: string; image: Tensor; text: Tensor }[];
}

export class FluxTransformer implements VelocityNetwork {
  readonly config: FluxConfig;
  readonly parameters: Parameters;
  private readonly imageIn: Linear;
  private readonly textIn: Linear;
  private readonly time: Embedder;
  private readonly guidance: Embedder | null;
  private readonly pooled: Embedder;
  private readonly doubles: DoubleBlock[];
  private readonly singles: SingleBlock[];
  private readonly normOut: Linear;
  private readonly out: Linear;

  constructor(parameters: Parameters, config: FluxConfig) {
    const { width } = config;
    this.config = config;
    this.parameters = parameters;
    this.imageIn = new Linear(parameters.at("x_embedder"), config.inChannels, width);
    this.textIn = new Linear(parameters.at("context_embedder"), config.jointWidth, width);
    const embed = parameters.at("time_text_embed");
    this.time = new Embedder(embed.at("timestep_embedder"), SINUSOID_WIDTH, width);
    this.guidance = config.guidance ? new Embedder(embed.at("guidance_embedder"), SINUSOID_WIDTH, width) : null;
    this.pooled = new Embedder(embed.at("text_embedder"), config.pooledWidth, width);
    this.doubles = Array.from(
      { length: config.doubleBlocks },
      (_, i) => new DoubleBlock(parameters.at("transformer_blocks").at(i), config),
    );
    this.singles = Array.from(
      { length: config.singleBlocks },
      (_, i) => new SingleBlock(parameters.at("single_transformer_blocks").at(i), config),
    );
    this.normOut = new Linear(parameters.at("norm_out.linear"), width, 2 * width);
    this.out = new Linear(parameters.at("proj_out"), width, config.outChannels);
  }

  /** What the blocks begin with: both streams, the conditioning vector [B, D] and its SiLU, which every modulation reads. */
  embed(
    graph: Graph,
    inputs: Omit<VelocityInputs, "cosine" | "sine">,
  ): { image: Tensor; text: Tensor; vector: Tensor; active: Tensor } {
    if (!inputs.pooled) throw new Error("FLUX.1 reads a pooled text, and none was given");
    let vector = add(this.time.forward(graph, inputs.time), this.pooled.forward(graph, inputs.pooled));
    if (this.guidance) {
      if (!inputs.guidance) throw new Error("this model reads a guidance scale, and none was given");
      vector = add(vector, this.guidance.forward(graph, inputs.guidance));
    }
    const active = silu(vector);
    const image = this.imageIn.forward(graph, inputs.latents);
    const text = this.textIn.forward(graph, inputs.states);
    return { image, text, vector, active };
  }

  /** Double block `i` on the streams [B, Li, D] and [B, Lt, D]. */
  doubleBlock(
    graph: Graph,
    i: number,
    [image, text]: readonly [Tensor, Tensor],
    active: Tensor,
    rotary: Rotary,
  ): [Tensor, Tensor] {
    return this.doubles[i]!.forward(graph, image, text, active, rotary);
  }

  /** Single block `i` on the joint sequence [B, Lt + Li, D], text first. */
  singleBlock(graph: Graph, i: number, joint: Tensor, active: Tensor, rotary: Rotary): Tensor {
    return this.singles[i]!.forward(graph, joint, active, rotary);
  }

  /** The velocity [B, Li, outChannels] from the image part of the joint sequence. */
  finish(graph: Graph, image: Tensor, active: Tensor): Tensor {
    // diffusers' order here is scale, shift.
    const [scale, shift] = modulation(graph, this.normOut, active, 2);
    return this.out.forward(graph, modulatedLayerNorm(image, EPS, scale!, shift!));
  }

  forward(graph: Graph, inputs: VelocityInputs, options: VelocityOptions = {}): FluxTrace {
    const rotary = { cosine: inputs.cosine, sine: inputs.sine };
    const textTokens = inputs.states.dim(1);
    const imageTokens = inputs.latents.dim(1);
    const { vector, active, ...streams } = this.embed(graph, inputs);
    let { image, text } = streams;
    const blocks: FluxTrace["blocks"] = [];
    const traced = (name: string, tensors: Tensor[], body: (t: Tensor[]) => Tensor[]): Tensor[] =>
      graph.scope(name, () => (options.checkpoint ? graph.checkpoint(tensors, body) : body(tensors)));
    this.doubles.forEach((_, i) => {
      [image, text] = traced(`transformer_blocks.${i}`, [image, text, active], ([a, b, c]) =>
        this.doubleBlock(graph, i, [a!, b!], c!, rotary),
      ) as [Tensor, Tensor];
      blocks.push({ name: `double${i}`, image, text });
    });
    let joint = concat([text, image], 1);
    this.singles.forEach((_, i) => {
      [joint] = traced(`single_transformer_blocks.${i}`, [joint, active], ([a, c]) => [
        this.singleBlock(graph, i, a!, c!, rotary),
      ]) as [Tensor];
      blocks.push({
        name: `single${i}`,
        image: slice(joint, 1, textTokens, imageTokens),
        text: slice(joint, 1, 0, textTokens),
      });
    });
    const output = this.finish(graph, slice(joint, 1, textTokens, imageTokens), active);
    return { output, vector, blocks };
  }
}
