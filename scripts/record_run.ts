// Makes the recorded run of the page from a run folder: the log thinned, samples as small JPEGs, the report's data without
// its pictures. What is left out is left out, nothing is invented: every number and picture is the run's own, rounded.
//   deno run -A --no-check scripts/record_run.ts runs/first-lora lora "A LoRA on ten rare emoji" [--samples=6]

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { decode } from "fast-png";
import jpeg from "jpeg-js";
import type { LogLine } from "../src/web/protocol.ts";
import { parseLog } from "../src/web/run_source.ts";
import type { Recording } from "../src/web/sources/recorded.ts";

const OUT = join(dirname(dirname(fileURLToPath(import.meta.url))), "src", "web", "public", "recorded");
/** Shows no artefacts on 64-pixel pictures at a quarter of a PNG's size. */
const JPEG_QUALITY = 88;
/** Seconds between two kept lines of a phase in the middle. */
const PHASE_EVERY = 2;
/** Measurements that no panel of the page shows. */
const UNSHOWN = new Set(["stall_seconds", "host_seconds"]);
/** What is kept of report.json: everything but pictures and what has a file of its own. */
const REPORT_PARTS = [
  "kind",
  "name",
  "createdAt",
  "status",
  "method",
  "model",
  "device",
  "timing",
  "memory",
  "versions",
];
const MORE_PARTS = [
  "settings",
  "speed",
  "evaluation",
  "guards",
  "command",
  "limits",
  "remarks",
  "attributions",
  "events",
];

/** Five digits: more than a curve shows, a third of the bytes. */
const rounded = (value: unknown) =>
  typeof value === "number" && Number.isFinite(value) ? Number(value.toPrecision(5)) : value;

/** The log with what the panels need; `keeps` says which samples stay. */
export function thinLog(lines: readonly LogLine[], keeps: (path: string) => boolean): object[] {
  const kept: object[] = [];
  let phase = { name: "", t: -Infinity };
  for (const line of lines) {
    const t = Math.round(line.t * 100) / 100;
    if (line.kind === "phase") {
      const edge = line.name !== phase.name || line.done >= line.total;
      if (!edge && t - phase.t < PHASE_EVERY) continue;
      phase = { name: line.name, t };
      kept.push({ ...line, t });
    } else if (line.kind === "metric") {
      const values = Object.entries(line.values).filter(([name]) => !UNSHOWN.has(name));
      kept.push({ ...line, t, values: Object.fromEntries(values.map(([name, value]) => [name, rounded(value)])) });
    } else if (line.kind === "sample") {
      if (!keeps(line.path)) continue;
      const judge = line.judge === undefined ? {} : { judge: rounded(line.judge) };
      kept.push({ ...line, t, path: line.path.replace(/\.png$/, ".jpg"), ...judge });
    } else if (line.kind === "checkpoint") {
      kept.push({ ...line, t, path: `ckpt/${basename(line.path)}` });
    } else kept.push({ ...line, t });
  }
  return kept;
}

/**
 * File names of the samples that stay, one an item: half of them those that were drawn most often on the way, the rest spread
 * over all items, so that head and tail are both there.
 */
export function chosenSamples(lines: readonly LogLine[], most: number): Set<string> {
  const drawn = lines.filter((line) => line.kind === "sample");
  const counts = new Map<string, number>();
  for (const { path } of drawn) counts.set(basename(path), (counts.get(basename(path)) ?? 0) + 1);
  const items = new Map<string | undefined, string>();
  for (const { step, item, path } of drawn) if (step === 0 && !items.has(item)) items.set(item, basename(path));
  const all = [...items.values()];
  const least = Math.min(...all.map((name) => counts.get(name)!));
  const often = all.filter((name) => counts.get(name)! > least).slice(0, Math.ceil(most / 2));
  const others = all.filter((name) => !often.includes(name));
  const rest = Math.min(most - often.length, others.length);
  const spread = Array.from({ length: rest }, (_, i) => others[Math.floor((i * others.length) / rest)]!);
  return new Set([...often, ...spread]);
}

/** A PNG of the run as JPEG. */
function smaller(png: Uint8Array): Uint8Array {
  const { width, height, channels, data } = decode(png);
  const rgba = new Uint8Array(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++) rgba[4 * i + c] = data[channels * i + Math.min(c, channels - 1)]!;
  return jpeg.encode({ width, height, data: rgba }, JPEG_QUALITY).data;
}

function record(run: string, name: string, title: string, samples: number): void {
  // Where the run lay is nobody's business.
  const read = (path: string) => readFileSync(join(run, path), "utf8").replaceAll(dirname(resolve(run)), "runs");
  const json = (path: string) => JSON.parse(read(path)) as Record<string, unknown>;
  const folder = join(OUT, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const write = (path: string, content: string | Uint8Array) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  };
  const lines = parseLog(read("log.jsonl"));
  const names = chosenSamples(lines, samples);
  const log = thinLog(lines, (path) => names.has(basename(path)));
  write("log.jsonl", log.map((line) => `${JSON.stringify(line)}\n`).join(""));
  for (const line of log as LogLine[])
    if (line.kind === "sample") write(line.path, smaller(readFileSync(join(run, line.path.replace(/\.jpg$/, ".png")))));

  const { record: _, ...runRecord } = json("run.json");
  write("run.json", JSON.stringify(runRecord));
  for (const path of ["config.toml", "config.resolved.toml"]) write(path, read(path));
  const { longtail, runtime, dawn, system, processor, adapter } = json("env.json");
  write("env.json", JSON.stringify({ longtail, runtime, dawn, system, processor, adapter }));
  const report = json("report.json");
  const parts = [...REPORT_PARTS, ...MORE_PARTS].filter((key) => key in report).map((key) => [key, report[key]]);
  const plain = JSON.stringify(Object.fromEntries(parts), (_key, value) =>
    typeof value === "string" && value.startsWith("data:") ? undefined : rounded(value),
  );
  write("report.json", plain);

  const { description, name: device, software } = adapter as { description: string; name: string; software: boolean };
  const entry: Recording = {
    name,
    title,
    command: String(runRecord.command),
    device: description || device,
    software,
    started: String(runRecord.started),
    seconds: Math.round(lines.at(-1)!.t - lines[0]!.t),
    updates: Number(runRecord.step),
  };
  const index = join(OUT, "index.json");
  const others = existsSync(index) ? (JSON.parse(readFileSync(index, "utf8")) as Recording[]) : [];
  const all = [...others.filter((one) => one.name !== name), entry].sort((a, b) => a.command.localeCompare(b.command));
  writeFileSync(index, `${JSON.stringify(all.reverse(), null, 2)}\n`);
  console.log(`${name}: ${log.length} of ${lines.length} lines, ${Math.round(sizeOf(folder) / 1024)} KiB`);
  console.log(`all recordings: ${Math.round(sizeOf(OUT) / 1024)} KiB`);
}

function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => statSync(join(folder, path)))
    .reduce((sum, facts) => sum + (facts.isFile() ? facts.size : 0), 0);
}

if ((import.meta as { main?: boolean }).main) {
  const words = process.argv.slice(2).filter((word) => !word.startsWith("--"));
  const samples = Number(process.argv.find((word) => word.startsWith("--samples="))?.slice(10) ?? 6);
  if (words.length !== 3) {
    console.error('usage: scripts/record_run.ts RUN_FOLDER NAME "TITLE" [--samples=6]');
    process.exit(2);
  }
  record(words[0]!, words[1]!, words[2]!, samples);
}
