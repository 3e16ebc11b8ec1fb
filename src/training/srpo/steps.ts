// The traced steps of SRPO: one Euler step of the rollout, and one Direct-Align micro-step (inject, one velocity, move,
// recover, decode, score, loss, backward). Sigmas, times, discounts and text features are data, so one plan serves every
// branch and every update.

import type { OpenClip } from "../../models/clip/open_clip.ts";
import type { VelocityInputs, VelocityNetwork } from "../../models/velocity_network.ts";
import { backward } from "../../ops/backward.ts";
import { add, affine, clamp, full, mul, relu, sub } from "../../ops/pointwise.ts";
import { sumAll } from "../../ops/reduce.ts";
import type { Constant } from "../../ops/resample.ts";
import { pictureFeatures, rowDot } from "../../rewards/clip_reward.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

/** Conditioning of a batch of prompts; rotary tables are shared by the batch. */
type Conditioning = Omit<VelocityInputs, "latents">;

/** z + step · v(z): `step` [1] = sigma_next - sigma. */
export function traceEulerStep(
  graph: Graph,
  model: VelocityNetwork,
  z: Tensor,
  inputs: Conditioning & { step: Tensor },
): Tensor {
  const { output } = model.forward(graph, { latents: z, ...inputs });
  return add(mul(output, inputs.step), z);
}

/** A reward model in the loss and the texts it compares the picture with. */
export interface RewardTerm {
  model: OpenClip;
  /** Unit text features [B, E]. */
  positive: Tensor;
  negative: Tensor;
  /** Factors [B] of the two cosines: discounts, signs, logit scale and weight of the reward in one number each. */
  positiveFactor: Tensor;
  negativeFactor: Tensor;
}

export interface MicroStepInputs extends Conditioning {
  /** Clean rollout (or encoded picture) and the noise it started from, packed [B, L, C]. */
  clean: Tensor;
  noise: Tensor;
  /** [B, 1, 1] each: b, 1 - b, e - b, e, 1 / (1 - e). */
  from: Tensor;
  keep: Tensor;
  move: Tensor;
  to: Tensor;
  recover: Tensor;
  rewards: RewardTerm[];
  /** [1]: share of this micro-step in the update, 1 / (prompts · branches). */
  lossWeight: Tensor;
}

export interface MicroStep {
  /** Sum over the prompts of relu(threshold - reward), times the loss weight; [1]. */
  loss: Tensor;
  /** [B]. */
  reward: Tensor;
  /** Cosines with the positive and the negative text of the first reward, [B]. */
  positive: Tensor;
  negative: Tensor;
  /** Pictures in [0, 1], [B, 3, H, W]. */
  pictures: Tensor;
  /** Everything in between, for comparisons. */
  inner: Record<string, Tensor>;
}

export interface MicroStepOptions {
  threshold: number;
  /** Packed latent -> picture in [0, 1], not clamped. */
  decode: (graph: Graph, packed: Tensor) => Tensor;
  constant: Constant;
  /** Trace transformer blocks again in the backward pass. */
  checkpoint?: boolean;
  /** [1], 1 by default: the gradient that the backward pass begins with; the optimizer's loss scale. */
  seed?: Tensor;
  /** Inner values whose gradients are wanted (for comparisons). */
  wanted?: (inner: Record<string, Tensor>) => Tensor[];
}

/** Traces forward and backward of one branch; gradients of trained variables accumulate in their buffers. */
export function traceMicroStep(
  graph: Graph,
  model: VelocityNetwork,
  inputs: MicroStepInputs,
  options: MicroStepOptions,
): MicroStep & { gradients: (Tensor | null)[] } {
  const z = add(mul(inputs.noise, inputs.from), mul(inputs.clean, inputs.keep));
  // Comparisons ask for the gradient of z; training does not need it.
  if (options.wanted) z.needsGradient = true;
  const { output: velocity } = model.forward(graph, { latents: z, ...inputs }, { checkpoint: options.checkpoint });
  const moved = add(mul(velocity, inputs.move), z);
  const recovered = mul(sub(moved, mul(inputs.noise, inputs.to)), inputs.recover);
  const unclamped = graph.scope("decode", () => options.decode(graph, recovered));
  const pictures = clamp(unclamped, 0, 1);
  let reward: Tensor | null = null;
  const parts: { positive: Tensor; negative: Tensor; features: Tensor; input: Tensor }[] = [];
  for (const [i, term] of inputs.rewards.entries()) {
    graph.scope(`reward${i}`, () => {
      const { input, features } = pictureFeatures(term.model, graph, pictures, options.constant);
      const positive = rowDot(features, term.positive);
      const negative = rowDot(features, term.negative);
      const score = add(mul(positive, term.positiveFactor), mul(negative, term.negativeFactor));
      reward = reward ? add(reward, score) : score;
      parts.push({ positive, negative, features, input });
    });
  }
  if (!reward || !parts[0]) throw new Error("a micro-step needs at least one reward");
  const loss = mul(sumAll(relu(affine(reward, -1, options.threshold))), inputs.lossWeight);
  const { positive, negative, features, input } = parts[0];
  const inner = { z, velocity, moved, recovered, unclamped, pictures, input, features };
  const gradients = backward(graph, [[loss, options.seed ?? full(graph, [1], 1)]], options.wanted?.(inner) ?? []);
  return { loss, reward, positive, negative, pictures, inner, gradients };
}

/** The scalars of a branch, in the float32 arithmetic of the reference. */
export function branchScalars(
  from: number,
  to: number,
): { from: number; keep: number; move: number; to: number; recover: number } {
  const f = Math.fround;
  return { from: f(from), keep: f(1 - f(from)), move: f(f(to) - f(from)), to: f(to), recover: f(1 / f(1 - f(to))) };
}
