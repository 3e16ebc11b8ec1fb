// A terminal that keeps what was printed, and a clock and timers that a test moves by hand.
import type { Terminal } from "../../src/cli/terminal.ts";

export class RecordingTerminal implements Terminal {
  output = "";
  errors = "";
  interactive: boolean;
  color = false;
  width: number;

  constructor(interactive = false, width = 80) {
    this.interactive = interactive;
    this.width = width;
  }

  out(text: string): void {
    this.output += text;
  }

  err(text: string): void {
    this.errors += text;
  }

  columns(): number {
    return this.width;
  }

  /** What a screen would show: the erased line is gone, the current one has no line end. */
  get screen(): string[] {
    return this.output.split("\n").map((line) => line.split("\r\u001b[2K").at(-1)!);
  }

  get lines(): string[] {
    return this.output.split("\n").filter((line) => line !== "");
  }
}

export class ManualClock {
  time = 0;
  private readonly timers: { every: number; next: number; call: () => void }[] = [];

  readonly now = (): number => this.time;

  readonly every = (seconds: number, call: () => void): (() => void) => {
    const timer = { every: seconds, next: this.time + seconds, call };
    this.timers.push(timer);
    return () => this.timers.splice(this.timers.indexOf(timer), 1);
  };

  /** Moves on and lets due timers fire in order. */
  advance(seconds: number): void {
    const end = this.time + seconds;
    for (;;) {
      const due = this.timers.filter((timer) => timer.next <= end + 1e-9).sort((a, b) => a.next - b.next)[0];
      if (!due) break;
      this.time = due.next;
      due.next += due.every;
      due.call();
    }
    this.time = end;
  }
}
