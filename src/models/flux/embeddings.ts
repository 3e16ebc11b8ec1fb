// Host-side tables of FLUX: sinusoids of times and guidance, rotary tables, position ids, packing of latents. They are made
// on the host because the reference computes them in a fixed precision that a device's sine and cosine cannot repeat.

/** Width of the sinusoidal vector that the time embedder reads. */
export const SINUSOID_WIDTH = 256;

/**
 * Sinusoids of `values` (sigma in 0..1, or a guidance scale): [cos | sin] of 1000 v f_i, cosines first, one row each.
 * In the float32 recipe of the reference: f = f32(exp(f32(f32(-ln 10000 * i) / 128))), argument f32(f32(1000 v) * f).
 */
export function sinusoids(values: readonly number[]): Float32Array {
  const half = SINUSOID_WIDTH / 2;
  const f = Math.fround;
  const out = new Float32Array(values.length * SINUSOID_WIDTH);
  const minusLog = f(-Math.log(10000));
  values.forEach((value, row) => {
    const scaled = f(1000 * f(value));
    for (let i = 0; i < half; i++) {
      const frequency = f(Math.exp(f(f(minusLog * i) / half)));
      const argument = f(scaled * frequency);
      out[row * SINUSOID_WIDTH + i] = Math.cos(argument);
      out[row * SINUSOID_WIDTH + half + i] = Math.sin(argument);
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
export function ropeTables(ids: readonly (readonly number[])[], axes: readonly number[], theta: number): { cosine: Float32Array; sine: Float32Array } {
  const half = axes.reduce((a, b) => a + b, 0) / 2;
  const cosine = new Float32Array(ids.length * half);
  const sine = new Float32Array(ids.length * half);
  ids.forEach((id, token) => {
    let at = token * half;
    axes.forEach((size, axis) => {
      for (let i = 0; i < size / 2; i++) {
        const angle = id[axis]! * theta ** (-2 * i / size);
        cosine[at] = Math.cos(angle);
        sine[at] = Math.sin(angle);
        at++;
      }
    });
  });
  return { cosine, sine };
}
