// Work with the averaged weights in the place of the trained ones: they are swapped on the device, and back whatever
// happens, bit for bit.

import type { TrainWorld } from "./world.ts";

/** Runs `work` while the trained pools hold their running averages; without an average, just runs it. */
export async function withAverage<T>(world: TrainWorld, work: () => Promise<T>): Promise<T> {
  const { session, optimizer, trained } = world;
  const { average } = optimizer;
  if (!average) return await work();
  // Gradients hold nothing between two updates: each begins by clearing them.
  trained.forEach((pool, i) => session.copyPool(pool, optimizer.gradients[i]!));
  average.forEach((pool, i) => session.copyPool(pool, trained[i]!));
  try {
    return await work();
  } finally {
    trained.forEach((pool, i) => session.copyPool(optimizer.gradients[i]!, pool));
  }
}
