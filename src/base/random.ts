// Random numbers that depend on nothing but (seed, stream, step, index): Philox4x32-10 of Salmon et al., «Parallel random
// numbers: as easy as 1, 2, 3» (2011). A run can be resumed, replayed or moved to a GPU without carrying a state, and the
// WGSL kernel that fills tensors makes the same integers, bit for bit.
//
// The mapping, for both implementations
//   key     = (seed mod 2^32, stream id), stream id = FNV-1a of the stream's name (`streamId`)
//   counter = (index >> 2, step, seed >> 32, 0)
//   word    = output word (index & 3) of that block: one block serves four neighbouring elements
//   uniform = (word >> 8) * 2^-24                                      in [0, 1), exact in float32
//   integer = lo + high32(word * (hi - lo + 1))                        in [lo, hi]
//   normal  = words a, b = 0, 1 or 2, 3 of the block give a pair:
//             radius = sqrt(-2 ln(((a >> 8) + 1) * 2^-24)),  largest 5.77
//             quadrant q = b >> 30,  angle t = (pi/2) (((b >> 8) & 0x3fffff) * 2^-22 - 1/2)  in [-pi/4, pi/4)
//             (cos, sin) of q * pi/2 + t = (c, s), (-s, c), (-c, -s), (s, -c) for q = 0, 1, 2, 3 with c, s = cos t, sin t
//             even element = radius * cosine, odd element = radius * sine
// The quadrant comes from the integer, so that sine and cosine are needed on [-pi/4, pi/4] alone, where short polynomials
// are exact to float32; `normalPairF32` is the evaluation in float32 that the kernel follows.

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const UNIT = 2 ** -24;

/** Upper 32 bits of the product of two unsigned 32-bit integers. */
export function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(cross / 65536)) >>> 0;
}

/**
 * One Philox4x32-10 block.
 * @param counter four 32-bit words
 * @param key two 32-bit words
 * @param out receives four 32-bit words at `at`
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
  out: Uint32Array = new Uint32Array(4),
  at = 0,
): Uint32Array {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  out[at] = c0;
  out[at + 1] = c1;
  out[at + 2] = c2;
  out[at + 3] = c3;
  return out;
}

/** The 32-bit number of a named stream: FNV-1a over the UTF-8 bytes of the name. */
export function streamId(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** A pair of standard normal numbers from two words, evaluated in double precision. */
export function normalPair(a: number, b: number): [number, number] {
  const radius = Math.sqrt(-2 * Math.log(((a >>> 8) + 1) * UNIT));
  const angle = (Math.PI / 2) * (((b >>> 8) & 0x3fffff) * 2 ** -22 - 0.5);
  return turn(radius, Math.cos(angle), Math.sin(angle), b >>> 30);
}

function turn(radius: number, cosine: number, sine: number, quadrant: number): [number, number] {
  if (quadrant === 0) return [radius * cosine, radius * sine];
  if (quadrant === 1) return [-radius * sine, radius * cosine];
  if (quadrant === 2) return [-radius * cosine, -radius * sine];
  return [radius * sine, -radius * cosine];
}

/** ln 2 in two parts: the first has so few bits that its product with an exponent is exact. */
const LN2_HIGH = 0.693359375;
const LN2_LOW = -2.1219444e-4;
/** ln(1 + x) - x + x²/2 over x³ on [sqrt(1/2) - 1, sqrt(2) - 1], Cephes `logf` (S. Moshier), highest power first. */
export const LOG_POLYNOMIAL: readonly number[] = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
];

/**
 * The same pair evaluated in float32, in the order of the WGSL kernel. It differs from `normalPair` by 5e-7 at most
 * (measured over 400,000 numbers), half of what the kernel is allowed.
 */
export function normalPairF32(a: number, b: number): [number, number] {
  const f = Math.fround;
  const bits = new Uint32Array(Float32Array.of(((a >>> 8) + 1) * UNIT).buffer)[0]!;
  let exponent = (bits >>> 23) - 126;
  let x = new Float32Array(Uint32Array.of((bits & 0x7fffff) | 0x3f000000).buffer)[0]!; // in [1/2, 1)
  if (x < f(Math.SQRT1_2)) {
    exponent -= 1;
    x = f(f(x + x) - 1);
  } else x = f(x - 1);
  const square = f(x * x);
  let polynomial = f(LOG_POLYNOMIAL[0]!);
  for (const coefficient of LOG_POLYNOMIAL.slice(1)) polynomial = f(f(polynomial * x) + f(coefficient));
  let log = f(f(polynomial * x) * square);
  log = f(log + f(exponent * f(LN2_LOW)));
  log = f(log - f(0.5 * square));
  log = f(f(x + log) + f(exponent * f(LN2_HIGH)));
  const radius = f(Math.sqrt(f(-2 * log)));

  const angle = f(f(Math.PI / 2) * f(((b >>> 8) & 0x3fffff) * 2 ** -22 - 0.5));
  const q = f(angle * angle);
  // Taylor series: at pi/4 the first terms left out are below 3e-8.
  const sineTail = f(f(f(f(f(q * f(1 / 362880)) - f(1 / 5040)) * q + f(1 / 120)) * q) - f(1 / 6));
  const sine = f(angle + f(f(angle * q) * sineTail));
  const cosineTail = f(f(f(f(f(q * f(1 / 40320)) - f(1 / 720)) * q + f(1 / 24)) * q) - 0.5);
  const cosine = f(1 + f(q * cosineTail));
  const [even, odd] = turn(radius, cosine, sine, b >>> 30);
  return [f(even), f(odd)];
}

/** A named stream of random numbers under a seed. It has no state: the same arguments always give the same numbers. */
export class RandomStream {
  readonly seed: number;
  readonly name: string;
  /** The two key words, as the GPU kernel takes them. */
  readonly key: readonly [number, number];
  /** Third counter word, as the GPU kernel takes it. */
  readonly seedHigh: number;

  /** @param seed a whole number from 0 to 2^53 - 1 */
  constructor(seed: number, name: string) {
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new RangeError(`seed ${seed} is not a whole number from 0 to 2^53 - 1`);
    this.seed = seed;
    this.name = name;
    this.key = [seed >>> 0, streamId(name)];
    this.seedHigh = Math.floor(seed / 2 ** 32);
  }

  /** The 32-bit words of elements `first` … `first + count - 1` of a step. */
  words(step: number, count: number, first = 0): Uint32Array {
    const firstBlock = Math.floor(first / 4);
    const blocks = Math.floor((first + count + 3) / 4) - firstBlock;
    const all = new Uint32Array(blocks * 4);
    for (let b = 0; b < blocks; b++) philox([firstBlock + b, step >>> 0, this.seedHigh, 0], this.key, all, b * 4);
    return all.subarray(first - firstBlock * 4, first - firstBlock * 4 + count);
  }

  /** Uniform numbers in [0, 1), multiples of 2^-24. */
  uniforms(step: number, count: number, first = 0): Float32Array {
    return Float32Array.from(this.words(step, count, first), (word) => (word >>> 8) * UNIT);
  }

  /** The uniform number of one element. */
  uniform(step: number, index = 0): number {
    return (this.words(step, 1, index)[0]! >>> 8) * UNIT;
  }

  /** A whole number from `lo` to `hi`, both included. */
  integer(step: number, index: number, lo: number, hi: number): number {
    if (!(hi >= lo)) throw new RangeError(`integer range ${lo} … ${hi} is empty`);
    return lo + multiplyHigh(this.words(step, 1, index)[0]!, hi - lo + 1);
  }

  /** Standard normal numbers; element i is the same whether asked for alone or in a longer array. */
  normals(step: number, count: number, first = 0): Float32Array {
    const start = first - (first % 4);
    const words = this.words(step, Math.ceil((first + count - start) / 4) * 4, start);
    const all = new Float32Array(words.length);
    for (let i = 0; i < words.length; i += 2) {
      const [even, odd] = normalPair(words[i]!, words[i + 1]!);
      all[i] = even;
      all[i + 1] = odd;
    }
    return all.subarray(first - start, first - start + count);
  }

  /** A permutation of 0 … n - 1 (Fisher–Yates, element i uses word i of the step). */
  permutation(step: number, n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    const words = this.words(step, n);
    for (let i = n - 1; i > 0; i--) {
      const j = multiplyHigh(words[i]!, i + 1);
      const kept = order[i]!;
      order[i] = order[j]!;
      order[j] = kept;
    }
    return order;
  }
}
