// `longtail bench`: the speed of this machine's adapter with the program's own kernels, as a table and as JSON.

import { adapterLine, type BenchReport, type BenchRow, runBench } from "../bench/run.ts";
import type { Command } from "../command.ts";
import { withRunDevice } from "../run_device.ts";
import { renderTable } from "../table.ts";

const FILE = "bench.json";

export const command: Command = {
  name: "bench",
  summary: "measure this adapter's speed: kernels, memory, host",
  usage: "[--output=bench.json] [--device.backend=dawn|deno] [--json]",
  options: [{ name: "output", value: "PATH", summary: `file for the numbers; default ${FILE}` }],
  description:
    "Takes about half a minute. Times are the device's own, the least of several; bytes are those that a kernel must move at " +
    "least, compared with the fastest copy of the same run. Comparisons with other libraries are `npm run bench`.",
  configuration: true,
  examples: [
    ["longtail bench", "the table, and bench.json with the same numbers"],
    ["longtail bench --json --output=card.json", "for a script"],
  ],
  async run(context) {
    const { arguments: parsed, files, emit } = context;
    const { config } = await context.loadConfig({ preset: "embedded" });
    const path = typeof parsed.flags["output"] === "string" ? parsed.flags["output"] : FILE;
    const report = await withRunDevice(config, emit, (gpu) =>
      runBench(gpu, (note, done, total) => emit({ kind: "phase", name: "measure", done, total, unit: "tasks", note })),
    );
    await files.writeAtomic(path, `${JSON.stringify(report, null, 1)}\n`);
    context.result(report, `${benchText(report, context.columns())}\nthe numbers: ${path}\n`);
    return 0;
  },
};

/** 1.23 T, 45.6 G: three digits in the unit that fits. */
function rate(value: number): string {
  const [scaled, unit] = value >= 1e12 ? [value / 1e12, "T"] : [value / 1e9, "G"];
  return `${scaled >= 100 ? scaled.toFixed(0) : scaled >= 10 ? scaled.toFixed(1) : scaled.toFixed(2)} ${unit}`;
}

function time(seconds: number): string {
  return seconds >= 1e-3 ? `${(seconds * 1e3).toFixed(2)} ms` : `${(seconds * 1e6).toFixed(1)} us`;
}

/** The report for people. */
export function benchText(report: BenchReport, columns: number): string {
  const { adapter, rows, host } = report;
  const right = (title: string) => ({ title, align: "right" as const });
  const tables = [...new Set(rows.map(({ section }) => section))].map((section) => {
    const own = rows.filter((row) => row.section === section);
    const compared = own.some(({ ofCopy }) => ofCopy !== null);
    const speed = (row: BenchRow) =>
      row.flopsPerSecond === null ? `${rate(row.bytesPerSecond!)}B/s` : `${rate(row.flopsPerSecond)}FLOP/s`;
    const ofCopy = (row: BenchRow) => (row.ofCopy === null ? "" : `${(100 * row.ofCopy).toFixed(0)} %`);
    return renderTable(
      [{ title: section }, right("time"), right("speed"), ...(compared ? [right("of copy")] : [])],
      own.map((row) => [row.name, time(row.seconds), speed(row), ...(compared ? [ofCopy(row)] : [])]),
      columns,
    );
  });
  const matrices = adapter.subgroupMatrices.map(
    ({ component, result, m, n, k }) => `${component} to ${result} ${m}x${n}x${k}`,
  );
  const has = [
    `half floats: ${adapter.f16 ? "yes" : "no"}`,
    `subgroup matrices: ${matrices.join(", ") || "none"}`,
    `times by ${adapter.timestamps ? "the device's clock" : "the host's clock, with what a submit costs"}`,
  ];
  return [
    `adapter: ${adapterLine(report)}`,
    ...has,
    "",
    ...tables,
    `host: ${host.dispatch.toFixed(2)} us a dispatch of a replay, ${host.roundTrip.toFixed(2)} ms from a submit to its end`,
    `measured in ${report.seconds.toFixed(0)} s`,
  ].join("\n");
}
