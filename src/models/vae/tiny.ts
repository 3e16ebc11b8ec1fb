// The tiny autoencoders of the TAESD family (madebyollin/taesd, MIT): TAEF1 (16 latent channels) and TAEF2 (32 channels and
// a pooled normalisation branch in the three blocks of lowest resolution of each half). Layers are numbered as in the
// files' sequentials; diffusers' AutoencoderTiny numbers its decoder one lower, because its soft clamp is no layer.

import { Conv2d } from "../../nn/conv.ts";
import { GroupNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { add, affine, relu, tanh } from "../../ops/pointwise.ts";
import { upsampleNearest2x } from "../../ops/upsample.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

export interface TinyConfig {
  latentChannels: number;
  width: number;
  /** The pooled branch of TAEF2. */
  pool: boolean;
  /** True for diffusers' numbering and its picture range [-1, 1]; false for the original files and [0, 1]. */
  diffusers: boolean;
}

export const TAEF2: TinyConfig = { latentChannels: 32, width: 64, pool: true, diffusers: false };

/** Width of the pooled branch relative to the block's. */
const POOL_FACTOR = 4;

class Block {
  private readonly convs: Conv2d[];
  private readonly pool: { up: Conv2d; norm: GroupNorm; down: Conv2d } | null;

  constructor(parameters: Parameters, width: number, pool: boolean) {
    this.convs = [0, 2, 4].map((i) => new Conv2d(parameters.at(`conv.${i}`), width, width, 3));
    this.pool = pool
      ? {
          up: new Conv2d(parameters.at("pool.0"), width, POOL_FACTOR * width, 1, { bias: false }),
          norm: new GroupNorm(parameters.at("pool.1"), 4, POOL_FACTOR * width, 1e-5),
          down: new Conv2d(parameters.at("pool.3"), POOL_FACTOR * width, width, 1, { bias: false }),
        }
      : null;
  }

  forward(graph: Graph, input: Tensor): Tensor {
    let x = input;
    if (this.pool)
      x = add(this.pool.down.forward(graph, relu(this.pool.norm.forward(graph, this.pool.up.forward(graph, x)))), x);
    let y = relu(this.convs[0]!.forward(graph, x));
    y = relu(this.convs[1]!.forward(graph, y));
    return relu(add(this.convs[2]!.forward(graph, y), x));
  }
}

type Layer = (graph: Graph, x: Tensor) => Tensor;

const upsample: Layer = (_, x) => upsampleNearest2x(x);

/** Blocks after each change of resolution; the first and last stage have one. */
const STAGES = [1, 3, 3, 3];

export class TinyEncoder {
  private readonly layers: Layer[] = [];
  private readonly config: TinyConfig;

  /** `parameters` is the subtree that holds the numbered layers. */
  constructor(parameters: Parameters, config: TinyConfig) {
    this.config = config;
    let n = 0;
    const conv = (inputs: number, outputs: number, options = {}) => {
      const layer = new Conv2d(parameters.at(n++), inputs, outputs, 3, options);
      this.layers.push((graph, x) => layer.forward(graph, x));
    };
    conv(3, config.width);
    STAGES.forEach((count, stage) => {
      if (stage > 0) conv(config.width, config.width, { stride: 2, bias: false });
      for (let i = 0; i < count; i++) {
        const block = new Block(parameters.at(n++), config.width, config.pool && stage === STAGES.length - 1);
        this.layers.push((graph, x) => block.forward(graph, x));
      }
    });
    conv(config.width, config.latentChannels);
  }

  /** Picture [B, 3, H, W] in the model's range -> latent [B, C, H/8, W/8]. */
  forward(graph: Graph, picture: Tensor): Tensor {
    let x = this.config.diffusers ? affine(picture, 0.5, 0.5) : picture;
    for (const layer of this.layers) x = layer(graph, x);
    return x;
  }
}

export class TinyDecoder {
  private readonly layers: Layer[] = [];
  private readonly config: TinyConfig;

  constructor(parameters: Parameters, config: TinyConfig) {
    this.config = config;
    // The original sequential starts with the soft clamp, which has no weights.
    let n = config.diffusers ? 0 : 1;
    const conv = (inputs: number, outputs: number, bias: boolean) => {
      const layer = new Conv2d(parameters.at(n++), inputs, outputs, 3, { bias });
      this.layers.push((graph, x) => layer.forward(graph, x));
    };
    conv(config.latentChannels, config.width, true);
    this.layers.push((_, x) => relu(x));
    n++;
    [...STAGES].reverse().forEach((count, stage) => {
      if (stage > 0) {
        this.layers.push(upsample);
        n++;
        conv(config.width, config.width, false);
      }
      for (let i = 0; i < count; i++) {
        const block = new Block(parameters.at(n++), config.width, config.pool && stage === 0);
        this.layers.push((graph, x) => block.forward(graph, x));
      }
    });
    conv(config.width, 3, true);
  }

  /** Latent [B, C, h, w] -> picture [B, 3, 8h, 8w] in the model's range, not clamped. */
  forward(graph: Graph, latent: Tensor): Tensor {
    let x = affine(tanh(affine(latent, 1 / 3, 0)), 3, 0);
    for (const layer of this.layers) x = layer(graph, x);
    return this.config.diffusers ? affine(x, 2, -1) : x;
  }
}
