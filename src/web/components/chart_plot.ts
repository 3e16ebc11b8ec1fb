// uPlot behind the chart component, in a chunk of its own: made once for a set of curves, drawn again with every batch of data,
// resized with its place, and coloured by the theme at each drawing.

import uPlot from "uplot";
import { keepUp } from "./plot_upkeep.ts";
import "uplot/dist/uPlot.min.css";
import { compact } from "../../evaluation/format.ts";
import type { Curve } from "./chart.tsx";

export interface Plot {
  /** `[x, ...values]`; `xMax` widens the axis, `marks` are upright lines. */
  draw(data: (number | null)[][], xMax?: number, marks?: readonly number[]): void;
  close(): void;
}

interface PlotOptions {
  curves: readonly Pick<Curve, "label" | "colour" | "look" | "right">[];
  log: boolean;
  height: number;
  leftLabel?: string;
  rightLabel?: string;
  /** The update under the cursor, null where there is none. */
  onCursor: (step: number | null) => void;
}

const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const WIDTHS = { line: 1.75, thin: 1, thick: 2.75, dashed: 1.5, dots: 0 } as const;

function seriesOf({ label, colour, look = "line", right }: PlotOptions["curves"][number]): uPlot.Series {
  const stroke = () => css(`--series-${colour}`);
  const dots = look === "dots";
  return {
    label,
    scale: right ? "right" : "y",
    stroke,
    width: WIDTHS[look],
    alpha: look === "thin" ? 0.5 : 1,
    spanGaps: true,
    ...(look === "dashed" ? { dash: [6, 4] } : {}),
    ...(dots ? { paths: () => null } : {}),
    points: { show: dots, size: 8, width: 0, fill: stroke },
  };
}

export function openPlot(place: HTMLElement, options: PlotOptions): Plot {
  const { curves, log, height, onCursor } = options;
  const axisText = () => css("--ink-3");
  const grid = { stroke: () => css("--grid-line"), width: 1 };
  const font = `11px ${css("--font") || "sans-serif"}`;
  const ticks = { show: false };
  const write = (_: uPlot, values: number[]) => values.map((v) => (v === null ? "" : compact(v, 3)));
  const axis = (label: string | undefined): uPlot.Axis => ({
    stroke: axisText,
    grid,
    ticks,
    font,
    values: write,
    size: 52,
    gap: 6,
    ...(label ? { label, labelFont: font, labelSize: 16, labelGap: 0 } : {}),
  });
  const right = curves.some((curve) => curve.right);
  let xMax: number | undefined;
  let marks: readonly number[] = [];
  const drawMarks = (self: uPlot) => {
    const { ctx, bbox } = self;
    ctx.save();
    ctx.strokeStyle = css("--bad");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const step of marks) {
      const x = Math.round(self.valToPos(step, "x", true));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
  let under: number | null = null;
  const plot = new uPlot(
    {
      width: Math.max(80, place.clientWidth),
      height,
      legend: { show: false },
      padding: [8, right ? 0 : 12, 0, 0],
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
      scales: {
        x: { time: false, range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(xMax ?? 1, high ?? 1, 1)] },
        // A logarithm of nothing is nothing: without data the axis stays linear.
        y: log ? { distr: 3 } : {},
        ...(right ? { right: {} } : {}),
      },
      axes: [
        {
          ...axis(undefined),
          values: (_, values) => values.map((v) => (Number.isInteger(v) ? compact(v) : "")),
          size: 26,
        },
        { ...axis(options.leftLabel), scale: "y", space: height < 140 ? 18 : 32 },
        ...(right ? [{ ...axis(options.rightLabel), scale: "right", side: 1 as const, grid: { show: false } }] : []),
      ],
      series: [{}, ...curves.map(seriesOf)],
      hooks: {
        draw: [drawMarks],
        setCursor: [
          (self) => {
            const index = self.cursor.idx;
            const step = index === null || index === undefined ? null : (self.data[0][index] ?? null);
            if (step !== under) onCursor(step);
            under = step;
          },
        ],
      },
    },
    [[], ...curves.map(() => [])] as unknown as uPlot.AlignedData,
    place,
  );
  const close = keepUp(plot, place, height);
  return {
    draw(data, widest, marked = []) {
      xMax = widest;
      marks = marked;
      plot.setData(data as uPlot.AlignedData);
    },
    close,
  };
}
