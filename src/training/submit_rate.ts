// How much work a submit may hold is known when a device's speed is: it is learned from a trainer's first updates.

import type { Plan } from "../tensor/session.ts";
import type { Stage } from "./stage.ts";

/** Updates that are timed before the submits are set by what they showed. */
const TIMED_UPDATES = 4;

export class SubmitRate {
  private timed = 0;
  private fastest = 0;

  /** Hears of an update; after the first few it lets a submit of `works` hold as much as the device does in a moment. */
  learn(flops: number, milliseconds: number, works: Iterable<Plan | Stage | null | undefined>): void {
    if (this.timed >= TIMED_UPDATES || milliseconds <= 0) return;
    this.timed++;
    this.fastest = Math.max(this.fastest, flops / (milliseconds / 1000));
    if (this.timed < TIMED_UPDATES) return;
    for (const work of works) {
      if (!work) continue;
      if ("setRate" in work) work.setRate(this.fastest);
      else work.executable?.setRate(this.fastest);
    }
  }
}
