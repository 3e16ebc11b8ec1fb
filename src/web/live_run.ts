// A run of this tab as its panels see it: events change the view at once, and a signal tells the panels of it at most once an
// animation frame, so that a hundred updates a second cost no more than sixty drawings.

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { EngineEvent, LogLine, PreviewPicture, RunStatus, WireError } from "./protocol.ts";
import { applyLine, emptyRunView, type RunView } from "./run_view.ts";

/** Calls back a little later, once. */
export type Schedule = (draw: () => void) => void;

/** A hidden tab has no frames; its title, which is all that is seen of it, follows the run at this pace. */
const HIDDEN_MS = 1000;

/** Before the next frame. Where there are no frames, in a hidden tab or a test, a timer stands in. */
export const onFrame: Schedule = (draw) => {
  if (typeof requestAnimationFrame !== "function") return void setTimeout(draw, 16);
  const frame = requestAnimationFrame(() => {
    clearTimeout(timer);
    draw();
  });
  const timer = setTimeout(() => {
    cancelAnimationFrame(frame);
    draw();
  }, HIDDEN_MS);
};

/** The newest of each place. */
export function joinPreviews(before: readonly PreviewPicture[], now: readonly PreviewPicture[]): PreviewPicture[] {
  const places = new Set(now.map(({ index }) => index));
  return [...before.filter(({ index }) => !places.has(index)), ...now];
}

export class LiveRun {
  readonly name: string;
  readonly command: "train" | "align";
  /** Grows in place; read it after reading `version`. */
  readonly view: RunView;
  readonly status: Signal<RunStatus>;
  readonly error = signal<WireError | null>(null);
  readonly memory = signal<Record<string, number> | null>(null);
  /** Samples that take shape now. */
  readonly forming = signal<{ step: number; pictures: readonly PreviewPicture[] } | null>(null);
  /** Update of the newest checkpoint. */
  readonly saved = signal(0);
  private readonly changes = signal(0);
  private readonly schedule: Schedule;
  private waiting = false;

  constructor(name: string, command: "train" | "align", schedule: Schedule = onFrame) {
    this.name = name;
    this.command = command;
    this.schedule = schedule;
    this.view = emptyRunView(name);
    this.status = signal<RunStatus>("starting");
  }

  /**
   * Rises when the view has changed, at most once a frame. A component that shows the view must read it itself: one that
   * reads any signal is not drawn again just because its parent was.
   */
  get version(): ReadonlySignal<number> {
    return this.changes;
  }

  /** Whether the worker has it in hands, paused or not. */
  get active(): boolean {
    return ["starting", "running", "paused", "stopping"].includes(this.status.value);
  }

  /** Lines of the run's log, new ones or those of an earlier day. */
  add(lines: readonly LogLine[]): void {
    for (const line of lines) {
      applyLine(this.view, line);
      if (line.kind === "checkpoint") this.saved.value = line.step;
      // Samples come when all of them are done.
      if (line.kind === "sample") this.forming.value = null;
    }
    this.touch();
  }

  /** Takes what the engine says about this run. */
  take(event: EngineEvent): void {
    if (event.kind === "log") this.add(event.lines);
    else if (event.kind === "preview") this.form(event);
    else if (event.kind === "memory") this.memory.value = event.categories;
    else if (event.kind === "status") {
      this.status.value = event.status;
      this.error.value = event.error ?? null;
      if (!this.active) this.forming.value = null;
      this.touch();
    }
  }

  /** Samples of one update come batch by batch. */
  private form(event: EngineEvent & { kind: "preview" }): void {
    const before = this.forming.value;
    const pictures = before?.step === event.step ? joinPreviews(before.pictures, event.pictures) : event.pictures;
    this.forming.value = { step: event.step, pictures };
  }

  private touch(): void {
    if (this.waiting) return;
    this.waiting = true;
    this.schedule(() => {
      this.waiting = false;
      this.changes.value++;
    });
  }
}
