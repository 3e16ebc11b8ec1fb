// Direct-Align's choice of sigmas (SRPO, arXiv 2509.06942): noise of a known rollout is put back at sigma b, one velocity
// moves the sample to sigma e, and the picture is recovered from there. The denoise branch starts noisier than e, the
// inversion branch cleaner; both end at nearly the same e. Index 0 of the table is the noisiest sigma.

import { linspace, modelTime } from "../../diffusion/sigmas.ts";

export type BranchKind = "denoise" | "inversion";

export interface BranchOptions {
  /** Ends of the training range, noisiest first. */
  sigmaHigh: number;
  sigmaLow: number;
  /** Entries of the table between them. */
  timestepLength: number;
  groundtruthRatio: number;
  /** Weight of the plain positive reward at low and at high noise (denoise branch). */
  discountPos: readonly [number, number];
  /** Weight of the plain penalty at low and at high noise (inversion branch). */
  discountInv: readonly [number, number];
}

export interface Branch {
  kind: BranchKind;
  /** The branch's own index into the discount tables. */
  m: number;
  /** Sigma at which noise is injected, and sigma from which the picture is recovered. */
  from: number;
  to: number;
  /** Time that the network is told. */
  time: number;
  discount: number;
  /** |from - to| / (1 - to): how strongly the velocity's error shows in the picture. */
  gain: number;
}

/** Training table: equally spaced sigmas, noisiest first. */
export function trainingTable(options: BranchOptions): Float32Array {
  return linspace(options.sigmaHigh, options.sigmaLow, options.timestepLength);
}

/** How far a branch moves, in entries of the table. */
export function branchSpan(options: BranchOptions, m0: number): number {
  const n = options.timestepLength;
  // 1 - 0.9 in floating point is a little below 0.1: floor gives 99 for N = 1000, plus one is the 100 that is meant.
  const most = Math.floor((1 - options.groundtruthRatio) * n) + 1;
  return Math.min(n - m0, most, m0);
}

/** The two branches of an update for the drawn index m0 in [margin, N - margin]. */
export function branchesOf(options: BranchOptions, m0: number): Record<BranchKind, Branch> {
  const n = options.timestepLength;
  const table = trainingTable(options);
  const k = branchSpan(options, m0);
  const branch = (
    kind: BranchKind,
    m: number,
    from: number,
    to: number,
    discounts: readonly [number, number],
  ): Branch => ({
    kind,
    m,
    from: table[from]!,
    to: table[to]!,
    time: modelTime(table[from]!),
    discount: linspace(discounts[0], discounts[1], n)[m]!,
    gain: Math.fround(Math.abs(table[from]! - table[to]!)) / Math.fround(1 - table[to]!),
  });
  const m = Math.max(m0 - k, 1);
  return {
    denoise: branch("denoise", m0, n - Math.min(m0 + k, n), n - m0, options.discountPos),
    inversion: branch("inversion", m, n - m, n - Math.min(m + k, n), options.discountInv),
  };
}
