// The clock of a recorded run: lines are given out when their time has come, at the speed that was chosen. Pure but for the
// seconds that it is told; going back builds the view anew, which a thinned log makes cheap.

import type { LogLine } from "../protocol.ts";
import { applyLine, emptyRunView, type RunView } from "../run_view.ts";
import { WorkClock } from "./overlay.ts";

export const SPEEDS = [1, 10, 60] as const;

export class Player {
  view: RunView;
  /** When each update was measured, for curves over time. */
  clock = new WorkClock();
  /** Seconds since the first line. */
  position = 0;
  speed: number = 10;
  playing = false;
  readonly duration: number;
  private readonly lines: readonly LogLine[];
  private readonly name: string;
  private next = 0;

  constructor(name: string, lines: readonly LogLine[]) {
    this.name = name;
    // A clock that was set back while the run went on must not hide lines.
    this.lines = [...lines].sort((a, b) => a.t - b.t);
    this.view = emptyRunView(name);
    this.duration = this.lines.length > 0 ? this.lines.at(-1)!.t - this.lines[0]!.t : 0;
    this.seek(0);
  }

  get ended(): boolean {
    return this.position >= this.duration;
  }

  /** Plays on, from the beginning where the end was reached. */
  play(): void {
    if (this.ended) this.seek(0);
    this.playing = this.duration > 0;
  }

  pause(): void {
    this.playing = false;
  }

  /** Lets `seconds` of the watcher's time pass; returns whether anything was shown. */
  tick(seconds: number): boolean {
    if (!this.playing) return false;
    this.seek(this.position + seconds * this.speed);
    if (this.ended) this.playing = false;
    return true;
  }

  /** Goes to a position in seconds. */
  seek(position: number): void {
    const wanted = Math.min(this.duration, Math.max(0, position));
    if (wanted < this.position) {
      this.view = emptyRunView(this.name);
      this.clock = new WorkClock();
      this.next = 0;
    }
    this.position = wanted;
    const until = (this.lines[0]?.t ?? 0) + wanted;
    while (this.next < this.lines.length && this.lines[this.next]!.t <= until) {
      const line = this.lines[this.next++]!;
      applyLine(this.view, line);
      this.clock.add(line.t, line.step, line.kind === "metric");
    }
  }

  /** Positions of the samples by update, for marks on the scrubber. */
  sampleMarks(): { step: number; position: number }[] {
    const marks = new Map<number, number>();
    for (const line of this.lines)
      if (line.kind === "sample" && !marks.has(line.step)) marks.set(line.step, line.t - this.lines[0]!.t);
    return [...marks].map(([step, position]) => ({ step, position }));
  }
}
