// One AdamW step in double precision, the reference of the fused kernels: clipping by the global norm, decoupled weight
// decay before the update, bias-corrected moments, as torch.optim.AdamW does it.

import type { OptimizerSettings } from "../../src/optim/optimizer.ts";

export interface AdamWState {
  p: Float64Array;
  m: Float64Array;
  v: Float64Array;
  average: Float64Array;
}

export function adamwStart(p: Float64Array): AdamWState {
  return { p, m: new Float64Array(p.length), v: new Float64Array(p.length), average: p.slice() };
}

/** Norm of the gradients and the factor that clips them. */
export function clipFactor(gradient: ArrayLike<number>, maxNorm: number): { norm: number; factor: number } {
  let squares = 0;
  for (let i = 0; i < gradient.length; i++) squares += gradient[i]! ** 2;
  const norm = Math.sqrt(squares);
  return { norm, factor: maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1 };
}

/** Changes `state` in place; `t` counts from 1. Returns the norms before clipping, of the update and of the parameters. */
export function adamwStep(
  state: AdamWState,
  gradient: ArrayLike<number>,
  s: OptimizerSettings,
  rate: number,
  t: number,
): { norm: number; update: number; parameters: number } {
  const { norm, factor } = clipFactor(gradient, s.maxNorm);
  let updates = 0;
  let values = 0;
  for (let i = 0; i < state.p.length; i++) {
    const g = factor * gradient[i]!;
    const before = state.p[i]!;
    state.m[i] = s.beta1 * state.m[i]! + (1 - s.beta1) * g;
    state.v[i] = s.beta2 * state.v[i]! + (1 - s.beta2) * g * g;
    const first = state.m[i]! / (1 - s.beta1 ** t);
    const second = state.v[i]! / (1 - s.beta2 ** t);
    const after = before - rate * s.weightDecay * before - (rate * first) / (Math.sqrt(second) + s.epsilon);
    const decay = s.averageDecay ?? 0;
    state.average[i] = decay * state.average[i]! + (1 - decay) * after;
    state.p[i] = after;
    updates += (after - before) ** 2;
    values += after ** 2;
  }
  return { norm, update: Math.sqrt(updates), parameters: Math.sqrt(values) };
}
