// Resizing pictures on the host. Each output pixel is a short weighted run of input pixels, first along rows, then along
// columns: for 8-bit pictures with Pillow's arithmetic (`ImagingResample`: weights as 22-bit fixed-point numbers, rounding
// after each pass), so that the results are its bytes; for planes of float32 with the weights of torchvision's `resize`.

export type ResizeFilter = "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";

/** A part of the resized picture, in its pixels. */
export interface Window {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface ResizeOptions {
  /** Bicubic by default. */
  filter?: ResizeFilter;
  /** Computes this part alone. */
  window?: Window;
}

/** Reach of each filter to either side, in pixels of the smaller of the two pictures. */
const SUPPORT: Readonly<Record<ResizeFilter, number>> = {
  nearest: 0.5,
  box: 0.5,
  bilinear: 1,
  hamming: 1,
  bicubic: 2,
  lanczos: 3,
};

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Cubic convolution (Keys 1981) with free parameter a. */
function cubic(x: number, a: number): number {
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? a * (((t - 5) * t + 8) * t - 4) : 0;
}

const KERNELS: Readonly<Record<Exclude<ResizeFilter, "nearest">, (x: number) => number>> = {
  box: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0),
  bilinear: (x) => Math.max(0, 1 - Math.abs(x)),
  hamming: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))),
  bicubic: (x) => cubic(x, -0.5),
  lanczos: (x) => (Math.abs(x) >= 3 ? 0 : sinc(x) * sinc(x / 3)),
};

/** Taps of neighbouring outputs: output i is the sum of weights[i * most + k] times input starts[i] + k, k < counts[i]. */
export interface Taps {
  starts: Int32Array;
  counts: Int32Array;
  /** Most taps of one output, the stride of `weights`. */
  most: number;
  weights: Float64Array;
}

/**
 * Taps for resizing a line of `from` pixels to `to`: outputs `first` … `first + count - 1`.
 * @param antialias widens the filter when the picture shrinks, as Pillow always does; without it bilinear and bicubic (with
 *   a = -0.75) read two and four neighbours, those beyond the border on the border pixel, as torch does
 */
export function resizeTaps(
  from: number,
  to: number,
  filter: ResizeFilter,
  { antialias = true, first = 0, count = to }: { antialias?: boolean; first?: number; count?: number } = {},
): Taps {
  if (first < 0 || first + count > to) throw new RangeError(`window ${first} + ${count} lies outside ${to} pixels`);
  const scale = from / to;
  const stretch = antialias ? Math.max(scale, 1) : 1;
  const most = filter === "nearest" ? 1 : Math.ceil(SUPPORT[filter] * stretch) * 2 + 1;
  const starts = new Int32Array(count);
  const counts = new Int32Array(count);
  const weights = new Float64Array(count * most);
  for (let i = 0; i < count; i++) {
    const centre = (first + i + 0.5) * scale;
    const at = i * most;
    if (filter === "nearest") {
      starts[i] = Math.min(Math.floor(centre), from - 1);
      counts[i] = 1;
      weights[at] = 1;
    } else if (antialias) {
      const support = SUPPORT[filter] * stretch;
      const start = Math.max(Math.trunc(centre - support + 0.5), 0);
      const end = Math.min(Math.trunc(centre + support + 0.5), from);
      starts[i] = start;
      counts[i] = end - start;
      let sum = 0;
      for (let k = 0; k < end - start; k++) {
        const weight = KERNELS[filter]((start + k - centre + 0.5) / stretch);
        weights[at + k] = weight;
        sum += weight;
      }
      if (sum !== 0) for (let k = 0; k < end - start; k++) weights[at + k]! /= sum;
    } else plainTaps(from, centre - 0.5, filter, starts, counts, weights, i, most);
  }
  return { starts, counts, most, weights };
}

function plainTaps(
  from: number,
  centre: number,
  filter: ResizeFilter,
  starts: Int32Array,
  counts: Int32Array,
  weights: Float64Array,
  i: number,
  most: number,
): void {
  const isCubic = filter === "bicubic";
  if (!isCubic && filter !== "bilinear") throw new RangeError(`${filter} is not defined without antialiasing`);
  // torch clamps the position for two taps, and the taps alone for four.
  const place = isCubic ? centre : Math.max(centre, 0);
  const base = Math.floor(place);
  const [low, high] = isCubic ? [-1, 2] : [0, 1];
  const inside = (x: number) => Math.min(Math.max(x, 0), from - 1);
  starts[i] = inside(base + low);
  counts[i] = inside(base + high) - starts[i]! + 1;
  for (let k = low; k <= high; k++) {
    const x = place - base - k;
    weights[i * most + inside(base + k) - starts[i]!]! += isCubic ? cubic(x, -0.75) : 1 - Math.abs(x);
  }
}

/** Fraction bits of Pillow's weights: 32 without 8 of the pixel and 2 for what overshoots. */
const PILLOW_BITS = 22;

/** torch keeps weights in 16 bits: as many fraction bits as the largest of them leaves. */
function torchBits({ weights }: Taps): number {
  const largest = weights.reduce((a, b) => Math.max(a, b), 0);
  let bits = 0;
  while (bits < PILLOW_BITS && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  return bits;
}

function fixedPoint({ weights }: Taps, bits: number): Int32Array {
  const scale = 2 ** bits;
  return Int32Array.from(weights, (weight) => Math.trunc(weight * scale + (weight < 0 ? -0.5 : 0.5)));
}

/**
 * Resizes an 8-bit picture [height, width, channels] to [toHeight, toWidth, channels] (or to a window of that): Pillow's
 * `Image.resize`, byte for byte, or torchvision's `resize` of uint8 tensors with antialias.
 */
export function resizeBytes(
  data: Uint8Array,
  width: number,
  height: number,
  channels: number,
  toWidth: number,
  toHeight: number,
  { filter = "bicubic", window, arithmetic = "pillow" }: ResizeOptions & { arithmetic?: "pillow" | "torch" } = {},
): Uint8Array {
  if (data.length !== width * height * channels) throw new RangeError("the data has another size than the picture");
  const part = window ?? { left: 0, top: 0, width: toWidth, height: toHeight };
  const columns = resizeTaps(width, toWidth, filter, { first: part.left, count: part.width });
  const rows = resizeTaps(height, toHeight, filter, { first: part.top, count: part.height });
  const [columnBits, rowBits] =
    arithmetic === "pillow" ? [PILLOW_BITS, PILLOW_BITS] : [torchBits(columns), torchBits(rows)];
  const [columnWeights, rowWeights] = [fixedPoint(columns, columnBits), fixedPoint(rows, rowBits)];
  // Each pass rounds, so their order shows. Since version 13 Pillow begins with the columns where they lose more than
  // twice as much as the rows (found from its results, 12 and older always begin with the rows).
  const columnsFirst = arithmetic === "pillow" && toHeight < height && 2 * (width - toWidth) < height - toHeight;
  if (columnsFirst) {
    const middle = passColumns(data, width * channels, 0, rows, rowWeights, rowBits);
    return passRows(middle, width, 0, part.height, channels, columns, columnWeights, columnBits);
  }
  const [firstRow, endRow] = reach(rows);
  const middle = passRows(data, width, firstRow, endRow, channels, columns, columnWeights, columnBits);
  return passColumns(middle, part.width * channels, firstRow, rows, rowWeights, rowBits);
}

/** First input and the end of inputs that any output reads. */
function reach({ starts, counts }: Taps): [number, number] {
  let [first, end] = [Number.POSITIVE_INFINITY, 0];
  for (let i = 0; i < starts.length; i++) {
    first = Math.min(first, starts[i]!);
    end = Math.max(end, starts[i]! + counts[i]!);
  }
  return [first, end];
}

function passRows(
  data: Uint8Array,
  width: number,
  firstRow: number,
  endRow: number,
  channels: number,
  { starts, counts, most }: Taps,
  weights: Int32Array,
  bits: number,
): Uint8Array {
  const out = new Uint8ClampedArray((endRow - firstRow) * starts.length * channels);
  const half = 1 << (bits - 1);
  let to = 0;
  for (let y = firstRow; y < endRow; y++) {
    const row = y * width * channels;
    for (let x = 0; x < starts.length; x++) {
      const from = row + starts[x]! * channels;
      const w = x * most;
      const end = w + counts[x]!;
      if (channels === 3) {
        let [r, g, b] = [half, half, half];
        for (let k = w, at = from; k < end; k++, at += 3) {
          const weight = weights[k]!;
          r += data[at]! * weight;
          g += data[at + 1]! * weight;
          b += data[at + 2]! * weight;
        }
        out[to] = r >> bits;
        out[to + 1] = g >> bits;
        out[to + 2] = b >> bits;
        to += 3;
        continue;
      }
      for (let c = 0; c < channels; c++) {
        let sum = half;
        for (let k = w, at = from + c; k < end; k++, at += channels) sum += data[at]! * weights[k]!;
        out[to++] = sum >> bits;
      }
    }
  }
  return new Uint8Array(out.buffer);
}

/** Sums whole rows, so that memory is read in order; `data` begins with row `firstRow`. */
function passColumns(
  data: Uint8Array,
  rowLength: number,
  firstRow: number,
  { starts, counts, most }: Taps,
  weights: Int32Array,
  bits: number,
): Uint8Array {
  const out = new Uint8ClampedArray(starts.length * rowLength);
  const sums = new Int32Array(rowLength);
  for (let y = 0; y < starts.length; y++) {
    sums.fill(1 << (bits - 1));
    for (let k = 0; k < counts[y]!; k++) {
      const weight = weights[y * most + k]!;
      const from = (starts[y]! + k - firstRow) * rowLength;
      for (let x = 0; x < rowLength; x++) sums[x]! += data[from + x]! * weight;
    }
    const to = y * rowLength;
    for (let x = 0; x < rowLength; x++) out[to + x] = sums[x]! >> bits;
  }
  return new Uint8Array(out.buffer);
}

/**
 * Resizes planes [channels, height, width] of float32 (or a window of the result), as torchvision does with tensors. Sums
 * are in double precision, in a fixed order; values beyond the input's range appear where the filter overshoots.
 */
export function resizePlanes(
  data: Float32Array,
  width: number,
  height: number,
  toWidth: number,
  toHeight: number,
  { filter = "bicubic", antialias = true, window }: ResizeOptions & { antialias?: boolean } = {},
): Float32Array {
  const planes = data.length / (width * height);
  if (!Number.isInteger(planes)) throw new RangeError("the data has another size than the planes");
  const part = window ?? { left: 0, top: 0, width: toWidth, height: toHeight };
  const columns = resizeTaps(width, toWidth, filter, { antialias, first: part.left, count: part.width });
  const rows = resizeTaps(height, toHeight, filter, { antialias, first: part.top, count: part.height });
  const [firstRow, endRow] = reach(rows);
  const wide = part.width;
  const middle = new Float32Array((endRow - firstRow) * wide);
  const sums = new Float64Array(wide);
  const out = new Float32Array(planes * wide * part.height);
  for (let p = 0; p < planes; p++) {
    for (let y = firstRow; y < endRow; y++) {
      const row = (p * height + y) * width;
      for (let x = 0; x < wide; x++) {
        let sum = 0;
        const from = row + columns.starts[x]!;
        for (let k = 0; k < columns.counts[x]!; k++) sum += data[from + k]! * columns.weights[x * columns.most + k]!;
        middle[(y - firstRow) * wide + x] = sum;
      }
    }
    for (let y = 0; y < part.height; y++) {
      sums.fill(0);
      for (let k = 0; k < rows.counts[y]!; k++) {
        const weight = rows.weights[y * rows.most + k]!;
        const from = (rows.starts[y]! + k - firstRow) * wide;
        for (let x = 0; x < wide; x++) sums[x]! += middle[from + x]! * weight;
      }
      out.set(sums, (p * part.height + y) * wide);
    }
  }
  return out;
}
