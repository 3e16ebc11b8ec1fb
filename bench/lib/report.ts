// What all benchmarks share: the adapter they run on, medians, tables, and the one machine-readable line at the end.
// Times are only ever compared within one run, because the machine may be busy with other things in another one.

import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { waitPatiently } from "./patience.ts";

/** One measured thing against the best that it is compared with; `ratio` is above 1 where ours is better, or as `about` says. */
export interface Row {
  name: string;
  ours: number;
  best_peer: number | null;
  ratio: number | null;
}

export interface Arguments {
  json: boolean;
  /** Value of `--name=value`, or the fallback. */
  option(name: string, fallback: string): string;
}

export function readArguments(): Arguments {
  const option = (name: string, fallback: string): string => {
    const found = Deno.args.find((a) => a.startsWith(`--${name}=`));
    return found ? found.slice(name.length + 3) : fallback;
  };
  return { json: Deno.args.includes("--json"), option };
}

/** Opens the adapter that `--gpu=dawn` (default) or `--gpu=deno` names. */
export async function openBenchGpu(args: Arguments): Promise<Gpu> {
  waitPatiently();
  const backend = args.option("gpu", "dawn") === "deno" ? "deno" : "dawn";
  return openDevice(await openGpu({ backend }));
}

export function describe(gpu: Gpu): string {
  const { facts } = gpu;
  return `${facts.name}${facts.description && facts.description !== facts.name ? ` (${facts.description})` : ""}${facts.software ? ", software" : ""}`;
}

/** First lines of every benchmark's output. */
export function printHeader(title: string, adapter: string): void {
  console.log(
    `${title}\nadapter: ${adapter}; ${navigator.hardwareConcurrency} CPU threads, Deno ${Deno.version.deno}\n`,
  );
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length);
}

/** Prints aligned columns; the first to the left, all others to the right. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = header.map((h, i) => Math.max(h.length, ...rows.map((r) => (r[i] ?? "").length)));
  for (const row of [header, ...rows]) {
    console.log(
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join("  ")
        .trimEnd(),
    );
  }
}

export function fixed(value: number | null | undefined, digits = 2): string {
  return value === null || value === undefined || !Number.isFinite(value) ? "-" : value.toFixed(digits);
}

/** With `--json`, the last line of the output. */
export function printRows(args: Arguments, rows: readonly Row[]): void {
  if (args.json) console.log(JSON.stringify({ rows }));
}
