// Phases of a run as events with counts, and their wall times for the report.

import type { EventSink } from "../base/events.ts";
import type { PhaseTime } from "../evaluation/report_data.ts";

export class Phases {
  private readonly emit: EventSink;
  private readonly list: PhaseTime[] = [];

  constructor(emit: EventSink) {
    this.emit = emit;
  }

  /** Runs `body` as a phase; `tick(done, total?)` moves its count. */
  async timed<T>(
    name: string,
    total: number,
    unit: string,
    body: (tick: (done: number, of?: number) => void) => Promise<T>,
  ): Promise<T> {
    const started = performance.now();
    let count = total;
    let last = 0;
    this.emit({ kind: "phase", name, done: 0, total, unit });
    const result = await body((done, of) => {
      if (of !== undefined) count = of;
      last = done;
      this.emit({ kind: "phase", name, done, total: count, unit });
    });
    if (last !== count) this.emit({ kind: "phase", name, done: count, total: count, unit });
    this.list.push({ phase: name, seconds: (performance.now() - started) / 1000, count, unit });
    return result;
  }

  add(time: PhaseTime): void {
    this.list.push(time);
  }

  seconds(name: string): number {
    return this.list.filter((t) => t.phase === name).reduce((sum, t) => sum + t.seconds, 0);
  }

  times(): PhaseTime[] {
    return this.list;
  }
}
