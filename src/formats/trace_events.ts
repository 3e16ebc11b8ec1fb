// Trace Event Format (Google, 2016): JSON that Perfetto and chrome://tracing open. Tracks of slices that lie inside each
// other; times are microseconds. Properties beside `traceEvents` are allowed and passed over by the viewers.

export interface TraceSlice {
  name: string;
  category: string;
  /** Microseconds. */
  start: number;
  duration: number;
  /** Shown when the slice is selected. */
  args?: Readonly<Record<string, string | number | null>>;
}

export interface TraceTrack {
  name: string;
  /** By start; a slice lies wholly inside an earlier one or behind it. */
  slices: readonly TraceSlice[];
}

/** A nanosecond is the smallest step of a device's clock. */
const exact = (microseconds: number): number => Math.round(microseconds * 1000) / 1000;

/**
 * The text of a trace, one event a line.
 * @param process what the tracks belong to
 * @param more properties for other readers
 */
export function traceEventsText(
  process: string,
  tracks: readonly TraceTrack[],
  more: Readonly<Record<string, unknown>> = {},
): string {
  const named = (name: string, tid: number, value: string) => ({ ph: "M", name, pid: 1, tid, args: { name: value } });
  const events: unknown[] = [named("process_name", 0, process)];
  tracks.forEach(({ name }, i) => {
    events.push(named("thread_name", i + 1, name));
    events.push({ ph: "M", name: "thread_sort_index", pid: 1, tid: i + 1, args: { sort_index: i } });
  });
  tracks.forEach(({ slices }, i) => {
    for (const { name, category, start, duration, args } of slices) {
      const place = { ph: "X", pid: 1, tid: i + 1, ts: exact(start), dur: exact(duration) };
      events.push({ name, cat: category, ...place, ...(args ? { args } : {}) });
    }
  });
  const rest = Object.entries(more).map(
    ([key, value]) => `,\n${JSON.stringify(key)}: ${JSON.stringify(value, null, 1)}`,
  );
  const lines = events.map((event) => JSON.stringify(event)).join(",\n");
  return `{"displayTimeUnit": "ns",\n"traceEvents": [\n${lines}\n]${rest.join("")}}\n`;
}
