// The task of the block benchmark: gradients of sum(velocity · seed) with respect to all weights and the three inputs of a
// FLUX.1 transformer with one double and one single block. Every library gets the same numbers from here, and every gradient
// is compared through its norm and four random projections.

import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { noise } from "./chain.ts";
import { CHANNELS, type FluxShape, fluxBlocks, type InputName, inputShapes, weightValues } from "./flux_blocks.ts";

const PROJECTIONS = 4;

export interface Values {
  shape: readonly number[];
  values: Float32Array;
}

export function blockInputs(shape: FluxShape): Record<InputName | "seed", Values> {
  const shapes = { ...inputShapes(shape), seed: [shape.batch, shape.image, CHANNELS] };
  const entries = Object.entries(shapes).map(([name, s], i) => {
    return [
      name,
      {
        shape: s,
        values: noise(
          s.reduce((a, b) => a * b, 1),
          10 + i,
          1,
        ),
      },
    ];
  });
  return Object.fromEntries(entries) as Record<InputName | "seed", Values>;
}

/** Names, shapes and values of all weights, in the order of declaration. */
export function blockWeights(shape: FluxShape): (Values & { name: string })[] {
  const session = new Session({ ...portableTarget(), maxBindingBytes: 2 ** 31 - 256 });
  const { weights } = fluxBlocks(session, shape, { gradients: false });
  return weights.variables.map((v, i) => ({ name: v.name, shape: v.shape, values: weightValues(v.name, v.shape, i) }));
}

/** Norm and random projections of a result: enough to find any difference, small enough to send. */
export function fingerprint(values: ArrayLike<number>): number[] {
  let norm = 0;
  for (let i = 0; i < values.length; i++) norm += values[i]! ** 2;
  const out = [Math.sqrt(norm)];
  for (let k = 0; k < PROJECTIONS; k++) {
    const direction = noise(values.length, 50 + k, Math.sqrt(3));
    let dot = 0;
    for (let i = 0; i < values.length; i++) dot += values[i]! * direction[i]!;
    out.push(dot);
  }
  return out;
}

export type Fingerprints = Record<string, number[]>;

/** The largest difference of two results' fingerprints relative to the norm, and whose it is. */
export function largestDifference(a: Fingerprints, b: Fingerprints): { difference: number; name: string } {
  const names = Object.keys(a);
  if (names.length !== Object.keys(b).length) return { difference: Number.NaN, name: "the number of gradients" };
  let worst = { difference: 0, name: "" };
  for (const name of names) {
    const [x, y] = [a[name]!, b[name]];
    if (!y) return { difference: Number.NaN, name };
    const difference = Math.max(...x.map((value, i) => Math.abs(value - y[i]!))) / Math.max(x[0]!, 1e-30);
    if (!(difference <= worst.difference)) worst = { difference, name };
  }
  return worst;
}
