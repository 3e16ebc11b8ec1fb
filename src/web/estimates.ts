// How long a run will take, as honestly as it can be said before it runs: from the speed that this adapter reached in an
// earlier run where there was one, else a range for its class.

import type { Effective, MachinePreset } from "./settings.ts";

/** Arithmetic of one picture of an update, forward and backward, in FLOP: `longtail plan lora` says 5.15 GFLOP for a batch of 8. */
const FLOP_PER_PICTURE = 5.15e9 / 8;
/** One call of the network for one sample picture. */
const FLOP_PER_DRAW = 2.52e9 / 10;

/**
 * FLOP a second that a class is expected to reach, low and high. Software: 1.7 was measured with Chromium's SwiftShader.
 * Hardware spans from a phone to a desktop card.
 */
const CLASS_SPEEDS: Readonly<Record<MachinePreset["id"], readonly [number, number]>> = {
  software: [0.8e9, 3e9],
  hardware: [60e9, 600e9],
};

/** Four hundred dispatches an update are submitted in about this time, however fast the GPU. */
const HOST_SECONDS = 0.006;

/** All arithmetic of a run. */
export function runFlops({ updates, batch, every }: Effective, preset: MachinePreset): number {
  const samplings = 2 + Math.floor((updates - 1) / every);
  return updates * batch * FLOP_PER_PICTURE + samplings * preset.samples * preset.sampleSteps * FLOP_PER_DRAW;
}

export interface Estimate {
  low: number;
  high: number;
  /** It comes from a run on this very adapter. */
  measured: boolean;
}

/** Seconds of a run. @param speed FLOP a second of an earlier run on this adapter */
export function estimate(values: Effective, preset: MachinePreset, speed?: number): Estimate {
  const flops = runFlops(values, preset);
  if (speed) return { low: flops / speed, high: flops / speed, measured: true };
  const host = values.updates * HOST_SECONDS;
  const [slow, fast] = CLASS_SPEEDS[preset.id];
  return { low: flops / fast + host, high: flops / slow + host, measured: false };
}

/** `about 40 s` or `roughly 10 s to 1½ min`. */
export function estimateText({ low, high, measured }: Estimate): string {
  const [least, most] = [rounded(low), rounded(high)];
  return measured || least === most ? `about ${least}` : `roughly ${least} to ${most}`;
}

/** Where an estimate comes from, as the end of a sentence. */
export const estimateSource = ({ measured }: Estimate): string =>
  measured ? "by the speed of an earlier run here" : "not yet measured on this machine";

/** A time that does not pretend to be exact. */
function rounded(seconds: number): string {
  const to = (step: number) => Math.max(step, Math.round(seconds / step) * step);
  if (seconds < 10) return `${to(1)} s`;
  if (seconds < 58) return `${to(5)} s`;
  if (seconds < 600) return `${Math.floor(to(30) / 60)}${to(30) % 60 === 30 ? "½" : ""} min`;
  return seconds < 5400 ? `${to(300) / 60} min` : `${Math.round(seconds / 3600)} h`;
}
