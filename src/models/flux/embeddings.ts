// Host-side tables of FLUX: sinusoids of times and guidance, rotary tables, position ids, packing of latents. They are made
// on the host because the reference computes them in a fixed precision that a device's sine and cosine cannot repeat.

/** Width of the sinusoidal vector that the time embedder reads. */
export const SINUSOID_WIDTH = 256;

const f = Math.fround;
const HALF = SINUSOID_WIDTH / 2;

/**
 * Frequencies f_i = exp(-ln 10000 · i / 128) in the float32 recipe of the reference: f32(exp(f32(f32(-ln 10000 · i) / 128))).
 * Correctly rounded; the reference's own vectorised exp is one unit in the last place off in a few entries, and in which
 * ones depends on the processor that it ran on.
 */
export const SINUSOID_FREQUENCIES: Float32Array = Float32Array.from({ length: HALF }, (_, i) =>
  Math.exp(f(f(f(-Math.log(10000)) * i) / HALF)),
);

/**
 * Sinusoids of `values` (sigma in 0..1, or a guidance scale): [cos | sin] of f32(f32(1000 v) · f_i), cosines first, one
 * row each.
 */
export function sinusoids(values: readonly number[], frequencies: Float32Array = SINUSOID_FREQUENCIES): Float32Array {
  const out = new Float32Array(values.length * SINUSOID_WIDTH);
  values.forEach((value, row) => {
    const scaled = f(1000 * f(value));
    for (let i = 0; i < HALF; i++) {
      const argument = f(scaled * frequencies[i]!);
      out[row * SINUSOID_WIDTH + i] = Math.cos(argument);
      out[row * SINUSOID_WIDTH + HALF + i] = Math.sin(argument);
    }
  });
  return out;
}

/** Position ids [tokens, 3]: text rows are zero, image rows are (0, row, column). */
export function positionIds(textTokens: number, rows: number, columns: number): number[][] {
  const ids = Array.from({ length: textTokens }, () => [0, 0, 0]);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) ids.push([0, r, c]);
  return ids;
}

/** Rotary tables [tokens, headSize / 2] from position ids; frequencies in double precision, stored as f32. */
export function ropeTables(
  ids: readonly (readonly number[])[],
  axes: readonly number[],
  theta: number,
): { cosine: Float32Array; sine: Float32Array } {
  const half = axes.reduce((a, b) => a + b, 0) / 2;
  const cosine = new Float32Array(ids.length * half);
  const sine = new Float32Array(ids.length * half);
  ids.forEach((id, token) => {
    let at = token * half;
    axes.forEach((size, axis) => {
      for (let i = 0; i < size / 2; i++) {
        const angle = id[axis]! * theta ** ((-2 * i) / size);
        cosine[at] = Math.cos(angle);
        sine[at] = Math.sin(angle);
        at++;
      }
    });
  });
  return { cosine, sine };
}
