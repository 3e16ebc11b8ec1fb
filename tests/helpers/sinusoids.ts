// The sinusoids of a dump's own run. The reference's float32 exp is one unit in the last place off in a few of its 128
// frequencies, in other ones on another processor; times 3500 that is 1e-4 in an argument, and in SRPO enough to push a
// pixel across the clamp. A flux dump holds sinusoids, and they tell which frequencies it used; comparisons of everything
// behind them use those.

import { SINUSOID_FREQUENCIES, SINUSOID_WIDTH, sinusoids } from "../../src/models/flux/embeddings.ts";
import { type Dump, dump } from "./dumps.ts";

const HALF = SINUSOID_WIDTH / 2;

/** The neighbouring f32 values, at most one unit in the last place away. */
function neighbours(value: number): number[] {
  const bits = new Uint32Array(1);
  const float = new Float32Array(bits.buffer);
  return [0, -1, 1].map((step) => {
    float[0] = value;
    bits[0] = bits[0]! + step;
    return float[0]!;
  });
}

/** Frequencies of a flux1 or flux1_small dump: each is ours or one of its two neighbours, whichever fits best. */
export async function frequenciesOf(flux: Dump): Promise<Float32Array> {
  const io = await flux.open("io");
  const names = ["timestep", "guidance"].filter((name) => io.has(`sinusoid.${name}`));
  const found = SINUSOID_FREQUENCIES.slice();
  for (let i = 0; i < HALF; i++) {
    let best = Number.POSITIVE_INFINITY;
    for (const candidate of neighbours(SINUSOID_FREQUENCIES[i]!)) {
      let error = 0;
      for (const name of names) {
        const values = await io.load(name);
        const expected = await io.load(`sinusoid.${name}`);
        values.forEach((value, row) => {
          const argument = Math.fround(Math.fround(1000 * value) * candidate);
          error += (Math.cos(argument) - expected[row * SINUSOID_WIDTH + i]!) ** 2;
          error += (Math.sin(argument) - expected[row * SINUSOID_WIDTH + HALF + i]!) ** 2;
        });
      }
      if (error < best) {
        best = error;
        found[i] = candidate;
      }
    }
  }
  return found;
}

let cached: Promise<Float32Array> | null = null;

/** Sinusoids as the run that made the dumps computed them (its flux1_small subject tells); ours where it is absent. */
export async function dumpSinusoids(values: readonly number[]): Promise<Float32Array> {
  const flux = dump("flux1_small");
  cached ??= flux ? frequenciesOf(flux) : Promise.resolve(SINUSOID_FREQUENCIES);
  return sinusoids(values, await cached);
}
