// Pictures on their way to the page while they take shape: a few a second, and on a slow device so seldom that showing takes a
// ninth of the time at most; none where nobody looks, in a hidden tab or for people who want little motion.

import { fromPlanes } from "../../formats/png.ts";
import type { Onlooker } from "../../training/drawing.ts";
import type { EngineEvent, Pixels } from "../protocol.ts";

/** Milliseconds between two showings, at the least. */
const EVERY = 200;
/** How many times as long as a showing took nothing is shown after it. */
const REST = 8;

/** [3 · H · W] in [0, 1] as a canvas takes it. */
export function rgbaOf(planes: Float32Array, width: number, height: number): Pixels {
  const { data } = fromPlanes(planes, width, height, {});
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
    rgba[4 * i + 3] = 255;
  }
  return { width, height, rgba };
}

export class Lookout {
  /** Whether the page wants to see anything. */
  on = false;
  private readonly post: (event: EngineEvent) => void;
  private next = 0;

  constructor(post: (event: EngineEvent) => void) {
    this.post = post;
  }

  /**
   * @param run whose samples they are, at update `step`; null for a drawing apart from runs
   * @param items what each is of
   */
  onlooker(run: string | null, step: number, items: readonly string[]): Onlooker {
    return {
      wanted: () => this.on && performance.now() >= this.next,
      show: (pictures, first, done, total, cost) => {
        this.next = performance.now() + Math.max(EVERY, REST * cost);
        const shown = pictures.map((planes, i) => {
          // The embedded model's pictures are squares.
          const side = Math.sqrt(planes.length / 3);
          return { index: first + i, item: items[first + i] ?? "", ...rgbaOf(planes, side, side) };
        });
        this.post({ kind: "preview", run, step, done, total, pictures: shown });
      },
    };
  }
}
