// Ctrl-C for long runs: the first asks to save and stop, the second to stop at once. One key press can arrive twice,
// from the terminal and from the program that started this one, so a repeat within a second is the same one.

import process from "node:process";

export interface InterruptHandlers {
  /** Save and stop at the next step. */
  onFirst: (signal: string) => void;
  /** Stop at once. */
  onSecond: (signal: string) => void;
}

const SAME_PRESS_MS = 1000;

/** Decides for each signal whether it is the first, a repeat of the same press, or the second; `now` in milliseconds. */
export function interruptCounter(handlers: InterruptHandlers): (signal: string, now: number) => void {
  let last = Number.NEGATIVE_INFINITY;
  let presses = 0;
  return (signal, now) => {
    const repeated = now - last < SAME_PRESS_MS;
    last = now;
    if (repeated) return;
    presses++;
    if (presses === 1) handlers.onFirst(signal);
    else handlers.onSecond(signal);
  };
}

/** Listens to SIGINT and SIGTERM; returns the function that stops listening. */
export function watchInterrupts(handlers: InterruptHandlers): () => void {
  const count = interruptCounter(handlers);
  const onInterrupt = () => count("SIGINT", performance.now());
  const onTerminate = () => count("SIGTERM", performance.now());
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onTerminate);
  return () => {
    process.removeListener("SIGINT", onInterrupt);
    process.removeListener("SIGTERM", onTerminate);
  };
}
