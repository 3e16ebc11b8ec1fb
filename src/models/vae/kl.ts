// AutoencoderKL in FLUX layout (tensor names of diffusers): residual blocks with GroupNorm and SiLU, one single-head
// attention over all positions in the middle, three changes of resolution. Pictures are in [-1, 1]; the encoder gives
// moments (mean, log variance), the model latent is (sample - shift) * scale.

import { Conv2d } from "../../nn/conv.ts";
import { Linear } from "../../nn/linear.ts";
import { GroupNorm } from "../../nn/norms.ts";
import type { Parameters } from "../../nn/parameters.ts";
import { attention } from "../../ops/attention.ts";
import { permute } from "../../ops/permute.ts";
import { add, affine, clamp, exp, mul, silu } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { slice } from "../../ops/slab.ts";
import { upsampleNearest2x } from "../../ops/upsample.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

export interface KlConfig {
  /** Widths of the four levels, finest first. */
  widths: number[];
  layersPerBlock: number;
  latentChannels: number;
  groups: number;
  scalingFactor: number;
  shiftFactor: number;
}

const EPS = 1e-6;

export function klConfig(json: Record<string, unknown>): KlConfig {
  return {
    widths: (json["block_out_channels"] as number[] | undefined) ?? [128, 256, 512, 512],
    layersPerBlock: (json["layers_per_block"] as number | undefined) ?? 2,
    latentChannels: (json["latent_channels"] as number | undefined) ?? 16,
    groups: (json["norm_num_groups"] as number | undefined) ?? 32,
    scalingFactor: (json["scaling_factor"] as number | undefined) ?? 0.3611,
    shiftFactor: (json["shift_factor"] as number | undefined) ?? 0.1159,
  };
}

class ResidualBlock {
  private readonly norms: [GroupNorm, GroupNorm];
  private readonly convs: [Conv2d, Conv2d];
  private readonly shortcut: Conv2d | null;

  constructor(parameters: Parameters, inputs: number, outputs: number, groups: number) {
    this.norms = [
      new GroupNorm(parameters.at("norm1"), groups, inputs, EPS),
      new GroupNorm(parameters.at("norm2"), groups, outputs, EPS),
    ];
    this.convs = [
      new Conv2d(parameters.at("conv1"), inputs, outputs, 3),
      new Conv2d(parameters.at("conv2"), outputs, outputs, 3),
    ];
    this.shortcut = inputs === outputs ? null : new Conv2d(parameters.at("conv_shortcut"), inputs, outputs, 1);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    let y = this.convs[0].forward(graph, silu(this.norms[0].forward(graph, x)));
    y = this.convs[1].forward(graph, silu(this.norms[1].forward(graph, y)));
    return add(y, this.shortcut ? this.shortcut.forward(graph, x) : x);
  }
}

class MiddleAttention {
  private readonly norm: GroupNorm;
  private readonly layers: Linear[];
  private readonly width: number;

  constructor(parameters: Parameters, width: number, groups: number) {
    this.width = width;
    this.norm = new GroupNorm(parameters.at("group_norm"), groups, width, EPS);
    this.layers = ["to_q", "to_k", "to_v", "to_out.0"].map((name) => new Linear(parameters.at(name), width, width));
  }

  forward(graph: Graph, x: Tensor): Tensor {
    const [n, c, h, w] = x.shape as [number, number, number, number];
    const tokens = permute(reshape(this.norm.forward(graph, x), [n, c, h * w]), [0, 2, 1]);
    const [q, k, v] = this.layers.slice(0, 3).map((layer) => layer.forward(graph, tokens)) as [Tensor, Tensor, Tensor];
    const attended = attention(q, k, v, { heads: 1, scale: 1 / Math.sqrt(this.width) });
    const out = permute(this.layers[3]!.forward(graph, attended), [0, 2, 1]);
    return add(reshape(out, x.shape), x);
  }
}

class Middle {
  private readonly first: ResidualBlock;
  private readonly attention: MiddleAttention;
  private readonly second: ResidualBlock;

  constructor(parameters: Parameters, width: number, groups: number) {
    this.first = new ResidualBlock(parameters.at("resnets.0"), width, width, groups);
    this.attention = new MiddleAttention(parameters.at("attentions.0"), width, groups);
    this.second = new ResidualBlock(parameters.at("resnets.1"), width, width, groups);
  }

  forward(graph: Graph, x: Tensor): Tensor {
    return this.second.forward(graph, this.attention.forward(graph, this.first.forward(graph, x)));
  }
}

type Layer = { forward(graph: Graph, x: Tensor): Tensor };

export class KlEncoder {
  private readonly layers: Layer[] = [];

  constructor(parameters: Parameters, config: KlConfig) {
    const { widths, groups, layersPerBlock } = config;
    this.layers.push(new Conv2d(parameters.at("conv_in"), 3, widths[0]!, 3));
    let width = widths[0]!;
    widths.forEach((next, level) => {
      const block = parameters.at("down_blocks").at(level);
      for (let i = 0; i < layersPerBlock; i++) {
        this.layers.push(new ResidualBlock(block.at("resnets").at(i), width, next, groups));
        width = next;
      }
      // One zero row below and one zero column to the right, then stride 2 without padding.
      if (level < widths.length - 1) {
        this.layers.push(
          new Conv2d(block.at("downsamplers.0.conv"), width, width, 3, { stride: 2, padding: [0, 0, 1, 1] }),
        );
      }
    });
    this.layers.push(new Middle(parameters.at("mid_block"), width, groups));
    const norm = new GroupNorm(parameters.at("conv_norm_out"), groups, width, EPS);
    const out = new Conv2d(parameters.at("conv_out"), width, 2 * config.latentChannels, 3);
    this.layers.push({ forward: (graph, x) => out.forward(graph, silu(norm.forward(graph, x))) });
  }

  /** Picture [B, 3, H, W] in [-1, 1] -> moments [B, 2C, H/8, W/8]: mean, then log variance (not clamped). */
  forward(graph: Graph, picture: Tensor): Tensor {
    return this.layers.reduce((x, layer) => layer.forward(graph, x), picture);
  }
}

/** mean + exp(log variance / 2) * noise, the log variance clamped to [-30, 20]. */
export function samplePosterior(moments: Tensor, noise: Tensor): Tensor {
  const channels = moments.dim(1) / 2;
  const mean = slice(moments, 1, 0, channels);
  const logVariance = clamp(slice(moments, 1, channels, channels), -30, 20);
  return add(mul(exp(affine(logVariance, 0.5, 0)), noise), mean);
}

export class KlDecoder {
  private readonly layers: Layer[] = [];

  constructor(parameters: Parameters, config: KlConfig) {
    const { groups, layersPerBlock } = config;
    const widths = [...config.widths].reverse();
    let width = widths[0]!;
    this.layers.push(new Conv2d(parameters.at("conv_in"), config.latentChannels, width, 3));
    this.layers.push(new Middle(parameters.at("mid_block"), width, groups));
    widths.forEach((next, level) => {
      const block = parameters.at("up_blocks").at(level);
      for (let i = 0; i <= layersPerBlock; i++) {
        this.layers.push(new ResidualBlock(block.at("resnets").at(i), width, next, groups));
        width = next;
      }
      if (level < widths.length - 1) {
        const conv = new Conv2d(block.at("upsamplers.0.conv"), width, width, 3);
        this.layers.push({ forward: (graph, x) => conv.forward(graph, upsampleNearest2x(x)) });
      }
    });
    const norm = new GroupNorm(parameters.at("conv_norm_out"), groups, width, EPS);
    const out = new Conv2d(parameters.at("conv_out"), width, 3, 3);
    this.layers.push({ forward: (graph, x) => out.forward(graph, silu(norm.forward(graph, x))) });
  }

  /** Unscaled latent [B, C, h, w] -> picture [B, 3, 8h, 8w] in [-1, 1], not clamped. */
  forward(graph: Graph, latent: Tensor): Tensor {
    return this.layers.reduce((x, layer) => layer.forward(graph, x), latent);
  }
}
