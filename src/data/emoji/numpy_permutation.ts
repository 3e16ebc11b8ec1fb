// NumPy's `default_rng(seed).permutation(n)`: the generator PCG64 (O'Neill, "PCG: a family of simple fast space-efficient
// statistically good algorithms", 2014) behind NumPy's SeedSequence. The ranks of the embedded experiment's items were drawn
// with it, and only the same generator repeats them.

const WORD = 0xffffffffn;
const LONG = 0xffffffffffffffffn;
const WIDE = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL_WORDS = 4;

/** Four 64-bit words that NumPy's SeedSequence makes of a small seed. */
function seedWords(seed: number): bigint[] {
  let constant = 0x43b0d7e5;
  const mixIn = (value: number): number => {
    let v = value ^ constant;
    constant = Math.imul(constant, 0x931e8875);
    v = Math.imul(v, constant);
    return (v ^ (v >>> 16)) >>> 0;
  };
  const mix = (x: number, y: number): number => {
    const v = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
    return (v ^ (v >>> 16)) >>> 0;
  };
  const entropy = seed > 0xffffffff ? [seed >>> 0, Math.floor(seed / 2 ** 32)] : [seed];
  const pool = Array.from({ length: POOL_WORDS }, (_, i) => mixIn(entropy[i] ?? 0));
  for (let from = 0; from < POOL_WORDS; from++)
    for (let to = 0; to < POOL_WORDS; to++) if (from !== to) pool[to] = mix(pool[to]!, mixIn(pool[from]!));
  let output = 0x8b51f9dd;
  const words = Array.from({ length: 8 }, (_, i) => {
    let v = pool[i % POOL_WORDS]! ^ output;
    output = Math.imul(output, 0x58f38ded);
    v = Math.imul(v, output);
    return BigInt((v ^ (v >>> 16)) >>> 0);
  });
  return [0, 2, 4, 6].map((i) => words[i]! | (words[i + 1]! << 32n));
}

/** The generator; permutations follow one another as calls on one NumPy generator do. */
export class NumpyGenerator {
  #state: bigint;
  readonly #increment: bigint;
  /** The upper half of the last 64-bit word, where it was not used yet. */
  #spare: bigint | null = null;

  /** @param seed a whole number from 0 to 2^53 - 1 */
  constructor(seed: number) {
    const [a, b, c, d] = seedWords(seed) as [bigint, bigint, bigint, bigint];
    this.#increment = ((((c << 64n) | d) << 1n) | 1n) & WIDE;
    this.#state = 0n;
    this.#step();
    this.#state = (this.#state + ((a << 64n) | b)) & WIDE;
    this.#step();
  }

  #step(): void {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & WIDE;
  }

  #word(): bigint {
    if (this.#spare !== null) {
      const kept = this.#spare;
      this.#spare = null;
      return kept;
    }
    this.#step();
    const mixed = (this.#state >> 64n) ^ (this.#state & LONG);
    const turn = this.#state >> 122n;
    const long = ((mixed >> turn) | (mixed << (64n - turn))) & LONG;
    this.#spare = long >> 32n;
    return long & WORD;
  }

  /** A whole number from 0 to `most`: words cut to as many bits, until one is small enough. */
  #below(most: number): number {
    const mask = (1n << BigInt(32 - Math.clz32(most))) - 1n;
    for (;;) {
      const value = Number(this.#word() & mask);
      if (value <= most) return value;
    }
  }

  /** A permutation of 0 … n - 1. */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.#below(i);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
