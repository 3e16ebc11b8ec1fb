// The lines of a run's log.jsonl: one JSON object a line, `{t, step, kind, ...}`, so that a run can be replayed or watched with
// any tool, and by the page.

import type { RunEvent } from "../base/events.ts";

/** Phases report more often than a log needs; between these seconds only their beginning and end are written. */
const PHASE_INTERVAL = 1;
/** Numbers that JSON cannot say are written as the texts "NaN", "Infinity" and "-Infinity". */
export function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

/**
 * Makes the lines of one stream: `t` in seconds since 1970, `step` the event's own or the latest one.
 * Returns null for a phase event that may be left out.
 */
export function lineMaker(now: () => number = () => Date.now() / 1000): (event: RunEvent) => string | null {
  let step = 0;
  let phase = "";
  let lastPhase = -Infinity;
  return (event) => {
    const t = Math.round(now() * 1000) / 1000;
    if ("step" in event) step = event.step;
    if (event.kind === "phase") {
      const ends = event.total > 0 && event.done >= event.total;
      if (event.name === phase && !ends && t - lastPhase < PHASE_INTERVAL) return null;
      phase = event.name;
      lastPhase = t;
    }
    return `${JSON.stringify({ t, step, ...event }, jsonValue)}\n`;
  };
}
