// Weights of the flow-matching loss by the noise level sigma: those of diffusers' `weighting_scheme` (Esser et al. 2024,
// section 3.1) and the bell of ai-toolkit, which trains the middle of the noise range more than its ends.

import { TRAINING_STEPS } from "./shifting.ts";

export const WEIGHTINGS = ["none", "logit_normal", "mode", "sigma_sqrt", "cosmap", "bell", "half_bell"] as const;
/** "logit_normal" and "mode" name samplers alone: their weight is 1, as in diffusers. */
export type Weighting = (typeof WEIGHTINGS)[number];

const bellHeight = (sigma: number): number => Math.exp(-2 * (sigma - 0.5) ** 2);
const BELL_FLOOR = bellHeight(1);
/** Mean of the bell over the training table, so that its weights have the mean 1. */
const BELL_MEAN =
  Array.from({ length: TRAINING_STEPS }, (_, i) => bellHeight((i + 1) / TRAINING_STEPS) - BELL_FLOOR).reduce(
    (a, b) => a + b,
  ) / TRAINING_STEPS;

/**
 * Factor on the squared error of a sample at `sigma` in (0, 1]:
 * - sigma_sqrt: sigma^-2
 * - cosmap: 2 / (pi (1 - 2 sigma + 2 sigma²))
 * - bell: exp(-2 (sigma - 1/2)²) minus its value at the ends, over the mean of that on the training table; 1.4 at most
 * - half_bell: the bell down to the middle, its highest value at all lower noise
 * - the others: 1
 */
export function sigmaWeight(weighting: Weighting, sigma: number): number {
  switch (weighting) {
    case "sigma_sqrt":
      return sigma ** -2;
    case "cosmap":
      return 2 / (Math.PI * (1 - 2 * sigma + 2 * sigma * sigma));
    case "bell":
      return (bellHeight(sigma) - BELL_FLOOR) / BELL_MEAN;
    case "half_bell":
      return (bellHeight(Math.max(sigma, 0.5)) - BELL_FLOOR) / BELL_MEAN;
    default:
      return 1;
  }
}
