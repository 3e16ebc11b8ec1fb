// What the engine that computes nothing can be told, and the made-up facts that it plays.

import type { WireError } from "../protocol.ts";

export interface FakeOptions {
  /** Updates a second. */
  speed?: number;
  /** Says that the adapter computes on the CPU. */
  software?: boolean;
  /** Fails with this code at update `failAt` (half of the run where it is left out). */
  fail?: string;
  failAt?: number;
  /** Loses the device at this update and recovers. */
  loseAt?: number;
  /** Begins with a stopped run that can be resumed. */
  stoppedRun?: boolean;
}

export const PROMPTS = ["noto icon of taco", "noto icon of sari", "noto icon of diya lamp", "noto icon of moai"];

/** What a memory bar is to show: the categories of a real plan of the small model, in bytes. */
export const FAKE_MEMORY: Readonly<Record<string, number>> = {
  weights: 37_967_616,
  adapter: 1_474_560,
  gradients: 1_474_560,
  optimizer: 2_949_120,
  data: 790_272,
  "activations and workspace": 33_423_360,
  uniforms: 334_848,
  bindings: 4_132_864,
  staging: 5_767_168,
};

export const FAILURES: Readonly<Record<string, Omit<WireError, "code">>> = {
  "E-NUM-001": {
    what: "update 57 has a loss or gradient that is not finite, first in blocks.3.attention",
    where: "gradient norm NaN, loss NaN",
    why: "the update was not made; the last good weights are in ckpt/step-000050",
    fix: "start again under another name with a lower learning rate",
  },
  "E-MEM-002": {
    what: "the GPU device was lost",
    why: "the driver was reset",
    fix: "resume the run: it continues from the last checkpoint",
  },
};

/** Options from the page's address: `?engine=fake&speed=40&fail=E-NUM-001&software&stopped`. */
export function fakeOptions(query: URLSearchParams): FakeOptions {
  const number = (key: string) => (query.has(key) ? Number(query.get(key)) : undefined);
  const found: FakeOptions = { software: query.has("software"), stoppedRun: query.has("stopped") };
  for (const key of ["speed", "failAt", "loseAt"] as const) {
    const value = number(key);
    if (value !== undefined) found[key] = value;
  }
  const fail = query.get("fail");
  return fail ? { ...found, fail } : found;
}
