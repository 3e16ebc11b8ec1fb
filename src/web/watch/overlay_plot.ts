// uPlot for runs laid over each other: one curve a run, told apart by colour and by dash, over updates or over time.

import uPlot from "uplot";
import { keepUp } from "../components/plot_upkeep.ts";
import "uplot/dist/uPlot.min.css";
import { compact } from "../../evaluation/format.ts";
import type { Alignment, OverlayData } from "./overlay.ts";

/** Looks by slot: a colour of the theme and the lengths of strokes and gaps in pixels. */
export const LOOKS: readonly { colour: number; dash: readonly number[] }[] = [
  { colour: 1, dash: [] },
  { colour: 2, dash: [7, 4] },
  { colour: 3, dash: [2, 3] },
  { colour: 5, dash: [10, 3, 2, 3] },
  { colour: 4, dash: [14, 4] },
  { colour: 7, dash: [4, 2, 2, 2] },
];

export interface OverlayPlot {
  draw(data: OverlayData): void;
  /** Moves the cursor line to a position, or away. */
  point(x: number | null): void;
  close(): void;
}

interface OverlayOptions {
  /** Slots of the runs, in the order of the curves. */
  slots: readonly number[];
  names: readonly string[];
  alignment: Alignment;
  log: boolean;
  height: number;
  onCursor: (x: number | null) => void;
}

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Seconds as an axis writes them: 40 s, 2:30, 1:05:00. */
export function clockText(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function openOverlay(place: HTMLElement, options: OverlayOptions): OverlayPlot {
  const { slots, names, alignment, log, height, onCursor } = options;
  const font = `11px ${css("--font") || "sans-serif"}`;
  const look = { stroke: () => css("--ink-3"), grid: { stroke: () => css("--grid-line"), width: 1 }, font };
  const xText = (value: number) =>
    alignment === "time" ? clockText(value) : Number.isInteger(value) ? compact(value) : "";
  const curves = slots.map((slot, i): uPlot.Series => {
    const { colour, dash } = LOOKS[slot]!;
    return {
      label: names[i]!,
      stroke: () => css(`--series-${colour}`),
      width: 1.75,
      points: { show: false },
      ...(dash.length > 0 ? { dash: [...dash] } : {}),
    };
  });
  const plot = new uPlot(
    {
      width: Math.max(80, place.clientWidth),
      height,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [
        { ...look, ticks: { show: false }, size: 26, values: (_, values) => values.map(xText) },
        {
          ...look,
          ticks: { show: false },
          size: 52,
          gap: 6,
          values: (_, values) => values.map((v) => (v === null ? "" : compact(v))),
        },
      ],
      series: [{}, ...curves],
      hooks: {
        setCursor: [
          (self) => {
            const { idx } = self.cursor;
            onCursor(idx === null || idx === undefined ? null : (self.data[0][idx] ?? null));
          },
        ],
      },
    },
    [[], ...slots.map(() => [])] as unknown as uPlot.AlignedData,
    place,
  );
  const close = keepUp(plot, place, height);
  return {
    draw: ({ x, ys }) => plot.setData([x, ...ys] as uPlot.AlignedData),
    point(x) {
      if (x === null) plot.setCursor({ left: -10, top: -10 }, false);
      else plot.setCursor({ left: plot.valToPos(x, "x"), top: height / 2 }, false);
    },
    close,
  };
}
