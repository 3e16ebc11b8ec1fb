// One press of Ctrl-C can arrive twice; a second press must not be mistaken for it.

import { describe, expect, it } from "vitest";
import { interruptCounter } from "../../src/platform/interrupts.ts";

function play(times: number[]): string[] {
  const calls: string[] = [];
  const count = interruptCounter({
    onFirst: (signal) => calls.push(`first ${signal}`),
    onSecond: (signal) => calls.push(`second ${signal}`),
  });
  for (const time of times) count("SIGINT", time);
  return calls;
}

describe("interrupts", () => {
  it("take signals within a second as one press", () => {
    expect(play([100])).toEqual(["first SIGINT"]);
    expect(play([100, 105, 900])).toEqual(["first SIGINT"]);
  });

  it("stop at once on the second press", () => {
    expect(play([100, 102, 1500])).toEqual(["first SIGINT", "second SIGINT"]);
  });
});
