import { describe, expect, it } from "vitest";
import { traceEventsText } from "../../src/formats/trace_events.ts";

describe("a trace for Perfetto and chrome://tracing", () => {
  it("names process and tracks and gives every slice its place, in microseconds to the nanosecond", () => {
    const text = traceEventsText(
      "card",
      [
        { name: "first", slices: [{ name: "all", category: "plan", start: 0, duration: 10.12345 }] },
        {
          name: 'se"cond',
          slices: [{ name: "k", category: "kernel", start: 1 / 3, duration: 2, args: { rate: null } }],
        },
      ],
      { more: { rows: [1] } },
    );
    const trace = JSON.parse(text);
    expect(trace.more).toEqual({ rows: [1] });
    const [process, ...events] = trace.traceEvents;
    expect(process).toEqual({ ph: "M", name: "process_name", pid: 1, tid: 0, args: { name: "card" } });
    expect(events.filter((e: { name: string }) => e.name === "thread_name")).toEqual([
      { ph: "M", name: "thread_name", pid: 1, tid: 1, args: { name: "first" } },
      { ph: "M", name: "thread_name", pid: 1, tid: 2, args: { name: 'se"cond' } },
    ]);
    expect(events.filter((e: { ph: string }) => e.ph === "X")).toEqual([
      { name: "all", cat: "plan", ph: "X", pid: 1, tid: 1, ts: 0, dur: 10.123 },
      { name: "k", cat: "kernel", ph: "X", pid: 1, tid: 2, ts: 0.333, dur: 2, args: { rate: null } },
    ]);
  });
});
