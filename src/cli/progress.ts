// The terminal's reader of the event stream: one updating line where the terminal can redraw it, plain lines with a
// heartbeat elsewhere. Messages, warnings and saved files are printed above the line and stay.

import pc from "picocolors";
import type { RunEvent } from "../base/events.ts";
import { bytes } from "../evaluation/format.ts";
import { clock, endText, isOuterPhase, Metrics, PhaseProgress } from "./progress_state.ts";
import { cutTo, displayWidth, type Terminal, wrapWords } from "./terminal.ts";

export interface ProgressOptions {
  /** Warnings and errors alone. */
  quiet?: boolean;
  /** Longest silence in seconds where no line can be redrawn. */
  heartbeat?: number;
  /** Seconds of a steady clock. */
  now?: () => number;
  /** Calls back every so many seconds until the returned function is called. */
  every?: (seconds: number, call: () => void) => () => void;
}

const REDRAW = 0.1;
/** Shortest time between two plain lines of one phase, as a share of the heartbeat. */
const PLAIN_SHARE = 0.5;
const LONGEST_BAR = 24;
const MOST_METRICS = 4;
/** Longer lines of prose are hard to read. */
const WIDEST_TEXT = 110;

function timer(seconds: number, call: () => void): () => void {
  const id = setInterval(call, seconds * 1000) as unknown as { unref?: () => void } | number;
  if (typeof id === "object") id.unref?.();
  return () => clearInterval(id as never);
}

export class Progress {
  private readonly terminal: Terminal;
  private readonly quiet: boolean;
  private readonly now: () => number;
  private readonly every: NonNullable<ProgressOptions["every"]>;
  private readonly colors: ReturnType<typeof pc.createColors>;
  private heartbeat: number;
  private stopTimer: (() => void) | null = null;
  private phase: PhaseProgress | null = null;
  /** The phase that waits while one inside it runs. */
  private outer: PhaseProgress | null = null;
  private metrics = new Metrics();
  private drawn = false;
  private lastDraw = -Infinity;
  private lastPrint = -Infinity;

  constructor(terminal: Terminal, options: ProgressOptions = {}) {
    this.terminal = terminal;
    this.quiet = options.quiet ?? false;
    this.heartbeat = options.heartbeat ?? 10;
    this.now = options.now ?? (() => performance.now() / 1000);
    this.every = options.every ?? timer;
    this.colors = pc.createColors(terminal.color);
  }

  setHeartbeat(seconds: number): void {
    this.heartbeat = seconds;
  }

  /** The event sink. */
  readonly sink = (event: RunEvent): void => {
    switch (event.kind) {
      case "phase":
        this.onPhase(event);
        break;
      case "metric":
        this.metrics.add(event.values);
        this.refresh();
        break;
      case "checkpoint":
        this.note(`saved ${event.path} (${bytes(event.bytes)})`);
        break;
      case "message":
        this.note(event.text);
        break;
      case "warning":
        this.above(this.wrapped(`${this.colors.yellow("warning")} ${event.code} ${event.text}`));
        break;
      case "error": {
        const text = event.text.startsWith(event.code) ? event.text : `${event.code} ${event.text}`;
        this.above(this.colors.red(text), "err");
        break;
      }
      case "sample":
        break;
    }
  };

  /** Prints text above the progress line, also a result of a quiet run. */
  above(text: string, stream: "out" | "err" = "out"): void {
    this.erase();
    this.terminal[stream](text.endsWith("\n") ? text : `${text}\n`);
    this.lastPrint = this.now();
    this.draw();
  }

  /** Ends the line and the timer; the running phase, if any, is closed as it stands. */
  close(): void {
    this.endPhase();
    if (this.phase) this.endPhase();
    this.erase();
    this.stopTimer?.();
    this.stopTimer = null;
  }

  private note(text: string): void {
    if (!this.quiet) this.above(this.wrapped(text));
  }

  /** Sentences break between words on a terminal; in files and pipes a line stays whole, for those who search it. */
  private wrapped(text: string): string {
    return this.terminal.interactive ? wrapWords(text, Math.min(this.terminal.columns() - 1, WIDEST_TEXT)) : text;
  }

  private onPhase(event: Extract<RunEvent, { kind: "phase" }>): void {
    const now = this.now();
    if (this.outer?.name === event.name) this.endPhase();
    if (this.phase?.name === event.name) this.phase.update(event, now);
    else {
      this.beginPhase(event, now);
      if (!this.quiet) {
        this.stopTimer ??= this.terminal.interactive
          ? this.every(REDRAW * 5, () => this.refresh(true))
          : this.every(1, () => this.beat());
        if (!this.terminal.interactive && !this.outer) this.plain();
      }
    }
    if (this.phase!.finished) this.endPhase();
    else this.refresh();
  }

  private beginPhase(event: Extract<RunEvent, { kind: "phase" }>, now: number): void {
    // One inside another comes and goes many times in a run: it has the line while it lasts and leaves nothing behind.
    if (this.outer) this.endPhase();
    if (this.phase && isOuterPhase(this.phase.name) && !this.phase.finished) {
      this.outer = this.phase;
      this.outer.pause(now);
    } else {
      this.endPhase();
      this.metrics = new Metrics();
    }
    this.phase = new PhaseProgress(event, now);
  }

  /** Leaves one lasting line for the phase that ends; the end of an inner phase gives the line back to the outer one. */
  private endPhase(): void {
    const phase = this.phase;
    if (!phase) return;
    if (this.outer) {
      this.phase = this.outer;
      this.outer = null;
      this.phase.resume(this.now());
      this.refresh(true);
      return;
    }
    this.phase = null;
    if (this.quiet) return;
    this.erase();
    const mark = phase.finished || phase.total <= 0 ? this.colors.green("✓") : this.colors.yellow("·");
    this.terminal.out(`${mark} ${endText(phase, this.now())}\n`);
    this.lastPrint = this.now();
  }

  private refresh(always = false): void {
    if (this.quiet || !this.phase) return;
    const now = this.now();
    if (this.terminal.interactive) {
      if (always || now - this.lastDraw >= REDRAW) this.draw();
    } else if (now - this.lastPrint >= this.heartbeat * PLAIN_SHARE) this.plain();
  }

  private beat(): void {
    if (this.phase && this.now() - this.lastPrint >= this.heartbeat - 0.5) this.plain();
  }

  /** One plain line about the running phase. */
  private plain(): void {
    if (!this.phase) return;
    const now = this.now();
    const parts = [
      this.phase.amount(),
      this.phase.rateText(now),
      this.etaText(now),
      ...this.metricTexts(),
      this.phase.note,
    ];
    const text = parts.filter(Boolean).join(", ");
    this.terminal.out(`  ${this.phase.name}${text ? `: ${text}` : ""} [${clock(this.phase.elapsed(now))}]\n`);
    this.lastPrint = now;
  }

  /** Metrics of the running phase; a phase inside another has none of its own. */
  private metricTexts(): string[] {
    return this.phase && !this.outer ? this.metrics.texts(MOST_METRICS, isOuterPhase(this.phase.name)) : [];
  }

  private etaText(now: number): string {
    const left = this.phase?.remaining(now) ?? null;
    return left === null ? "" : `ETA ${clock(left)}`;
  }

  private erase(): void {
    if (!this.drawn) return;
    this.terminal.out("\r\u001b[2K");
    this.drawn = false;
  }

  private draw(): void {
    if (this.quiet || !this.phase || !this.terminal.interactive) return;
    const now = this.now();
    // The last column stays free: writing there wraps on some terminals, and a wrapped line cannot be erased.
    const line = progressLine(this.phase, this.metricTexts(), now, this.terminal.columns() - 1, this.colors);
    this.terminal.out(`\r\u001b[2K${line}`);
    this.drawn = true;
    this.lastDraw = now;
  }
}

/** The updating line in at most `width` columns: what does not fit is dropped, metrics first, the bar next. */
export function progressLine(
  phase: PhaseProgress,
  metrics: readonly string[],
  now: number,
  width: number,
  colors: ReturnType<typeof pc.createColors> = pc.createColors(false),
): string {
  const left = phase.remaining(now);
  const eta = left !== null ? `ETA ${clock(left)}` : phase.total > 0 ? "ETA –" : "";
  const required = [phase.name, phase.amount()].filter(Boolean);
  const optional = [eta, phase.rateText(now), clock(phase.elapsed(now)), ...metrics, phase.note].filter(Boolean);
  const gap = "  ";
  let used = displayWidth(required.join(gap));
  if (used > width) return cutTo(required.join(gap), width);
  const kept: string[] = [];
  for (const part of optional) {
    const next = gap.length + displayWidth(part);
    if (used + next > width) break;
    kept.push(part);
    used += next;
  }
  const bar = phase.total > 0 ? Math.min(LONGEST_BAR, width - used - gap.length) : 0;
  const parts = [colors.bold(phase.name)];
  if (bar >= 8) {
    const full = Math.round(bar * Math.min(1, phase.done / phase.total));
    parts.push(colors.cyan("━".repeat(full)) + colors.dim("─".repeat(bar - full)));
  }
  const amount = phase.amount();
  if (amount) parts.push(amount);
  return [...parts, ...kept].join(gap);
}
