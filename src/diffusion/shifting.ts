// Sigma tables of a FLUX sampler and of its training, as diffusers' FlowMatchEulerDiscreteScheduler makes them: a static
// time shift, or one that grows with the number of image tokens (Esser et al. 2024, "Scaling Rectified Flow Transformers",
// section 5.3.2). Large pictures hide their content less under the same noise, so they are given more steps at high noise.

import { linspace, shifted } from "./sigmas.ts";

const f = Math.fround;

/** Entries of the training table; times are told to the network in thousandths. */
export const TRAINING_STEPS = 1000;

/** The fields of a scheduler_config.json that decide its sigmas. */
export interface ShiftConfig {
  /** Factor of the static shift; 1 leaves the schedule as it is. */
  shift: number;
  /** Shift by exp(mu) with mu from the number of tokens, in place of `shift`. */
  dynamic: boolean;
  /** mu at `baseTokens` and at `maxTokens`; linear between them and beyond. */
  baseShift: number;
  maxShift: number;
  baseTokens: number;
  maxTokens: number;
}

/** FLUX.1-dev. */
export const DEV_SHIFT: ShiftConfig = {
  shift: 3,
  dynamic: true,
  baseShift: 0.5,
  maxShift: 1.15,
  baseTokens: 256,
  maxTokens: 4096,
};

/** FLUX.1-schnell. */
export const SCHNELL_SHIFT: ShiftConfig = { ...DEV_SHIFT, shift: 1, dynamic: false };

/** Logarithm mu of the resolution-dependent shift: 0.5 at 256 tokens, 1.15 at 4096 with the values of FLUX.1-dev. */
export function shiftExponent(tokens: number, config: ShiftConfig = DEV_SHIFT): number {
  const slope = (config.maxShift - config.baseShift) / (config.maxTokens - config.baseTokens);
  return tokens * slope + (config.baseShift - slope * config.baseTokens);
}

/** e^mu / (e^mu + 1/t - 1), each operation rounded to float32: the static shift by e^mu, written so that t = 0 gives 0. */
export function exponentiallyShifted(t: number, mu: number): number {
  const factor = f(Math.exp(mu));
  return f(factor / f(factor + f(f(1 / f(t)) - 1)));
}

function shiftedBy(t: number, config: ShiftConfig, tokens: number): number {
  return config.dynamic ? exponentiallyShifted(t, shiftExponent(tokens, config)) : shifted(t, config.shift);
}

/**
 * Sigmas of a sampler with `steps` steps, `steps + 1` values that end at 0: linspace(1, 1/steps), shifted.
 * @param tokens packed image tokens; read where the shift is dynamic
 */
export function samplerSigmas(steps: number, config: ShiftConfig, tokens: number): Float32Array {
  const out = new Float32Array(steps + 1);
  linspace(1, 1 / steps, steps).forEach((t, i) => {
    out[i] = shiftedBy(t, config, tokens);
  });
  return out;
}

/** The 1000 sigmas of training, noisiest first: 1, 0.999, ..., 0.001, with the static shift. A dynamic one stays out. */
export function trainingSigmas(config: ShiftConfig): Float32Array {
  const table = Float32Array.from({ length: TRAINING_STEPS }, (_, i) => (TRAINING_STEPS - i) / TRAINING_STEPS);
  return config.dynamic ? table : table.map((t) => shifted(t, config.shift));
}
