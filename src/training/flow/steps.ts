// The traced parts of flow-matching training (Lipman et al. 2023; Liu et al. 2023, rectified flow): a picture and noise are
// mixed at sigma, z = (1 - sigma) x + sigma e, and the network's velocity is compared with e - x. Sigma, weights and text
// are data, so one plan of a geometry serves every update.

import type { VelocityInputs, VelocityNetwork } from "../../models/velocity_network.ts";
import { add, affine, div, mul, sqrt, square, sub } from "../../ops/pointwise.ts";
import { sum, sumAll } from "../../ops/reduce.ts";
import { reshape } from "../../ops/reshape.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";

export const FLOW_LOSSES = ["mse", "huber", "smooth_l1"] as const;
export type FlowLossKind = (typeof FLOW_LOSSES)[number];

export const HUBER_SCHEDULES = ["constant", "sigma"] as const;
/**
 * How the delta of "huber" and "smooth_l1" depends on sigma: not at all, or delta^sigma, which falls from 1 without noise to
 * delta at full noise (kohya's and diffusers' "exponential").
 */
export type HuberSchedule = (typeof HUBER_SCHEDULES)[number];

/** Everything of a step that the network is not told. */
export interface FlowMix {
  /** Model-scaled latents x and noise e, packed [B, L, C]. */
  clean: Tensor;
  noise: Tensor;
  /** sigma and 1 - sigma, [B, 1, 1] each. */
  sigma: Tensor;
  keep: Tensor;
  /** Share of each sample in the update's loss, [B]: weights over the number of samples of the update. */
  factor: Tensor;
  /** Delta of the pseudo-Huber losses, [B, 1]. */
  delta?: Tensor;
}

export type FlowInputs = FlowMix & Omit<VelocityInputs, "latents">;

export interface FlowLossOptions {
  loss: FlowLossKind;
  /** Trace transformer blocks again in the backward pass. */
  checkpoint?: boolean;
}

export interface FlowLoss {
  /** Sum over the samples of factor · mean over elements of the distance, [1], in f32. */
  loss: Tensor;
  /** The means alone, [B]. */
  samples: Tensor;
}

/**
 * Distances between prediction and target, element by element, from their difference:
 * - mse: d²
 * - huber: 2 δ (√(d² + δ²) - δ), which is d² for small d and 2 δ |d| for large
 * - smooth_l1: 2 (√(d² + δ²) - δ)
 * The pseudo-Huber distances are kohya's and diffusers'. They are worked out as 2 δ d² / (√(d² + δ²) + δ), because the
 * difference of two nearly equal numbers would have no digits left where d is small.
 */
export function flowDistance(kind: FlowLossKind, difference: Tensor, delta?: Tensor): Tensor {
  const squares = square(difference);
  if (kind === "mse") return squares;
  if (!delta) throw new Error(`the loss ${kind} needs a delta`);
  const root = sqrt(add(squares, square(delta)));
  const straight = div(squares, add(root, delta));
  return affine(kind === "huber" ? mul(straight, delta) : straight, 2, 0);
}

/** z = sigma e + (1 - sigma) x. */
export function mixNoise({ noise, clean, sigma, keep }: Pick<FlowMix, "noise" | "clean" | "sigma" | "keep">): Tensor {
  return add(mul(noise, sigma), mul(clean, keep));
}

/** The loss of a velocity of `mixNoise`'s latents. */
export function judgeFlow(graph: Graph, velocity: Tensor, inputs: FlowMix, loss: FlowLossKind): FlowLoss {
  return graph.scope("loss", () => {
    const batch = inputs.clean.dim(0);
    const flat = (tensor: Tensor) => reshape(tensor, [batch, tensor.size / batch]);
    const difference = sub(flat(velocity), sub(flat(inputs.noise), flat(inputs.clean)));
    const distance = flowDistance(loss, difference, inputs.delta);
    const samples = affine(sum(distance, 1), batch / distance.size, 0);
    return { loss: sumAll(mul(samples, inputs.factor)), samples };
  });
}

/** Traces the forward pass and the loss; the caller differentiates. */
export function traceFlowLoss(
  graph: Graph,
  model: VelocityNetwork,
  inputs: FlowInputs,
  options: FlowLossOptions,
): FlowLoss {
  const { output } = model.forward(graph, { latents: mixNoise(inputs), ...inputs }, { checkpoint: options.checkpoint });
  return judgeFlow(graph, output, inputs, options.loss);
}

/** Delta of a sample of the pseudo-Huber losses. */
export function huberDelta(schedule: HuberSchedule, delta: number, sigma: number): number {
  return schedule === "sigma" ? delta ** sigma : delta;
}
