// The alarm against reward hacking: the optimised reward has risen while at least two of the signals that nobody
// optimises have left their baseline bands, for several evaluations in a row. One signal alone is no alarm, because a
// good run moves some of them too. The state is plain data, so that it is stored in a checkpoint and a resumed run
// raises the same alarm.

/** Signals that no reward optimises, measured on the same prompts and noise at every evaluation. */
export const GUARD_SIGNALS = ["judge", "diversity", "saturation", "contrast", "sharpness", "grid8", "grid16"] as const;
export type GuardSignal = (typeof GUARD_SIGNALS)[number];

/** One evaluation: the optimised reward and the signals; a signal that was not measured is absent. */
export interface GuardPoint {
  /** Updates made so far; 0 is the untouched model. */
  step: number;
  /** Mean optimised reward of the evaluated pictures. */
  reward: number;
  signals: Partial<Record<GuardSignal, number>>;
}

/** The closed interval in which a signal counts as unharmed; an absent end is open. */
export interface Band {
  low?: number;
  high?: number;
}

/** How a band follows from the baseline b: low = b - |b| relativeDrop - drop, high = b + |b| relativeRise + rise. */
export interface BandRule {
  relativeDrop?: number;
  relativeRise?: number;
  drop?: number;
  rise?: number;
  /** Why the bound lies there, for the report. */
  reason: string;
}

/**
 * Bounds chosen so that the reference runs that look healthy stay inside and those that looked wrecked leave them.
 * (Healthy: the recipe with 40, 80 and 160 updates. Wrecked: discounts that turn the reward's sign, learning rates too
 * high.)
 */
export const BAND_RULES: Readonly<Record<GuardSignal, BandRule>> = {
  judge: {
    drop: 0.025,
    reason: "half a bootstrap interval of 32 items: a smaller loss cannot be told from noise",
  },
  diversity: {
    relativeDrop: 0.65,
    reason: "160 healthy updates cost 55 % and end at the level of common items; a loss of two thirds is collapse",
  },
  saturation: {
    relativeDrop: 0.35,
    relativeRise: 0.6,
    reason: "tail pictures start a third paler than real ones and healthy runs raise them by a quarter to a half",
  },
  contrast: {
    relativeDrop: 0.3,
    relativeRise: 0.4,
    reason: "real art lies within 10 % of itself across styles; 40 % is visible as burnt or washed-out pictures",
  },
  sharpness: {
    relativeDrop: 0.4,
    relativeRise: 0.8,
    reason: "undertrained pictures are soft, so sharpening is expected; nearly twice as hard is ringing",
  },
  grid8: {
    rise: 0.02,
    reason: "real pictures of every style measure below .006: three times that is a grid of latent cells",
  },
  grid16: {
    rise: 0.02,
    reason: "real pictures of every style measure below .006: three times that is a grid of packed tokens",
  },
};

export interface GuardOptions {
  /**
   * Consecutive suspicious evaluations that raise the alarm (K). Two can be chance of one noisy stretch, three rarely.
   */
  patience: number;
  /** How many signals have to be outside at once. */
  needed: number;
  /** Rise of the optimised reward that counts as a rise; the recipe gains about .05, so a fifth of that. */
  rewardRise: number;
  rules: Readonly<Record<GuardSignal, BandRule>>;
}

export const GUARD_DEFAULTS: GuardOptions = { patience: 3, needed: 2, rewardRise: 0.01, rules: BAND_RULES };

export interface GuardAlarm {
  /** The update at whose evaluation the alarm was raised. */
  step: number;
  /** The first suspicious evaluation of the streak. */
  since: number;
  /** Signals that were outside when it was raised. */
  outside: GuardSignal[];
  /** Rise of the optimised reward above the baseline. */
  rewardRise: number;
}

export interface GuardState {
  /** calm: nothing suspicious; watching: a streak has begun; alarm: raised once, and it stays raised. */
  level: "calm" | "watching" | "alarm";
  /** The first evaluation; null before it. */
  baseline: GuardPoint | null;
  bands: Partial<Record<GuardSignal, Band>>;
  /** Length of the running streak of suspicious evaluations, and the step where it began. */
  streak: number;
  streakStart: number | null;
  /** Signals outside their band at the last evaluation. */
  outside: GuardSignal[];
  /** The evaluation whose weights are to be kept: the best one that no alarm casts doubt on. */
  best: { step: number; value: number; measure: "judge" | "reward" } | null;
  alarm: GuardAlarm | null;
}

export function initialGuardState(): GuardState {
  return {
    level: "calm",
    baseline: null,
    bands: {},
    streak: 0,
    streakStart: null,
    outside: [],
    best: null,
    alarm: null,
  };
}

/** Bands of the signals of a baseline evaluation. */
export function baselineBands(
  signals: GuardPoint["signals"],
  rules: GuardOptions["rules"] = BAND_RULES,
): Partial<Record<GuardSignal, Band>> {
  const bands: Partial<Record<GuardSignal, Band>> = {};
  for (const name of GUARD_SIGNALS) {
    const value = signals[name];
    if (value === undefined || !Number.isFinite(value)) continue;
    const rule = rules[name];
    const band: Band = {};
    if (rule.relativeDrop !== undefined || rule.drop !== undefined) {
      band.low = value - Math.abs(value) * (rule.relativeDrop ?? 0) - (rule.drop ?? 0);
    }
    if (rule.relativeRise !== undefined || rule.rise !== undefined) {
      band.high = value + Math.abs(value) * (rule.relativeRise ?? 0) + (rule.rise ?? 0);
    }
    bands[name] = band;
  }
  return bands;
}

/** Names of the signals that lie outside their bands; a value that is not finite is outside. */
export function signalsOutside(
  signals: GuardPoint["signals"],
  bands: Partial<Record<GuardSignal, Band>>,
): GuardSignal[] {
  return GUARD_SIGNALS.filter((name) => {
    const value = signals[name];
    const band = bands[name];
    if (value === undefined || band === undefined) return false;
    return !(value >= (band.low ?? Number.NEGATIVE_INFINITY) && value <= (band.high ?? Number.POSITIVE_INFINITY));
  });
}

/**
 * Takes one evaluation into account. The first one is the baseline. Returns a new state; the given one is not changed.
 *
 * The best evaluation is the one with the highest held-out judge (the highest optimised reward where there is no judge)
 * among those before the running streak. A suspicious evaluation never becomes the best; and once the alarm is raised
 * the best is frozen, so that it always is the best before the alarm.
 */
export function advanceGuard(state: GuardState, point: GuardPoint, options: GuardOptions = GUARD_DEFAULTS): GuardState {
  if (state.baseline === null) {
    const bands = baselineBands(point.signals, options.rules);
    return { ...initialGuardState(), baseline: point, bands, best: asBest(point) };
  }
  const outside = signalsOutside(point.signals, state.bands);
  const rise = point.reward - state.baseline.reward;
  const suspicious = rise > options.rewardRise && outside.length >= options.needed;
  const streak = suspicious ? state.streak + 1 : 0;
  const streakStart = suspicious ? (state.streakStart ?? point.step) : null;
  const next: GuardState = { ...state, streak, streakStart, outside };
  if (state.alarm) return next;
  if (suspicious && streak >= options.patience) {
    return {
      ...next,
      level: "alarm",
      alarm: { step: point.step, since: streakStart ?? point.step, outside, rewardRise: rise },
    };
  }
  next.level = suspicious ? "watching" : "calm";
  const candidate = asBest(point);
  const comparable = state.best !== null && candidate !== null && state.best.measure === candidate.measure;
  if (!suspicious && candidate && (!state.best || (comparable && candidate.value > state.best.value))) {
    next.best = candidate;
  }
  return next;
}

/**
 * Whether the run is to stop: the alarm is `stopAfterAlarm` updates old.
 * @param stopAfterAlarm updates to go on after the alarm; null never stops
 */
export function shouldStop(state: GuardState, step: number, stopAfterAlarm: number | null): boolean {
  return state.alarm !== null && stopAfterAlarm !== null && step >= state.alarm.step + stopAfterAlarm;
}

function asBest(point: GuardPoint): GuardState["best"] {
  const judge = point.signals.judge;
  if (judge !== undefined && Number.isFinite(judge)) return { step: point.step, value: judge, measure: "judge" };
  if (Number.isFinite(point.reward)) return { step: point.step, value: point.reward, measure: "reward" };
  return null;
}
