// What an alignment costs on this machine: arithmetic from the worker's plan, time from the speed of an earlier run on the same
// adapter, or a range for its class where there was none. Pure.

import { duration } from "../../evaluation/format.ts";
import type { PlanFacts } from "../protocol.ts";
import { type AlignPreset, measureEvery } from "./request.ts";

/** One picture through the network once, and through decoder and judge: 0.6 and 0.5 GFLOP of the small model. */
const FLOP_OF_STEP = 0.6e9;
const FLOP_OF_FINISH = 0.5e9;
/** FLOP a second, low and high, of adapters that were not measured yet. */
const SPEEDS: Readonly<Record<AlignPreset["id"], readonly [number, number]>> = {
  // 1.7e9 was measured with Chromium's SwiftShader.
  software: [0.8e9, 3e9],
  hardware: [60e9, 600e9],
};

export interface Cost {
  flops: number;
  /** Seconds. */
  low: number;
  high: number;
  measured: boolean;
}

/** @param speed FLOP a second of an earlier run on this adapter */
export function costOf(
  plan: Pick<PlanFacts, "steps" | "flopsPerUpdate">,
  preset: AlignPreset,
  items: number,
  speed?: number,
): Cost {
  const picture = preset.drawSteps * FLOP_OF_STEP + FLOP_OF_FINISH;
  const measurements = Math.max(0, Math.ceil(plan.steps / measureEvery(plan.steps)) - 1);
  const pictures = preset.pictures * (2 * (items + preset.headItems) + measurements * items);
  const flops = plan.steps * plan.flopsPerUpdate + pictures * picture;
  const [slow, fast] = speed ? [speed, speed] : SPEEDS[preset.id];
  return { flops, low: flops / fast, high: flops / slow, measured: speed !== undefined };
}

/** Steps that do not pretend to be exact. */
const rounded = (seconds: number) => {
  const step = seconds < 20 ? 1 : seconds < 120 ? 10 : seconds < 900 ? 30 : 300;
  return Math.max(step, Math.round(seconds / step) * step);
};

export function costText({ flops, low, high, measured }: Cost): string {
  const work = flops < 1e12 ? `${Math.round(flops / 1e9)} GFLOP` : `${(flops / 1e12).toFixed(1)} TFLOP`;
  return measured
    ? `${work}: about ${duration(rounded(low))}, by the speed of an earlier run here.`
    : `${work}: roughly ${duration(rounded(low))} to ${duration(rounded(high))}; not measured on this machine yet.`;
}
