// The task of the matmul benchmark: Y = X Wᴿ, R products one after the other. Nothing of it can be left out or folded
// beforehand, intermediate results stay on the device, and the whole result is checked in O(n²) with a random vector
// (Freivalds 1979): Y v must be X (W (W … v)).

export interface ChainTask {
  size: number;
  products: number;
}

/** X and W, row-major; W is scaled so that products keep their size. */
export function chainInputs({ size }: ChainTask): { x: Float32Array; w: Float32Array } {
  const scale = Math.sqrt(3 / size);
  return { x: noise(size * size, 1, 1), w: noise(size * size, 2, scale) };
}

/** Uniform values in [-scale, scale), the same on every machine. */
export function noise(count: number, seed: number, scale: number): Float32Array {
  const out = new Float32Array(count);
  let s = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    s ^= s << 13;
    s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5;
    s >>>= 0;
    out[i] = (s / 2 ** 31 - 1) * scale;
  }
  return out;
}

/** ‖Y v − X Wᴿ v‖ / ‖X Wᴿ v‖ in double precision. */
export function chainError({ size, products }: ChainTask, y: ArrayLike<number>): number {
  const { x, w } = chainInputs({ size, products });
  let v = Float64Array.from(noise(size, 3, 1));
  const left = times(y, v, size);
  for (let i = 0; i < products; i++) v = times(w, v, size);
  const right = times(x, v, size);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < size; i++) {
    difference += (left[i]! - right[i]!) ** 2;
    norm += right[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}

function times(a: ArrayLike<number>, v: Float64Array, size: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let j = 0; j < size; j++) sum += a[i * size + j]! * v[j]!;
    out[i] = sum;
  }
  return out;
}

/** Multiply-adds count as two. */
export function chainFlops({ size, products }: ChainTask): number {
  return 2 * size ** 3 * products;
}
