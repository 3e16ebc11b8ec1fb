// Replays piece by piece, for a host that shares its adapter with a screen: at most two submits are in flight, each worth a
// moment of device time, and before each a gate may hold everything up (a pause, a page that is hidden). How much fits a
// moment is measured while pieces run, so a slow adapter gets small ones from the beginning.

import type { Gpu } from "../gpu/device.ts";
import type { Executable } from "./executable.ts";

/** Awaited before every submit of a paced replay; where it throws, the replay ends there with its error. */
export type Gate = () => Promise<void>;

/** Device time that a submit should take: two of them are what a pause waits for. */
const PIECE_SECONDS = 0.05;
/** The device works on one submit while the next one waits behind it. */
const IN_FLIGHT = 2;
/** Work of the first submit, of a device that nobody knows; the unit is that of `Executable.after`. */
const FIRST_PIECE = 2e8;
/** Times below this say more about waiting than about the device. */
const LEAST_SECONDS = 0.005;
/** How much larger a piece may be than what was learned before. */
const GROWTH = 4;

interface Piece {
  work: number;
  submitted: number;
  /** When the device had done it. */
  done: Promise<number>;
}

export class Pacer {
  /** True while a replay is between two of its submits. */
  busy = false;
  private readonly gpu: Gpu;
  private piece = FIRST_PIECE;
  /** What was submitted and not yet waited for, the oldest first. */
  private readonly inFlight: Piece[] = [];
  private turn: Promise<void> = Promise.resolve();
  private lastDone = 0;
  /** What was done since the last lesson, and the device time of it. */
  private work = 0;
  private seconds = 0;

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /**
   * Submits all calls and resolves when the last was submitted; replays that overlap go one after the other.
   * @param whole may do it all at once instead, after the gate's first answer; true where it did
   */
  async replay(executable: Executable, gate: Gate, whole: () => boolean = () => false): Promise<void> {
    const before = this.turn;
    let end = () => {};
    this.turn = new Promise((resolve) => {
      end = resolve;
    });
    await before;
    this.busy = true;
    try {
      for (let from = 0; from < executable.count; ) {
        while (this.inFlight.length >= IN_FLIGHT) await this.oldest();
        await gate();
        if (from === 0 && whole()) return;
        const { to, work } = executable.after(from, this.piece);
        const submitted = performance.now();
        executable.submit(from, to);
        const done = this.gpu.device.queue.onSubmittedWorkDone().then(() => performance.now());
        // A device that is lost while nobody waits here is reported by the next one who does.
        done.catch(() => undefined);
        this.inFlight.push({ work, submitted, done });
        from = to;
      }
    } finally {
      this.busy = false;
      end();
    }
  }

  /** Waits for the oldest submit and learns from how long the device took. */
  private async oldest(): Promise<void> {
    const { work, submitted, done } = this.inFlight.shift()!;
    const at = await this.gpu.wait(done);
    this.gpu.check();
    this.work += work;
    this.seconds += (at - Math.max(submitted, this.lastDone)) / 1000;
    this.lastDone = at;
    if (this.seconds < LEAST_SECONDS) return;
    this.piece = Math.min(GROWTH * this.piece, (this.work / this.seconds) * PIECE_SECONDS);
    this.work = 0;
    this.seconds = 0;
  }
}
