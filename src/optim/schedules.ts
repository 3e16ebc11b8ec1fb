// Learning rates as functions of the step: the schedules that trainers of diffusion models offer. After the warm-up
// they equal diffusers' `get_scheduler`; during it, the first step has a rate already unless `warmupFromZero` asks for
// diffusers' own count, in which the first step's rate is 0.

export type ScheduleKind = "constant" | "constant_with_warmup" | "linear" | "cosine";

export interface Schedule {
  kind: ScheduleKind;
  /** Rate at its highest. */
  rate: number;
  /** Steps of rising rate; "constant" has none. */
  warmup: number;
  /** Steps of the whole run; "linear" and "cosine" reach 0 with the last. */
  total: number;
  /** The rate rises as (t - 1) / warmup instead of t / (warmup + 1). */
  warmupFromZero?: boolean;
}

/** Learning rate of step `t`, counted from 1. */
export function learningRate(schedule: Schedule, t: number): number {
  const { kind, rate, warmup, total } = schedule;
  if (kind === "constant") return rate;
  if (t <= warmup) return rate * (schedule.warmupFromZero ? (t - 1) / warmup : t / (warmup + 1));
  if (kind === "constant_with_warmup") return rate;
  // Behind the last step "linear" stays at 0; the reference's cosine goes on, and so does ours.
  const progress = (t - 1 - warmup) / Math.max(1, total - warmup);
  return rate * (kind === "linear" ? Math.max(0, 1 - progress) : 0.5 * (1 + Math.cos(Math.PI * progress)));
}
