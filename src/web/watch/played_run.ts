// A recorded run that plays: the lines come from the page's own files, the player's clock gives them out, and panels read
// it as any other run. Where the watcher wants little motion it stands at its end until somebody plays it.

import { signal } from "@preact/signals";
import type { LogLine } from "../protocol.ts";
import type { RunView } from "../run_view.ts";
import { RecordedRunSource, type Recording } from "../sources/recorded.ts";
import type { WorkClock } from "./overlay.ts";
import { Player } from "./player.ts";
import { type Hearing, type RunFacts, readFacts } from "./watched_run.ts";

/** Milliseconds between two drawings while it plays. */
const DRAW_EVERY = 100;
/** A tab that slept must not jump to the end. */
const LONGEST_TICK = 0.5;

export class PlayedRun {
  readonly recording: Recording;
  readonly source: RecordedRunSource;
  readonly hearing = signal<Hearing>("reading");
  readonly version = signal(0);
  readonly facts = signal<RunFacts>({ record: null, config: null, device: null, hasReport: false });
  player: Player;
  private timer: ReturnType<typeof setInterval> | null = null;
  private stop: (() => void) | null = null;

  constructor(recording: Recording, source = new RecordedRunSource(recording.name)) {
    this.recording = recording;
    this.source = source;
    this.player = new Player(recording.name, []);
  }

  get name(): string {
    return this.recording.name;
  }

  get view(): RunView {
    return this.player.view;
  }

  get clock(): WorkClock {
    return this.player.clock;
  }

  /** Reads the recording; plays it where `play`, else shows its end. */
  start(play = !wantsLittleMotion()): void {
    const all: LogLine[] = [];
    this.stop = this.source.watch({
      lines: (lines) => all.push(...lines),
      ended: () => {
        this.player = new Player(this.name, all);
        this.hearing.value = "ended";
        if (play) this.play();
        else this.seek(this.player.duration);
      },
    });
    void readFacts(this.source).then((facts) => {
      this.facts.value = { ...facts, hasReport: false };
    });
  }

  play(): void {
    this.player.play();
    let last = performance.now();
    this.timer ??= setInterval(() => {
      const now = performance.now();
      this.player.tick(Math.min(LONGEST_TICK, (now - last) / 1000));
      last = now;
      if (!this.player.playing) this.halt();
      this.version.value++;
    }, DRAW_EVERY);
    this.version.value++;
  }

  pause(): void {
    this.player.pause();
    this.halt();
    this.version.value++;
  }

  seek(position: number): void {
    this.player.seek(position);
    this.version.value++;
  }

  setSpeed(speed: number): void {
    this.player.speed = speed;
    this.version.value++;
  }

  close(): void {
    this.stop?.();
    this.player.pause();
    this.halt();
  }

  private halt(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }
}

export const wantsLittleMotion = (): boolean =>
  typeof matchMedia === "function" && matchMedia("(prefers-reduced-motion: reduce)").matches;
