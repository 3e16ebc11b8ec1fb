// How training draws its noise level sigma: the distributions of diffusers (Esser et al. 2024, section 3.1), of kohya's
// sd-scripts, and the mixture that the embedded models were trained with. A draw is a function of (stream, step, sample)
// alone, so a resumed run draws what an uninterrupted one would have drawn.
//
// diffusers' kinds turn their number u into an entry of the descending table of 1000 times, floor(1000 u), and train at
// that entry's sigma, so sigma is 1 - u cut to thousandths: a logit-normal draw with a positive mean trains at *low* noise.
// kohya's kinds use their number as sigma itself: a positive shift trains at high noise.

import type { RandomStream } from "../base/random.ts";
import { DEV_SHIFT, shiftExponent, TRAINING_STEPS } from "./shifting.ts";

export const SIGMA_SAMPLERS = [
  "uniform",
  "logit_normal",
  "mode",
  "sigma_sqrt",
  "cosmap",
  "sigmoid",
  "shift",
  "flux_shift",
  "mixture",
] as const;
export type SigmaSampler = (typeof SIGMA_SAMPLERS)[number];

export interface SigmaSettings {
  sampler: SigmaSampler;
  /** Mean and standard deviation of the normal number: "logit_normal" (0 and 1), "mixture" (0.3 and 1). */
  mean?: number;
  deviation?: number;
  /** "mode": 1.29. */
  modeScale?: number;
  /** Factor on the normal number of "sigmoid", "shift" and "flux_shift": 1. */
  sigmoidScale?: number;
  /** "shift": 3. */
  shift?: number;
}

/** Words of the stream that one sample owns: a normal number, a uniform one, and a coin. */
const WORDS = 4;
/** The least sigma of all kinds: the last entry of the table. At 0 there is no noise to predict. */
const LEAST = 1 / TRAINING_STEPS;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** s t / (1 + (s - 1) t). */
const shiftedBy = (t: number, shift: number): number => (shift * t) / (1 + (shift - 1) * t);

/** The table's entry floor(1000 u), as a sigma; u of 1 and of 0 stay inside. */
function tableSigma(u: number): number {
  const index = Math.min(TRAINING_STEPS - 1, Math.max(0, Math.floor(TRAINING_STEPS * u)));
  return (TRAINING_STEPS - index) / TRAINING_STEPS;
}

/**
 * Sigma of sample `sample` of update `step`, in [0.001, 1], rounded to float32.
 * - uniform: 1 - U
 * - logit_normal: table entry of sigmoid(mean + deviation N)
 * - mode: table entry of 1 - U - modeScale (cos²(pi U / 2) - 1 + U)
 * - sigma_sqrt, cosmap: table entry of U; they differ by the weight of the same name (weightings.ts)
 * - sigmoid: sigmoid(sigmoidScale N)
 * - shift: the same, shifted by `shift`
 * - flux_shift: the same, shifted by e^mu with mu from the number of tokens
 * - mixture: by a fair coin 1 - U or sigmoid(mean + deviation N)
 * @param tokens packed image tokens, for flux_shift
 */
export function drawSigma(
  settings: SigmaSettings,
  stream: RandomStream,
  step: number,
  sample: number,
  tokens: number,
): number {
  const first = WORDS * sample;
  const normal = () => stream.normals(step, 1, first)[0]!;
  const uniform = () => stream.uniform(step, first + 2);
  const scaled = () => sigmoid((settings.sigmoidScale ?? 1) * normal());
  const draw = (): number => {
    switch (settings.sampler) {
      case "uniform":
        return 1 - uniform();
      case "logit_normal":
        return tableSigma(sigmoid((settings.mean ?? 0) + (settings.deviation ?? 1) * normal()));
      case "mode": {
        const u = uniform();
        return tableSigma(1 - u - (settings.modeScale ?? 1.29) * (Math.cos((Math.PI * u) / 2) ** 2 - 1 + u));
      }
      case "sigma_sqrt":
      case "cosmap":
        return tableSigma(uniform());
      case "sigmoid":
        return scaled();
      case "shift":
        return shiftedBy(scaled(), settings.shift ?? DEV_SHIFT.shift);
      case "flux_shift":
        return shiftedBy(scaled(), Math.exp(shiftExponent(tokens)));
      case "mixture":
        return stream.uniform(step, first + 3) < 0.5
          ? 1 - uniform()
          : sigmoid((settings.mean ?? 0.3) + (settings.deviation ?? 1) * normal());
    }
  };
  return Math.fround(Math.min(1, Math.max(LEAST, draw())));
}
