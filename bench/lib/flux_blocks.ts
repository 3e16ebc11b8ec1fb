// A FLUX.1 transformer of any size with invented weights: the same class that the program trains, for benchmarks that need
// other sizes than the embedded model's.

import type { FluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables, SINUSOID_WIDTH } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import type { Session } from "../../src/tensor/session.ts";
import type { Pool, Variable } from "../../src/tensor/variable.ts";
import { noise } from "./chain.ts";

export interface FluxShape {
  width: number;
  heads: number;
  /** Tokens of the text, and of the picture (a square number). */
  text: number;
  image: number;
  batch: number;
  doubles: number;
  singles: number;
}

/** Channels of a latent token, and widths of the text encoders' outputs. */
export const CHANNELS = 128;
export const JOINT = 128;
export const POOLED = 128;

export function fluxShapeConfig(shape: FluxShape): FluxConfig {
  const headSize = shape.width / shape.heads;
  const axis = (headSize * 3) / 8;
  return {
    inChannels: CHANNELS,
    outChannels: CHANNELS,
    doubleBlocks: shape.doubles,
    singleBlocks: shape.singles,
    headSize,
    heads: shape.heads,
    width: shape.width,
    jointWidth: JOINT,
    pooledWidth: POOLED,
    guidance: false,
    ropeAxes: [headSize - 2 * axis, axis, axis],
    ropeTheta: 10000,
    mlpRatio: 4,
  };
}

export type InputName = "latents" | "states" | "pooled" | "time";

export interface FluxBlocks {
  weights: Pool;
  gradients: Pool | null;
  inputs: Record<InputName, Variable>;
  /** Traces the model; with `gradients`, all weights and the inputs latents, states and pooled need them. */
  trace(graph: Graph, options: { gradients: boolean; checkpoint?: boolean }): { outputs: Tensor[]; leaves: Tensor[] };
}

export function inputShapes(shape: FluxShape): Record<InputName, number[]> {
  return {
    latents: [shape.batch, shape.image, CHANNELS],
    states: [shape.batch, shape.text, JOINT],
    pooled: [shape.batch, POOLED],
    time: [shape.batch, SINUSOID_WIDTH],
  };
}

export function rotaryOf(shape: FluxShape): { cosine: Float32Array; sine: Float32Array; shape: [number, number] } {
  const config = fluxShapeConfig(shape);
  const side = Math.sqrt(shape.image);
  const tables = ropeTables(positionIds(shape.text, side, side), config.ropeAxes, config.ropeTheta);
  return { ...tables, shape: [shape.text + shape.image, config.headSize / 2] };
}

/** Values of weight `name`: matrices of unit gain, gains near 1, small biases. The same for every library. */
export function weightValues(name: string, shape: readonly number[], index: number): Float32Array {
  const size = shape.reduce((a, b) => a * b, 1);
  if (shape.length > 1) return noise(size, 100 + index, Math.sqrt(1.5 / shape[1]!));
  const values = noise(size, 100 + index, 0.1);
  return name.includes("norm_") && name.endsWith("weight") ? values.map((v) => 1 + v) : values;
}

/** Declares the model in an unopened session. */
export function fluxBlocks(session: Session, shape: FluxShape, options: { gradients?: boolean } = {}): FluxBlocks {
  const weights = session.pool("weights", "weights");
  const model = new FluxTransformer(new Parameters(weights), fluxShapeConfig(shape));
  let gradients: Pool | null = null;
  if (options.gradients ?? true) {
    gradients = session.adopt(weights.twin("gradients", "gradients", ".gradient"));
    weights.variables.forEach((v, i) => (v.gradient = gradients!.variables[i]!));
  }
  const shapes = inputShapes(shape);
  const inputs = Object.fromEntries(Object.entries(shapes).map(([name, s]) => [name, session.data(name, s)])) as Record<
    InputName,
    Variable
  >;
  const rotary = rotaryOf(shape);
  return {
    weights,
    gradients,
    inputs,
    trace(graph, { gradients: wanted, checkpoint }) {
      const leaves = (["latents", "states", "pooled"] as const).map((name) => graph.read(inputs[name], wanted));
      const [latents, states, pooled] = leaves as [Tensor, Tensor, Tensor];
      const { output } = model.forward(
        graph,
        {
          latents,
          states,
          pooled,
          time: graph.read(inputs.time),
          cosine: session.constant(graph, "cosine", rotary.cosine, rotary.shape),
          sine: session.constant(graph, "sine", rotary.sine, rotary.shape),
        },
        { checkpoint },
      );
      return { outputs: [output], leaves };
    },
  };
}
