// Inline SVG charts for the report: line charts with bands, limits and intervals, and interval bars around zero. They
// need no script, take their colours from the page's variables (so that light, dark and print work), and tell series
// apart by line style and marker as well as by colour. Every chart carries a title and a sentence for those who cannot
// see it.

import { compact, escapeHtml, score, signed } from "./format.ts";

export type SeriesStyle = "main" | "second" | "third" | "quiet";

export interface Series {
  name: string;
  /** [x, y]; a point that is not finite (or not above 0 on a logarithmic axis) is left out. */
  points: readonly (readonly [number, number])[];
  style?: SeriesStyle;
  /** Draws each point, for sparse series. */
  dots?: boolean;
  /** Intervals [x, low, high] drawn as whiskers. */
  whiskers?: readonly (readonly [number, number, number])[];
  /** Draws the raw points thin and a running mean thick. */
  smooth?: boolean;
}

export interface LineChart {
  title: string;
  /** One sentence on what the chart is for. */
  note?: string;
  series: readonly Series[];
  logarithmic?: boolean;
  /** Shaded range of y; an absent end is open. */
  band?: { low?: number; high?: number; name: string };
  limit?: { value: number; name: string };
  /** Vertical marks. */
  mark?: { x: number | readonly number[]; name: string };
  xName?: string;
  /** For grids of narrow cells: text keeps its size there. */
  narrow?: boolean;
}

const HEIGHT = 210;
/** Width of the drawing, near to the width in px at which it is shown, so that 11 px of text stay about that. */
const WIDTHS = { normal: 360, narrow: 250 };
const PLOT = { left: 46, top: 10, bottom: 180, rightMargin: 12 };
/** A line of more points has several in each pixel, and the page grows for nothing. */
const MOST_POINTS = 800;

/** A chart with title, legend and note; an empty text where no series has a finite point. */
export function lineChart(chart: LineChart): string {
  const width = chart.narrow ? WIDTHS.narrow : WIDTHS.normal;
  const right = width - PLOT.rightMargin;
  const usable = (y: number) => Number.isFinite(y) && (!chart.logarithmic || y > 0);
  const series = chart.series
    .map((s) => ({ ...s, points: s.points.filter(([x, y]) => Number.isFinite(x) && usable(y)) }))
    .filter((s) => s.points.length > 0);
  if (series.length === 0) return "";

  const xs = series.flatMap((s) => s.points.map(([x]) => x));
  const ys = series.flatMap((s) => [
    ...s.points.map(([, y]) => y),
    ...(s.whiskers ?? []).flatMap(([, low, high]) => [low, high]),
  ]);
  const extra = [chart.band?.low, chart.band?.high, chart.limit?.value].filter((y): y is number => y !== undefined);
  // With a band there is more room, so that its edges stand clear of the frame.
  const margin = chart.band ? 0.16 : 0.06;
  const yScale = makeScale([...ys, ...extra].filter(usable), chart.logarithmic ?? false, PLOT.bottom, PLOT.top, margin);
  const [xLow, xHigh] = extent(xs);
  const xAt = (x: number) =>
    xHigh === xLow ? (PLOT.left + right) / 2 : PLOT.left + ((x - xLow) / (xHigh - xLow)) * (right - PLOT.left);

  const parts: string[] = [];
  if (chart.band) parts.push(bandOf(chart.band, yScale, right));
  for (const tick of yScale.ticks) {
    const y = place(yScale.at(tick));
    parts.push(`<line class="rule" x1="${PLOT.left}" x2="${right}" y1="${y}" y2="${y}"/>`);
    parts.push(
      `<text class="tick" x="${PLOT.left - 7}" y="${y}" dy=".32em" text-anchor="end">${tickText(tick)}</text>`,
    );
  }
  for (const tick of stepTicks(xLow, xHigh)) {
    const x = place(xAt(tick));
    parts.push(`<text class="tick" x="${x}" y="${PLOT.bottom + 15}" text-anchor="middle">${compact(tick)}</text>`);
  }
  const middle = (PLOT.left + right) / 2;
  parts.push(
    `<text class="tick" x="${middle}" y="${HEIGHT - 2}" text-anchor="middle">${escapeHtml(chart.xName ?? "update")}</text>`,
  );
  if (chart.limit && usable(chart.limit.value)) {
    const y = place(yScale.at(chart.limit.value));
    parts.push(`<line class="limit" x1="${PLOT.left}" x2="${right}" y1="${y}" y2="${y}"/>`);
  }
  for (const at of [chart.mark?.x ?? []].flat()) {
    if (at < xLow || at > xHigh) continue;
    const x = place(xAt(at));
    parts.push(`<line class="mark" x1="${x}" x2="${x}" y1="${PLOT.top}" y2="${PLOT.bottom}"/>`);
  }
  series.forEach((s, i) => {
    parts.push(seriesOf(s, styleOf(s, i), xAt, yScale.at));
  });

  const description = series
    .map((s) => {
      const [first, last] = [s.points[0]!, s.points[s.points.length - 1]!];
      return first === last
        ? `${s.name}: ${compact(first[1])} at ${compact(first[0])}`
        : `${s.name}: from ${compact(first[1])} to ${compact(last[1])}`;
    })
    .join("; ");
  const label = escapeHtml(`${chart.title}. ${description}.`);
  return (
    `<figure class="chart"><figcaption><b>${escapeHtml(chart.title)}</b>${legendOf(series, chart)}</figcaption>` +
    `<svg viewBox="0 0 ${width} ${HEIGHT}" role="img" aria-label="${label}">${parts.join("")}</svg>` +
    `${chart.note ? `<p class="note">${escapeHtml(chart.note)}</p>` : ""}</figure>`
  );
}

function seriesOf(s: Series, style: SeriesStyle, xAt: (x: number) => number, yAt: (y: number) => number): string {
  const path = (points: Series["points"]) =>
    thinned(points, MOST_POINTS)
      .map(([x, y], i) => `${i === 0 ? "M" : "L"}${place(xAt(x))} ${place(yAt(y))}`)
      .join("");
  let text = "";
  for (const [x, low, high] of s.whiskers ?? []) {
    if (!Number.isFinite(low) || !Number.isFinite(high)) continue;
    const at = place(xAt(x));
    text += `<path class="whisker ${style}" d="M${at} ${place(yAt(low))}V${place(yAt(high))}"/>`;
  }
  if (s.smooth && s.points.length >= 8) {
    text += `<path class="line raw ${style}" d="${path(s.points)}"/>`;
    text += `<path class="line ${style}" d="${path(runningMean(s.points))}"/>`;
  } else if (s.points.length > 1) {
    text += `<path class="line ${style}" d="${path(s.points)}"/>`;
  }
  if (s.dots || s.points.length === 1) {
    for (const [x, y] of s.points) text += marker(style, xAt(x), yAt(y));
  }
  return text;
}

function marker(style: SeriesStyle, x: number, y: number): string {
  if (style === "second")
    return `<rect class="dot second" x="${place(x - 3.2)}" y="${place(y - 3.2)}" width="6.4" height="6.4"/>`;
  if (style === "third") {
    return `<path class="dot third" d="M${place(x)} ${place(y - 4.6)}l4.6 8h-9.2z"/>`;
  }
  return `<circle class="dot ${style}" cx="${place(x)}" cy="${place(y)}" r="3.6"/>`;
}

/** Smallest and largest value; spread into Math.min, a long run's values would not fit the stack. */
function extent(values: readonly number[]): [number, number] {
  return values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
}

/** Points that a running mean averages: about a sixth of the series, an odd number, at least five. */
export function meanWindow(length: number): number {
  return 2 * Math.max(2, Math.round(length / 12)) + 1;
}

/**
 * Centred running mean. It starts and ends where a whole window fits: a shorter window would let the line end on a
 * single noisy update, which looks like a trend.
 */
export function runningMean(points: Series["points"]): [number, number][] {
  const window = meanWindow(points.length);
  const half = (window - 1) / 2;
  // Sums up to each point: the window grows with the series, and summing it anew for every point would be quadratic.
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1)! + y);
  return points
    .slice(half, points.length - half)
    .map(([x], i) => [x, (sums[i + window]! - sums[i]!) / window] as [number, number]);
}

/** The lowest and the highest point of each of `most / 2` stretches, so that no spike is lost; short series as they are. */
export function thinned(points: Series["points"], most: number): Series["points"] {
  if (points.length <= most) return points;
  const stretches = Math.floor(most / 2);
  const kept: (readonly [number, number])[] = [];
  for (let i = 0; i < stretches; i++) {
    const from = Math.floor((i * points.length) / stretches);
    const part = points.slice(from, Math.floor(((i + 1) * points.length) / stretches));
    const low = part.reduce((best, p) => (p[1] < best[1] ? p : best));
    const high = part.reduce((best, p) => (p[1] > best[1] ? p : best));
    if (low !== high) kept.push(...(low[0] < high[0] ? [low, high] : [high, low]));
    else kept.push(low);
  }
  return kept;
}

function legendOf(series: readonly Series[], chart: LineChart): string {
  const entries: string[] = [];
  if (series.length > 1) {
    series.forEach((s, i) => {
      entries.push(`<span class="key">${swatch(styleOf(s, i), s.dots ?? false)}${escapeHtml(s.name)}</span>`);
    });
  }
  if (chart.limit) entries.push(`<span class="key">${swatchLine("limit")}${escapeHtml(chart.limit.name)}</span>`);
  if (chart.band) entries.push(`<span class="key"><i class="patch"></i>${escapeHtml(chart.band.name)}</span>`);
  if (chart.mark) entries.push(`<span class="key">${swatchLine("mark")}${escapeHtml(chart.mark.name)}</span>`);
  return entries.length > 0 ? `<span class="legend">${entries.join("")}</span>` : "";
}

function swatch(style: SeriesStyle, dots: boolean): string {
  const dot = dots ? marker(style, 11, 6) : "";
  return `<svg class="swatch" viewBox="0 0 22 12" aria-hidden="true"><path class="line ${style}" d="M1 6H21"/>${dot}</svg>`;
}

function swatchLine(name: string): string {
  return `<svg class="swatch" viewBox="0 0 22 12" aria-hidden="true"><path class="${name}" d="M1 6H21"/></svg>`;
}

function styleOf(series: Series, index: number): SeriesStyle {
  return series.style ?? (["main", "second", "third", "quiet"] as const)[index % 4]!;
}

interface Scale {
  at(value: number): number;
  ticks: number[];
}

function bandOf(band: NonNullable<LineChart["band"]>, scale: Scale, right: number): string {
  const top = band.high === undefined ? PLOT.top : scale.at(band.high);
  const bottom = band.low === undefined ? PLOT.bottom : scale.at(band.low);
  const height = Math.max(0, bottom - top);
  const edge = (value: number | undefined) =>
    value === undefined ? "" : `<path class="edge" d="M${PLOT.left} ${place(scale.at(value))}H${right}"/>`;
  return (
    `<rect class="band" x="${PLOT.left}" y="${place(top)}" width="${right - PLOT.left}" height="${place(height)}"/>` +
    edge(band.low) +
    edge(band.high)
  );
}

function makeScale(values: readonly number[], logarithmic: boolean, from: number, to: number, share: number): Scale {
  const map = logarithmic ? Math.log10 : (v: number) => v;
  const unmap = logarithmic ? (v: number) => 10 ** v : (v: number) => v;
  const [least, most] = extent(values);
  let low = map(least);
  let high = map(most);
  // A flat series sits in the middle of a range that is small against its own size.
  const room =
    high - low < 1e-12 * Math.max(1, Math.abs(high)) ? Math.max(Math.abs(high) * 0.1, logarithmic ? 0.3 : 0.01) : 0;
  const margin = room + (high - low) * share;
  low -= margin;
  high += margin;
  const at = (value: number) => from + ((map(value) - low) / (high - low)) * (to - from);
  const ticks = logarithmic ? logTicks(low, high).map(unmap) : niceTicks(low, high, 5);
  return { at, ticks };
}

/** Round numbers inside [low, high], about `count` of them. */
export function niceTicks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low: number, high: number): number[] {
  const ticks: number[] = [];
  const factors = high - low > 3 ? [1] : high - low > 1.2 ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const factor of factors) {
      const value = power + Math.log10(factor);
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return ticks.length > 0 ? ticks : [(low + high) / 2];
}

function stepTicks(low: number, high: number): number[] {
  return low === high ? [low] : niceTicks(low, high, 5).filter(Number.isInteger);
}

function tickText(value: number): string {
  if (value !== 0 && Math.abs(value) < 9.99e-4) return Number(value.toPrecision(6)).toExponential().replace(/-/g, "−");
  return Math.abs(value) < 1
    ? score(value, 6)
        .replace(/(\.\d*?)0+$/, "$1")
        .replace(/\.$/, "") || "0"
    : compact(value);
}

function place(value: number): number {
  return Math.round(value * 100) / 100;
}

export interface IntervalRow {
  change: number;
  low: number | null;
  high: number | null;
}

/** The range of x that a set of interval bars shares, always with 0 in it. */
export function intervalRange(rows: readonly IntervalRow[]): [number, number] {
  const values = rows
    .flatMap((row) => [row.change, row.low ?? row.change, row.high ?? row.change])
    .filter(Number.isFinite);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const margin = Math.max((high - low) * 0.08, 0.005);
  return [low - margin, high + margin];
}

/** One interval bar around zero; a hollow point where there is no interval. */
export function intervalBar(row: IntervalRow, range: readonly [number, number], tall = false): string {
  if (!Number.isFinite(row.change)) return "";
  const [width, height] = tall ? [320, 26] : [140, 16];
  const at = (value: number) => place(((value - range[0]) / (range[1] - range[0])) * width);
  const middle = height / 2;
  const sure = row.low !== null && row.high !== null && (row.low > 0 || row.high < 0);
  const tone = sure ? (row.change > 0 ? "better" : "worse") : "unsure";
  const zero = `<line class="zero" x1="${at(0)}" x2="${at(0)}" y1="0" y2="${height}"/>`;
  const bar =
    row.low !== null && row.high !== null
      ? `<line class="bar ${tone}" x1="${at(row.low)}" x2="${at(row.high)}" y1="${middle}" y2="${middle}"/>`
      : "";
  const point = `<circle class="point ${tone}${bar ? "" : " hollow"}" cx="${at(row.change)}" cy="${middle}" r="${tall ? 6 : 4}"/>`;
  const label = escapeHtml(
    row.low === null ? signed(row.change) : `${signed(row.change)} from ${score(row.low)} to ${score(row.high)}`,
  );
  return `<svg class="interval${tall ? " tall" : ""}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${zero}${bar}${point}</svg>`;
}

/** Before and after on a scale from 0 to 1: a hollow and a full point with a line between them. */
export function dumbbell(before: number, after: number, low = 0, high = 1): string {
  if (!Number.isFinite(before) || !Number.isFinite(after)) return "";
  const at = (value: number) => place(6 + Math.min(1, Math.max(0, (value - low) / (high - low))) * 188);
  const tone = after >= before ? "better" : "worse";
  return (
    `<svg class="dumbbell" viewBox="0 0 200 14" aria-hidden="true"><line class="track" x1="6" x2="194" y1="7" y2="7"/>` +
    `<line class="bar ${tone}" x1="${at(before)}" x2="${at(after)}" y1="7" y2="7"/>` +
    `<circle class="point unsure hollow" cx="${at(before)}" cy="7" r="4"/><circle class="point ${tone}" cx="${at(after)}" cy="7" r="4.6"/></svg>`
  );
}
