// Learning rates as functions of the step: the schedules that trainers of diffusion models offer. After the warm-up
// they equal diffusers' `get_scheduler`; during it, the first step has a rate already unless `warmupFromZero` asks for
// diffusers' own count, in which the first step's rate is 0. "rex" is the reflected exponential of Chen et al. 2021
// (arXiv 2107.04197), which diffusers does not have.

export const SCHEDULE_KINDS = [
  "constant",
  "constant_with_warmup",
  "linear",
  "cosine",
  "cosine_with_restarts",
  "polynomial",
  "rex",
] as const;
export type ScheduleKind = (typeof SCHEDULE_KINDS)[number];

export interface Schedule {
  kind: ScheduleKind;
  /** Rate at its highest. */
  rate: number;
  /** Steps of rising rate; "constant" has none. */
  warmup: number;
  /** Steps of the whole run; all kinds but the constant ones end with them. */
  total: number;
  /** The rate rises as (t - 1) / warmup instead of t / (warmup + 1). */
  warmupFromZero?: boolean;
  /** Falls of "cosine_with_restarts", 1 by default; diffusers' scheduler by name gives its count to that kind alone. */
  cycles?: number;
  /** Periods of "cosine", 0.5 by default: from the highest rate to 0. */
  periods?: number;
  /** Exponent of "polynomial", 1 by default. */
  power?: number;
  /** Rate that "polynomial" ends at, 1e-7 by default; below `rate`. */
  end?: number;
}

/** Learning rate of step `t`, counted from 1. */
export function learningRate(schedule: Schedule, t: number): number {
  const { kind, rate, warmup, total } = schedule;
  if (kind === "constant") return rate;
  if (t <= warmup) return rate * (schedule.warmupFromZero ? (t - 1) / warmup : t / (warmup + 1));
  // 0 at the first step after the warm-up, 1 behind the last step of the run.
  const progress = (t - 1 - warmup) / Math.max(1, total - warmup);
  const half = (turn: number) => Math.max(0, 0.5 * (1 + Math.cos(Math.PI * turn)));
  switch (kind) {
    case "constant_with_warmup":
      return rate;
    case "linear":
      return rate * Math.max(0, 1 - progress);
    case "cosine":
      // Behind the last step the reference's cosine goes on, and so does ours.
      return rate * half(2 * (schedule.periods ?? 0.5) * progress);
    case "cosine_with_restarts":
      return progress >= 1 ? 0 : rate * half(((schedule.cycles ?? 1) * progress) % 1);
    case "polynomial": {
      const end = Math.min(rate, schedule.end ?? 1e-7);
      return progress > 1 ? end : (rate - end) * (1 - progress) ** (schedule.power ?? 1) + end;
    }
    case "rex": {
      const left = Math.max(0, 1 - progress);
      return (rate * left) / (0.5 + 0.5 * left);
    }
  }
}
