// The [align.guard] keys in the form that the guard rails take, so that bands set by the user and those measured as
// healthy by default meet in one place.

import { BAND_RULES, type GuardOptions } from "../../evaluation/guards.ts";
import type { Config } from "./schema.ts";

/** The guard rails' options of a configuration; bounds that have no key keep their measured defaults. */
export function guardOptions({ align: { guard } }: Config): GuardOptions {
  const rules = {
    judge: { ...BAND_RULES.judge, drop: guard.judge_drop },
    diversity: { ...BAND_RULES.diversity, relativeDrop: guard.diversity_drop },
    saturation: { ...BAND_RULES.saturation, relativeRise: guard.saturation_rise },
    contrast: { ...BAND_RULES.contrast, relativeRise: guard.contrast_rise },
    sharpness: { ...BAND_RULES.sharpness, relativeRise: guard.sharpness_rise },
    grid8: { ...BAND_RULES.grid8, rise: guard.grid_rise },
    grid16: { ...BAND_RULES.grid16, rise: guard.grid_rise },
  };
  return { needed: guard.needed, patience: guard.patience, rewardRise: guard.reward_rise, rules };
}

/** Updates to go on after an alarm; null never stops. */
export function stopAfterAlarm({ align }: Config): number | null {
  return align.stop_after_alarm === "never" ? null : align.stop_after_alarm;
}
