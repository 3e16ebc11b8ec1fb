// What trainers and samplers know of a transformer that predicts velocities, whichever family it is of (rectified flow: the
// velocity is noise - data): its sizes, its inputs, and the variables that the host writes for a batch of prompts.

import { joined } from "../base/arrays.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";
import { SINUSOID_WIDTH, sinusoids } from "./flux/embeddings.ts";

export interface VelocityConfig {
  /** Channels of a packed token that goes in, and that comes out. */
  readonly inChannels: number;
  readonly outChannels: number;
  readonly doubleBlocks: number;
  readonly singleBlocks: number;
  readonly width: number;
  readonly headSize: number;
  /** Widths of text states and of the pooled text; 0 where the model takes no pooled text. */
  readonly jointWidth: number;
  readonly pooledWidth: number;
  /** Whether the model is told a guidance scale. */
  readonly guidance: boolean;
  /** Sizes of the parts of a head that turn with the coordinates of a position. */
  readonly ropeAxes: readonly number[];
  readonly ropeTheta: number;
}

/** What a network is told besides the latents. */
export interface VelocityConditioning {
  /** Text states [B, Lt, jointWidth], padding included. */
  states: Tensor;
  /** Pooled text [B, pooledWidth]; only for models that take one. */
  pooled?: Tensor;
  /** Sinusoids of the time [B, 256] (flux/embeddings.ts). */
  time: Tensor;
  /** Sinusoids of the guidance scale [B, 256]; only for models with a guidance embedder. */
  guidance?: Tensor;
}

export interface VelocityInputs extends VelocityConditioning {
  /** Packed latents [B, Li, C]. */
  latents: Tensor;
  /** Rotary tables [Lt + Li, headSize / 2], text first. */
  cosine: Tensor;
  sine: Tensor;
}

export interface VelocityOptions {
  /** Trace every block again in the backward pass instead of keeping its inner values. */
  checkpoint?: boolean;
}

/** A transformer of any family. */
export interface VelocityNetwork {
  readonly config: VelocityConfig;
  readonly parameters: Parameters;
  /** The velocity [B, Li, outChannels]. */
  forward(graph: Graph, inputs: VelocityInputs, options?: VelocityOptions): { output: Tensor };
}

/** Sizes and surroundings of one way through a streamed network. */
export interface PassShape {
  /** Beginning of the names of variables and plans. */
  name: string;
  imageTokens: number;
  /** What the network is told besides the latents; batch and length of the text are its own. */
  conditioning: ConditioningVariables;
  /** Rotary tables [Lt + Li, headSize / 2], text first, as leaves of a graph. */
  rotary(graph: Graph): { cosine: Tensor; sine: Tensor };
  /** Makes the backward plans; adapters act as in training (dropout). */
  training?: boolean;
  /** Keeps the blocks' inputs for the backward pass in host memory instead of on the device. */
  spill?: boolean;
}

/** One way through a streamed network: several plans, between which weights are brought. */
export interface VelocityPass {
  /** Packed latents [B, Li, C], to be written before `forward`, as the conditioning is. */
  readonly latents: Variable;
  /** [B, Li, outChannels], made by `forward`. */
  readonly velocity: Variable;
  /** dL/dv, to be written before `backward`; null without training. */
  readonly velocityGradient: Variable | null;
  /** Plans by piece ("embed", "transformer_blocks.0"). */
  readonly forwardPlans: ReadonlyMap<string, Plan>;
  readonly backwardPlans: ReadonlyMap<string, Plan>;
  /** The host waits for weights to be brought; reading the result waits for the rest. */
  forward(): Promise<void>;
  /**
   * Adds the gradients of all adapters to their buffers, from `velocityGradient` and what the last `forward` of this pass
   * left; no other pass of the model may run in between.
   */
  backward(): Promise<void>;
  /** The first kernel of a direction that makes a value which is not finite, or null; a repeated backward adds gradients. */
  firstNotFinite(direction: "forward" | "backward"): Promise<{ label: string; scope: string; plan: string } | null>;
}

/** A transformer whose weights are not all on the device at a time, so that no plan holds the whole of it. */
export interface StreamedNetwork {
  readonly config: VelocityConfig;
  readonly parameters: Parameters;
  /** Declares one way through it. Adapters must hang on the layers by now; the session must not be open. */
  pass(shape: PassShape): VelocityPass;
}

/** A transformer as trainers and samplers get it (training/stage.ts runs both kinds). */
export type VelocityModel = VelocityNetwork | StreamedNetwork;

export function isStreamed(model: VelocityModel): model is StreamedNetwork {
  return "pass" in model;
}

/** A prompt as encoders leave it: states [Lt · J], and the pooled text [P], empty for models that take none. */
export interface TextEmbedding {
  readonly states: Float32Array;
  readonly pooled: Float32Array;
}

/** The variables of a batch's conditioning. */
export class ConditioningVariables {
  readonly states: Variable;
  readonly pooled: Variable | null;
  readonly time: Variable;
  readonly guidance: Variable | null;

  /** @param name beginning of the variables' names; the session must not be open yet */
  constructor(session: Session, name: string, config: VelocityConfig, batch: number, textTokens: number) {
    const data = (key: string, shape: number[]) => session.data(`${name}.${key}`, shape);
    this.states = data("states", [batch, textTokens, config.jointWidth]);
    this.pooled = config.pooledWidth > 0 ? data("pooled", [batch, config.pooledWidth]) : null;
    this.time = data("time", [batch, SINUSOID_WIDTH]);
    this.guidance = config.guidance ? data("guidance", [batch, SINUSOID_WIDTH]) : null;
  }

  /** All of them as leaves of a graph. */
  read(graph: Graph): VelocityConditioning {
    return {
      states: graph.read(this.states),
      pooled: this.pooled ? graph.read(this.pooled) : undefined,
      time: graph.read(this.time),
      guidance: this.guidance ? graph.read(this.guidance) : undefined,
    };
  }

  writeTexts(session: Session, texts: readonly TextEmbedding[]): void {
    session.write(this.states, joined(texts.map((t) => t.states)));
    if (this.pooled) session.write(this.pooled, joined(texts.map((t) => t.pooled)));
  }

  /** @param frequencies of the sinusoids, for comparisons */
  writeTimes(session: Session, times: readonly number[], frequencies?: Float32Array): void {
    session.write(this.time, sinusoids(times, frequencies));
  }

  /** Does nothing for a model that is not told a guidance scale. */
  writeGuidance(session: Session, guidance: number, frequencies?: Float32Array): void {
    if (!this.guidance) return;
    const one = sinusoids([guidance], frequencies);
    session.write(this.guidance, joined(Array.from({ length: this.guidance.shape[0]! }, () => one)));
  }
}
