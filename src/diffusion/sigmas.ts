// Sigma schedules of rectified flow in the arithmetic of the reference: float32, every operation rounded. The time that a
// network is told is 1000 sigma cut to an integer, and whether that is 900 or 899 hangs on the last bit, so the rounding
// is part of the algorithm.

const f = Math.fround;

/**
 * `count` values from `a` to `b`, both ends included, as torch.linspace gives them in float32: step = f32((b - a) / (n - 1));
 * the first half counts up from a, the second half down from b, each value rounded once.
 */
export function linspace(a: number, b: number, count: number): Float32Array {
  const out = new Float32Array(count);
  if (count === 1) {
    out[0] = a;
    return out;
  }
  const [first, last] = [f(a), f(b)];
  const step = f(f(last - first) / (count - 1));
  for (let i = 0; i < count; i++) {
    out[i] = i < Math.floor(count / 2) ? f(first + step * i) : f(last - step * (count - 1 - i));
  }
  return out;
}

/** Static time shift S(t) = s t / (1 + (s - 1) t), each operation rounded to float32. */
export function shifted(t: number, shift: number): number {
  const s = f(shift);
  return f(f(s * f(t)) / f(1 + f(f(s - 1) * f(t))));
}

/** Sigmas of a rollout or sampler: S(1 - i/T), i = 0..T; ends at exactly 0. */
export function rolloutSigmas(steps: number, shift: number): Float32Array {
  return linspace(1, 0, steps + 1).map((t) => shifted(t, shift));
}

/** What the network is told instead of sigma: the float32 product 1000 sigma, cut to an integer, over 1000. */
export function modelTime(sigma: number): number {
  return Math.trunc(f(1000 * f(sigma))) / 1000;
}
