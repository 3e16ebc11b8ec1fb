// AdamW with moments of 8 bits in double precision, block by block from the codes as they lie in memory: the reference of
// the fused kernel (Dettmers et al. 2022). The map is built a second time here, by its definition: decades of ten.

import type { OptimizerSettings } from "../../src/optim/optimizer.ts";

const BLOCK = 256;
const WORDS = 130;

/** 256 values: for every decade the midpoints of [0.1, 1] in 2^i parts (signed, with both signs) or 2^(i+1), 0 and 1. */
export function referenceMap(signed: boolean): number[] {
  const map = [0, 1];
  for (let i = 0; i < 7; i++) {
    const parts = 2 ** (signed ? i : i + 1);
    const edges = Array.from({ length: parts + 1 }, (_, k) => 0.1 + (0.9 * k) / parts);
    for (let k = 0; k < parts; k++) {
      const middle = ((edges[k]! + edges[k + 1]!) / 2) * 10 ** (i - 6);
      map.push(...(signed ? [middle, -middle] : [middle]));
    }
  }
  return map.sort((a, b) => a - b);
}

const MAPS = [referenceMap(true), referenceMap(false)] as const;

/** Index of the nearest entry. */
export function nearest(map: readonly number[], x: number): number {
  let best = 0;
  for (let i = 1; i < map.length; i++) if (Math.abs(x - map[i]!) < Math.abs(x - map[best]!)) best = i;
  return best;
}

export interface Codes {
  /** Codes of the first and of the second moment, and largest magnitudes of their blocks. */
  codes: [number[], number[]];
  tops: [number[], number[]];
}

/** Takes the words of a tensor's state apart. */
export function unpack(words: Uint32Array, size: number): Codes {
  const out: Codes = { codes: [[], []], tops: [[], []] };
  const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
  for (let i = 0; i < size; i++) {
    const [block, at] = [Math.floor(i / BLOCK), i % BLOCK];
    for (const which of [0, 1] as const) {
      const word = words[block * WORDS + which * 64 + Math.floor(at / 4)]!;
      out.codes[which].push((word >>> (8 * (at % 4))) & 255);
      if (at === 0) out.tops[which].push(floats[block * WORDS + 128 + which]!);
    }
  }
  return out;
}

/** One step from the codes that lie there; returns the new parameters and what the new codes should be. */
export function adam8bitStep(
  state: Codes,
  p: Float64Array,
  gradient: Float64Array,
  s: OptimizerSettings,
  rate: number,
  t: number,
): { p: Float64Array; next: Codes; scaled: [number[], number[]] } {
  const moments = [0, 1].map((which) =>
    p.map((_, i) => MAPS[which]![state.codes[which]![i]!]! * state.tops[which]![Math.floor(i / BLOCK)]!),
  ) as [Float64Array, Float64Array];
  const [m, v] = moments;
  const after = p.map((x, i) => {
    const g = gradient[i]!;
    m[i] = s.beta1 * m[i]! + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i]! + (1 - s.beta2) * g * g;
    const root = Math.sqrt(v[i]! / (1 - s.beta2 ** t)) + s.epsilon;
    return x - rate * s.weightDecay * x - (rate * (m[i]! / (1 - s.beta1 ** t))) / root;
  });
  const next: Codes = { codes: [[], []], tops: [[], []] };
  const scaled: [number[], number[]] = [[], []];
  moments.forEach((values, which) => {
    for (let from = 0; from < p.length; from += BLOCK) {
      const block = [...values.subarray(from, from + BLOCK)];
      const top = Math.max(...block.map(Math.abs));
      next.tops[which]!.push(top);
      for (const x of block) {
        const ratio = top > 0 ? x / top : 0;
        scaled[which]!.push(ratio);
        next.codes[which]!.push(nearest(MAPS[which]!, ratio));
      }
    }
  });
  return { p: after, next, scaled };
}
