// The buttons of the page as a run hears them: pause and step at the next update, and pause between two submits already, so that
// a click is felt within a moment also where an update takes seconds.

import type { ControlWord, RunControl } from "../../runs/train/control.ts";

export class PageControl implements RunControl {
  private words: ControlWord[] = [];
  private paused = false;
  /** Updates until it pauses by itself. */
  private budget: number | null = null;
  private wake: (() => void)[] = [];
  private readonly onPaused: (paused: boolean) => void;
  private waiting = 0;

  /** @param onPaused called when the run begins to wait, and when it goes on */
  constructor(onPaused: (paused: boolean) => void) {
    this.onPaused = onPaused;
  }

  get isPaused(): boolean {
    return this.paused;
  }

  /** Whether it waits, or will after the updates that it was let make. */
  get holds(): boolean {
    return this.paused || this.budget !== null;
  }

  say(word: "save" | "sample"): void {
    this.words.push(word);
    this.changed();
  }

  /** The Pause button. */
  hold(): void {
    this.paused = true;
    this.budget = null;
  }

  resume(): void {
    this.paused = false;
    this.budget = null;
    this.changed();
  }

  /** Lets `updates` updates go by, the one that is under way included. */
  step(updates: number): void {
    this.paused = false;
    this.budget = updates;
    this.changed();
  }

  take(): Promise<ControlWord[]> {
    const words = this.words.splice(0);
    if (this.budget !== null && --this.budget <= 0) {
      this.budget = null;
      this.paused = true;
    }
    if (this.paused) words.push("pause");
    return Promise.resolve(words);
  }

  /** Waits between two submits as long as the run is paused; the run's end opens it. */
  async gate(signal: AbortSignal): Promise<void> {
    if (!this.paused || signal.aborted) return;
    await this.parked(signal, () => !this.paused);
  }

  async pause(signal: AbortSignal): Promise<ControlWord[]> {
    await this.parked(signal, () => !this.paused || this.words.length > 0);
    const words = this.words.splice(0);
    return this.paused && !signal.aborted ? [...words, "pause"] : words;
  }

  private async parked(signal: AbortSignal, over: () => boolean): Promise<void> {
    if (this.waiting++ === 0) this.onPaused(true);
    try {
      while (!over() && !signal.aborted) {
        await new Promise<void>((resolve) => {
          this.wake.push(resolve);
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
    } finally {
      if (--this.waiting === 0 && !this.paused) this.onPaused(false);
    }
  }

  private changed(): void {
    for (const wake of this.wake.splice(0)) wake();
  }
}
