// The traced steps of SRPO: one Euler step of the rollout, and one Direct-Align micro-step: the part before the velocity
// (inject), and the part behind it (move, recover, decode, score, loss). Sigmas, times, discounts and text features are data,
// so one plan serves every branch and every update.

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

/** z + step · v: `step` [1] = sigma_next - sigma. */
export function eulerStep(z: Tensor, velocity: Tensor, step: Tensor): Tensor {
  return add(mul(velocity, step), z);
}

/** `eulerStep` with the velocity of z. */
export function traceEulerStep(
  graph: Graph,
  model: VelocityNetwork,
  z: Tensor,
  inputs: Conditioning & { step: Tensor },
): Tensor {
  const { output } = model.forward(graph, { latents: z, ...inputs });
  return eulerStep(z, output, inputs.step);
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

/** Everything of a micro-step that the network is not told. */
export interface AlignInputs {
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

export type MicroStepInputs = AlignInputs & Conditioning;

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

export interface JudgeOptions {
  threshold: number;
  /** Packed latent -> picture in [0, 1], not clamped. */
  decode: (graph: Graph, packed: Tensor) => Tensor;
  constant: Constant;
}

export interface MicroStepOptions extends JudgeOptions {
  /** Trace transformer blocks again in the backward pass. */
  checkpoint?: boolean;
  /** [1], 1 by default: the gradient that the backward pass begins with; the optimizer's loss scale. */
  seed?: Tensor;
  /** Inner values whose gradients are wanted (for comparisons). */
  wanted?: (inner: Record<string, Tensor>) => Tensor[];
}

/** The latents of a branch: noise put back into the clean ones. */
export function injectNoise({
  noise,
  clean,
  from,
  keep,
}: Pick<AlignInputs, "noise" | "clean" | "from" | "keep">): Tensor {
  return add(mul(noise, from), mul(clean, keep));
}

/** Moves along the velocity of z, recovers the picture, decodes it and scores it. */
export function judgeVelocity(
  graph: Graph,
  z: Tensor,
  velocity: Tensor,
  inputs: AlignInputs,
  options: JudgeOptions,
): MicroStep {
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
  return { loss, reward, positive, negative, pictures, inner };
}

/** Traces forward and backward of one branch; gradients of trained variables accumulate in their buffers. */
export function traceMicroStep(
  graph: Graph,
  model: VelocityNetwork,
  inputs: MicroStepInputs,
  options: MicroStepOptions,
): MicroStep & { gradients: (Tensor | null)[] } {
  const z = injectNoise(inputs);
  // Comparisons ask for the gradient of z; training does not need it.
  if (options.wanted) z.needsGradient = true;
  const { output } = model.forward(graph, { latents: z, ...inputs }, { checkpoint: options.checkpoint });
  const step = judgeVelocity(graph, z, output, inputs, options);
  const seed = options.seed ?? full(graph, [1], 1);
  const gradients = backward(graph, [[step.loss, seed]], options.wanted?.(step.inner) ?? []);
  return { ...step, gradients };
}

/** The scalars of a branch, in the float32 arithmetic of the reference. */
export function branchScalars(
  from: number,
  to: number,
): { from: number; keep: number; move: number; to: number; recover: number } {
  const f = Math.fround;
  return { from: f(from), keep: f(1 - f(from)), move: f(f(to) - f(from)), to: f(to), recover: f(1 / f(1 - f(to))) };
}
