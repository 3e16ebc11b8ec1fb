// Plain statistics of generated pictures that show a reward being gamed before anybody looks: colours that overshoot,
// contrast that climbs, edges too hard or gone, a grid with the period of the autoencoder's cells, and pictures of one
// item that become the same picture. All of them are cheap and none of them is optimised.

/** Weights of ITU-R BT.709 on the stored (gamma-coded) values. */
const LUMINANCE = [0.2126, 0.7152, 0.0722] as const;

export interface PictureStatistics {
  /** Mean over pixels of (largest - smallest channel), [0, 1]. */
  saturation: number;
  /** Standard deviation of the luminance over a picture's pixels, averaged over pictures. */
  contrast: number;
  /** Standard deviation of the 4-neighbour Laplacian of the luminance, averaged over pictures. */
  sharpness: number;
  /** Share of the Laplacian's variance that repeats with period 8 px; see `gridEnergy`. */
  grid8: number;
  /** The same with period 16 px. */
  grid16: number;
}

/**
 * Statistics of a batch of pictures.
 * @param pixels [N, 3, height, width], values in [0, 1]
 */
export function pictureStatistics(
  pixels: Float32Array,
  count: number,
  height: number,
  width: number,
): PictureStatistics {
  const area = height * width;
  const laplacians = new Float32Array(count * area);
  let saturation = 0;
  let contrast = 0;
  let sharpness = 0;
  const luminance = new Float32Array(area);
  for (let picture = 0; picture < count; picture++) {
    const red = picture * 3 * area;
    const green = red + area;
    const blue = green + area;
    for (let i = 0; i < area; i++) {
      const r = pixels[red + i]!;
      const g = pixels[green + i]!;
      const b = pixels[blue + i]!;
      saturation += Math.max(r, g, b) - Math.min(r, g, b);
      luminance[i] = LUMINANCE[0] * r + LUMINANCE[1] * g + LUMINANCE[2] * b;
    }
    contrast += deviation(luminance);
    const field = laplacians.subarray(picture * area, (picture + 1) * area);
    laplacian(luminance, height, width, field);
    sharpness += deviation(field);
  }
  return {
    saturation: saturation / (count * area),
    contrast: contrast / count,
    sharpness: sharpness / count,
    grid8: gridEnergy(laplacians, count, height, width, 8),
    grid16: gridEnergy(laplacians, count, height, width, 16),
  };
}

/**
 * Energy of a grid of period `period` px that all pictures share, about 0 without one and 1 where there is nothing
 * else.
 *
 * The Laplacian fields are folded: values at equal (y mod period, x mod period) are averaged over all M cells of all
 * pictures.
 * With s = variance of that mean cell / variance of all values, M cells of unrelated content give s = 1/M on average,
 * so
 * (M s - 1) / (M - 1) is returned: the intraclass correlation, which can be a little below 0 by chance. Latent cells
 * are
 * 8 px wide and packed tokens 16 px, always in the same phase; content shares no phase and averages out.
 * @param fields [count, height, width]
 */
export function gridEnergy(fields: Float32Array, count: number, height: number, width: number, period: number): number {
  const rows = Math.floor(height / period);
  const columns = Math.floor(width / period);
  const cells = count * rows * columns;
  if (cells < 2) return 0;
  const folded = new Float64Array(period * period);
  let sum = 0;
  let squares = 0;
  for (let picture = 0; picture < count; picture++) {
    for (let y = 0; y < rows * period; y++) {
      const start = (picture * height + y) * width;
      const place = (y % period) * period;
      for (let x = 0; x < columns * period; x++) {
        const value = fields[start + x]!;
        folded[place + (x % period)]! += value;
        sum += value;
        squares += value * value;
      }
    }
  }
  const values = cells * period * period;
  const centre = sum / values;
  const variance = squares / values - centre * centre;
  // Flat pictures have no energy at all, so none of it is a grid's; the bound is float32 rounding of values near 1.
  if (variance < 1e-12) return 0;
  let between = 0;
  for (const total of folded) between += (total / cells - centre) ** 2;
  const share = between / (period * period) / variance;
  return (cells * share - 1) / (cells - 1);
}

/** 4-neighbour Laplacian with the border repeated; `field` and `out` are [height, width]. */
export function laplacian(field: Float32Array, height: number, width: number, out: Float32Array): void {
  for (let y = 0; y < height; y++) {
    const row = y * width;
    const up = Math.max(0, y - 1) * width;
    const down = Math.min(height - 1, y + 1) * width;
    for (let x = 0; x < width; x++) {
      const left = field[row + Math.max(0, x - 1)]!;
      const right = field[row + Math.min(width - 1, x + 1)]!;
      out[row + x] = left + right + field[up + x]! + field[down + x]! - 4 * field[row + x]!;
    }
  }
}

/**
 * Diversity of the pictures of one item: 1 - mean cosine over all pairs of their judge features.
 * @returns null for fewer than two pictures
 */
export function diversity(features: readonly ArrayLike<number>[]): number | null {
  if (features.length < 2) return null;
  let sum = 0;
  let pairs = 0;
  for (let i = 0; i < features.length; i++) {
    for (let j = i + 1; j < features.length; j++) {
      sum += cosine(features[i]!, features[j]!);
      pairs++;
    }
  }
  return 1 - sum / pairs;
}

/** Cosine of two vectors; 0 where one of them is zero. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let dot = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! * a[i]!;
    bb += b[i]! * b[i]!;
  }
  return aa === 0 || bb === 0 ? 0 : dot / Math.sqrt(aa * bb);
}

function deviation(values: Float32Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  const centre = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - centre) ** 2;
  return Math.sqrt(squares / values.length);
}
