// How often a generator meets an item while it is pretrained: weight 1 / rank, as words and pictures of the web fall off
// (Zipf). Head items take the ranks from 50 on, tail items are spread over much rarer ones. The rarity is imposed; it says
// nothing about the world.

import { NumpyGenerator } from "./numpy_permutation.ts";

export interface RankSettings {
  /** Rank of the most frequent head item. */
  firstHeadRank: number;
  /** Rank of the most frequent tail item, and how many times rarer the rarest is. */
  firstTailRank: number;
  tailSpread: number;
  seed: number;
}

/** Head ranks 50 to 480, tail ranks 600 to 12,000: what the shipped models were trained with. */
export const EMBEDDED_RANKS: RankSettings = { firstHeadRank: 50, firstTailRank: 600, tailSpread: 20, seed: 0 };

/** Probabilities of the items, sum 1; `tail` says which are rare. */
export function pretrainingWeights(tail: readonly boolean[], settings: RankSettings = EMBEDDED_RANKS): Float64Array {
  const { firstHeadRank, firstTailRank, tailSpread, seed } = settings;
  const generator = new NumpyGenerator(seed);
  const count = tail.filter(Boolean).length;
  const headRanks = generator.permutation(tail.length - count);
  const tailRanks = generator.permutation(count);
  let head = 0;
  let rare = 0;
  const weights = Float64Array.from(tail, (isTail) => {
    if (!isTail) return 1 / (firstHeadRank + headRanks[head++]!);
    return 1 / (firstTailRank * tailSpread ** (tailRanks[rare++]! / Math.max(1, count - 1)));
  });
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}
