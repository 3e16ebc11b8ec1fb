// Numbers by chance for generated test files, the same for the same seed on every machine.

/** A small generator with a state of its own (mulberry32), so that a case is its number. */
export class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 0x9e3779b1) >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(limit: number): number {
    return this.next() % limit;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
  /** A number where readers go wrong. */
  edge(): bigint {
    const powers = [0n, 1n, 7n, 8n, 15n, 16n, 31n, 32n, 33n, 40n, 47n, 52n, 53n, 54n, 62n, 63n, 64n];
    return this.below(3) === 0 ? BigInt(this.below(300)) : (1n << this.pick(powers)) + BigInt(this.below(5)) - 2n;
  }
}
