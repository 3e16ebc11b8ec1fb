// How numbers are written in the report and the model card: the way tables of this field print them (no zero before
// the point for scores between -1 and 1, a real minus sign, intervals in brackets), and text made safe for HTML.

import type { Change } from "./statistics.ts";

const MINUS = "\u2212";

/** Text with the five characters that HTML gives a meaning replaced. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** A score with `digits` decimals and no zero before the point: .487, −.021, 1.000; a dash where it is not finite. */
export function score(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(digits).replace(/^0\./, ".");
  const zero = Number(Math.abs(value).toFixed(digits)) === 0;
  return value < 0 && !zero ? MINUS + text : text;
}

/** A score with its sign: +.054, −.004; a value that rounds to nothing has none. */
export function signed(value: number | null | undefined, digits = 3): string {
  const text = score(value, digits);
  return value !== null && value !== undefined && Number(value.toFixed(digits)) > 0 ? `+${text}` : text;
}

/** «[.027, .080]», or an empty text where there is no interval. */
export function interval(low: number | null | undefined, high: number | null | undefined, digits = 3): string {
  if (low === null || low === undefined || high === null || high === undefined) return "";
  return `[${score(low, digits)}, ${score(high, digits)}]`;
}

/** «+.054 [.027, .080]». */
export function changeText(change: Pick<Change, "change" | "low" | "high">, digits = 3): string {
  return `${signed(change.change, digits)} ${interval(change.low, change.high, digits)}`.trim();
}

/** A number of any size with about `digits` significant digits: 0.00042, 3.1e−7, 1,250. */
export function compact(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return grouped(Math.round(value));
  const text =
    size < 1e-4 ? value.toExponential(digits - 1).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, MINUS);
}

/** A whole number with thousands separated: 8,153,344. */
export function grouped(value: number): string {
  const text = String(Math.abs(Math.round(value))).replace(/\B(?=(\d{3})+$)/g, ",");
  return value < 0 ? MINUS + text : text;
}

/** Bytes in the binary unit that fits: 512 B, 15.6 MiB. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0)} ${units[unit]}`;
}

/**
 * How an adapter is called for people. Dawn gives some names as slugs or bare device numbers
 * («llvmpipe-llvm-21-1-8-256-bits-», «0x2330»): the driver's text is better there.
 */
export function adapterLabel(device: { name: string; driver?: string | undefined }): string {
  const slug = /^(0x[0-9a-f]+|\d*|[a-z0-9]+(-[a-z0-9]*)+)$/.test(device.name);
  return slug && device.driver ? device.driver : device.name;
}

/** A duration: 0.4 s, 42 s, 3 min 5 s, 1 h 12 min. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** «1 item», «32 items». */
export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${grouped(count)} ${count === 1 ? noun : plural}`;
}

/** The text with its first letter as a capital. */
export function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
