// The one event stream of every run. Training, sampling and evaluation emit these; the terminal's progress line, log.jsonl,
// the report and the page are all readers of it, so that a page can replay the run of a server.

export type RunEvent =
  | { kind: "phase"; name: string; done: number; total: number; unit: string; note?: string }
  | { kind: "metric"; step: number; values: Record<string, number> }
  /** `judge` is the held-out judge's score of this picture, where it was judged. */
  | { kind: "sample"; step: number; path: string; item?: string; seed?: number; judge?: number }
  | { kind: "checkpoint"; step: number; path: string; bytes: number }
  | { kind: "message"; text: string }
  | { kind: "warning"; code: string; text: string }
  | { kind: "error"; code: string; text: string };

/** Receives events in the order in which they happen; must not throw. */
export type EventSink = (event: RunEvent) => void;

/** One sink that hands every event to all of `sinks`. */
export function fanOut(...sinks: EventSink[]): EventSink {
  return (event) => {
    for (const sink of sinks) sink(event);
  };
}
