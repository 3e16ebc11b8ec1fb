// What the progress line knows: the running phase, how fast it goes, the newest metrics. Pure: events and a clock go in,
// text comes out; progress.ts decides when and how it is printed.

import type { RunEvent } from "../base/events.ts";
import { bytes, compact, duration, grouped } from "../evaluation/format.ts";

type PhaseEvent = Extract<RunEvent, { kind: "phase" }>;

/** Seconds over which the rate is measured, and the most points of it. */
const RATE_WINDOW = 60;
const RATE_POINTS = 40;
/** Phases within which others run and come back: samples, validation and checkpoints in the middle of a training. */
const OUTER_PHASES: ReadonlySet<string> = new Set(["train", "pretrain"]);
/** Newest losses of which the mean is shown, and the fewest that make one. */
const MEAN_OF = 100;
const MEAN_FROM = 10;

export const isOuterPhase = (name: string) => OUTER_PHASES.has(name);

export class PhaseProgress {
  readonly name: string;
  readonly startedAt: number;
  done: number;
  total: number;
  unit: string;
  note: string;
  /** Times at which `done` grew, newest last; the phase's start is the first. */
  private points: { time: number; done: number }[];
  private pausedAt: number | null = null;
  /** Seconds that went to phases inside this one. */
  private pausedSeconds = 0;

  constructor(event: PhaseEvent, now: number) {
    this.name = event.name;
    this.startedAt = now;
    this.done = event.done;
    this.total = event.total;
    this.unit = event.unit;
    this.note = event.note ?? "";
    this.points = [{ time: now, done: event.done }];
  }

  update(event: PhaseEvent, now: number): void {
    if (event.done < this.done) this.points = [];
    if (event.done !== this.done) this.points.push({ time: now, done: event.done });
    while (this.points.length > 2 && (this.points.length > RATE_POINTS || now - this.points[0]!.time > RATE_WINDOW))
      this.points.shift();
    this.done = event.done;
    this.total = event.total;
    this.unit = event.unit;
    this.note = event.note ?? "";
  }

  /** A phase inside this one begins: its time counts neither for the rate nor as a stall. */
  pause(now: number): void {
    this.pausedAt ??= now;
  }

  resume(now: number): void {
    if (this.pausedAt === null) return;
    const gap = now - this.pausedAt;
    for (const point of this.points) point.time += gap;
    this.pausedSeconds += gap;
    this.pausedAt = null;
  }

  get finished(): boolean {
    return this.total > 0 && this.done >= this.total;
  }

  /** Units a second, or null while it is not known. A stall lowers it as soon as it exceeds the usual interval. */
  rate(now: number): number | null {
    // The first interval also holds compilation and warm-up: it is left out once there are others.
    const points = this.points.length > 3 ? this.points.slice(1) : this.points;
    const first = points[0];
    const last = points.at(-1);
    if (!first || !last || last.done <= first.done) return null;
    const measured = last.time - first.time;
    if (measured <= 0) return null;
    const usual = measured / (points.length - 1);
    const stalled = Math.max(0, now - last.time - usual);
    return (last.done - first.done) / (measured + stalled);
  }

  /** Seconds to go, or null while unknown: no total, or no rate yet. */
  remaining(now: number): number | null {
    const rate = this.rate(now);
    if (rate === null || this.total <= 0 || this.finished) return null;
    const since = now - (this.points.at(-1)?.time ?? now);
    // Phases inside this one will come again about as often as so far.
    const working = this.elapsed(now) - this.pausedSeconds;
    const others = working > 0 ? Math.min(1, this.pausedSeconds / working) : 0;
    return Math.max(0, (this.total - this.done) / rate - Math.min(since, 1 / rate)) * (1 + others);
  }

  /** `12/40 updates`, or `12 updates` where the total is unknown. */
  amount(): string {
    if (this.unit === "bytes") return this.total > 0 ? `${bytes(this.done)} of ${bytes(this.total)}` : bytes(this.done);
    const unit = this.unit ? ` ${this.unit}` : "";
    if (this.total === 1) return "";
    if (this.total > 0) return `${grouped(this.done)}/${grouped(this.total)}${unit}`;
    return this.done > 0 ? `${grouped(this.done)}${unit}` : "";
  }

  /** `3.1/s`, or `2.6 s each` where it is slow; empty while unknown. */
  rateText(now: number): string {
    const rate = this.rate(now);
    if (rate === null) return "";
    if (this.unit === "bytes") return `${bytes(rate)}/s`;
    return rate >= 1 ? `${compact(rate, 3)}/s` : `${compact(1 / rate, 2)} s each`;
  }

  elapsed(now: number): number {
    return now - this.startedAt;
  }
}

/** `1:32` or `1:02:05`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Newest values of a phase's metrics. Events may bring some of them only now and then, as validation does. */
export class Metrics {
  values: Record<string, number> = {};
  private readonly losses: number[] = [];

  add(values: Readonly<Record<string, number>>): void {
    this.values = { ...this.values, ...values };
    const { loss } = values;
    if (loss === undefined || !Number.isFinite(loss)) return;
    this.losses.push(loss);
    if (this.losses.length > MEAN_OF) this.losses.shift();
  }

  /** Mean of the newest losses; null while there are too few. One step's loss says little: it hangs on its noise level. */
  get meanLoss(): number | null {
    if (this.losses.length < MEAN_FROM) return null;
    return this.losses.reduce((sum, loss) => sum + loss, 0) / this.losses.length;
  }

  /** At most `most` texts, the most telling first. */
  texts(most: number, withMean: boolean): string[] {
    const mean = withMean ? this.meanLoss : null;
    return metricTexts(this.values)
      .map((text) => (mean !== null && text.startsWith("loss ") ? `${text} (mean ${compact(mean, 3)})` : text))
      .slice(0, most);
  }
}

/** Metrics in the order in which a narrow line drops them last; others follow in the order of the event. */
const FIRST_METRICS = ["reward", "loss", "val_loss", "judge", "grad_norm", "lr"];

/** `reward .412`, `loss .288`, ... the most telling first. */
export function metricTexts(values: Readonly<Record<string, number>>): string[] {
  const names = Object.keys(values);
  const ordered = [
    ...FIRST_METRICS.filter((name) => names.includes(name)),
    ...names.filter((name) => !FIRST_METRICS.includes(name)),
  ];
  return ordered.map((name) => {
    const value = values[name]!;
    return `${name} ${Number.isFinite(value) ? compact(value, 3) : String(value)}`;
  });
}

/** One line that says how a phase ended: `Align  40 updates in 2 min 10 s (3.3 s each)`. */
export function endText(phase: PhaseProgress, now: number): string {
  const seconds = phase.elapsed(now);
  if (!phase.finished && phase.total > 0)
    return `${phase.name}  left ${phase.amount() ? `at ${phase.amount()} ` : ""}after ${duration(seconds)}`;
  // «1 session in 0.9 s» says no more than the time.
  const single = phase.total === 1;
  const amount =
    phase.unit === "bytes"
      ? bytes(phase.done)
      : phase.done > 0 && phase.unit && !single
        ? `${grouped(phase.done)} ${phase.unit}`
        : "";
  const note = phase.note ? `  ${phase.note}` : "";
  return `${phase.name}  ${amount ? `${amount} in ` : ""}${duration(seconds)}${note}`;
}
