// FLUX.2's time shift: its logarithm mu is a fit to measurements, a function of the number of image tokens and of the number of
// steps (fewer steps are spent at higher noise). Constants and rule are those of Black Forest Labs' sampler, as diffusers has them.

import { exponentiallyShifted } from "./shifting.ts";
import { linspace } from "./sigmas.ts";

/** mu = slope * tokens + offset, measured at 200 steps and at 10. */
const AT_200 = { slope: 0.00016927, offset: 0.45666666 };
const AT_10 = { slope: 8.73809524e-5, offset: 1.89833333 };
/** Above this many tokens the number of steps no longer counts. */
const STEPS_COUNT_TO = 4300;

/** Steps that the distilled models (FLUX.2 klein) are made for. */
export const DISTILLED_STEPS = 4;

/** Logarithm of FLUX.2's shift for packed image tokens and sampler steps; linear in the steps through both measurements. */
export function empiricalShiftExponent(tokens: number, steps: number): number {
  const at200 = AT_200.slope * tokens + AT_200.offset;
  if (tokens > STEPS_COUNT_TO) return at200;
  const at10 = AT_10.slope * tokens + AT_10.offset;
  const slope = (at200 - at10) / 190;
  return slope * steps + (at200 - 200 * slope);
}

/**
 * Sigmas of a FLUX.2 sampler with `steps` steps, `steps + 1` values that end at 0: linspace(1, 1/steps), shifted.
 * @param tokens packed image tokens, without those of reference pictures
 */
export function empiricalSigmas(steps: number, tokens: number): Float32Array {
  const mu = empiricalShiftExponent(tokens, steps);
  const out = new Float32Array(steps + 1);
  linspace(1, 1 / steps, steps).forEach((t, i) => {
    out[i] = exponentiallyShifted(t, mu);
  });
  return out;
}
