// Curves over updates (uPlot): several series, thin, thick, dashed or as dots, an optional logarithmic left axis and a second
// axis on the right. Colours come from the theme; the legend shows the newest value, or the one under the cursor.

import { useEffect, useRef, useState } from "preact/hooks";
import { compact } from "../../evaluation/format.ts";
import type { Series } from "../run_view.ts";
import { Check } from "./basic.tsx";
import { alignSeries, thin } from "./chart_data.ts";

export interface Curve {
  label: string;
  /** Undefined where nothing was measured yet. */
  data: Series | undefined;
  /** 1 to 8, a colour of the theme. */
  colour: number;
  look?: "line" | "thin" | "thick" | "dashed" | "dots";
  /** Right axis. */
  right?: boolean;
}

export interface ChartProps {
  /** What is seen, for those who do not see it: `Loss by update`. */
  label: string;
  curves: readonly Curve[];
  /** Changes whenever the data behind the curves has grown. */
  version: number | string;
  height?: number;
  /** Offers a logarithmic left axis. */
  logToggle?: boolean;
  /** Begins logarithmic. */
  log?: boolean;
  legend?: boolean;
  /** Whole width in updates, so that a run fills the axis as it goes. */
  xMax?: number;
  leftLabel?: string;
  rightLabel?: string;
  empty?: string;
  /** Updates at which something happened, as upright lines. */
  marks?: { label: string; steps: readonly number[] };
}

/** Points beyond this are not seen on any screen. */
const MOST_POINTS = 2400;

/** Drawings a second; more is work for nothing. */
const DRAW_MS = 80;

const swatch = (look: Curve["look"]) => `chart-swatch ${look && look !== "line" ? `chart-swatch-${look}` : ""}`;

export function Chart(props: ChartProps) {
  const { label, curves, version, height = 220, logToggle, legend = true, empty = "Nothing measured yet" } = props;
  const [log, setLog] = useState(props.log ?? false);
  const [at, setAt] = useState<number | null>(null);
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<import("./chart_plot.ts").Plot | null>(null);
  const data = curves.map((curve) => (curve.data ? thin(curve.data, MOST_POINTS) : undefined));
  const shape = JSON.stringify([
    curves.map(({ label: l, colour, look, right }) => [l, colour, look, right]),
    log,
    height,
  ]);

  useEffect(() => {
    let gone = false;
    void import("./chart_plot.ts").then(({ openPlot }) => {
      if (gone || !place.current) return;
      plot.current = openPlot(place.current, {
        curves,
        log,
        height,
        onCursor: setAt,
        ...(props.leftLabel ? { leftLabel: props.leftLabel } : {}),
        ...(props.rightLabel ? { rightLabel: props.rightLabel } : {}),
      });
      plot.current.draw(alignSeries(data), props.xMax, props.marks?.steps);
    });
    return () => {
      gone = true;
      plot.current?.close();
      plot.current = null;
    };
  }, [shape]);

  const pending = useRef<ReturnType<typeof setTimeout> | null>(null);
  const { xMax } = props;
  const marks = props.marks?.steps ?? [];
  const newest = useRef({ data, xMax, marks });
  newest.current = { data, xMax, marks };
  useEffect(() => {
    pending.current ??= setTimeout(() => {
      pending.current = null;
      plot.current?.draw(alignSeries(newest.current.data), newest.current.xMax, newest.current.marks);
    }, DRAW_MS);
  }, [version, xMax, marks.join()]);
  useEffect(() => () => void (pending.current && clearTimeout(pending.current)), []);

  const shown = (curve: Curve) => valueAt(curve.data, at);
  const isEmpty = curves.every(({ data: own }) => !own || own.steps.length === 0);
  return (
    <figure class="chart" aria-label={`${label}. ${summary(curves)}${markText(props.marks)}`}>
      {(legend || logToggle) && (
        <figcaption class="chart-legend">
          {legend &&
            curves.map((curve) => (
              <span class="chart-key" key={curve.label}>
                <span class={swatch(curve.look)} style={swatchStyle(curve)} />
                {curve.label} <b>{shown(curve)}</b>
              </span>
            ))}
          {legend && props.marks && marks.length > 0 && (
            <span class="chart-key">
              <span class="chart-swatch-mark" />
              {props.marks.label}
            </span>
          )}
          {at !== null && <span class="quiet">at update {at}</span>}
          {logToggle && (
            <span class="grow row" style={{ justifyContent: "flex-end" }}>
              <Check label="Log scale" checked={log} onChange={setLog} />
            </span>
          )}
        </figcaption>
      )}
      <div class="chart-plot" style={{ height: `${height}px` }} aria-hidden="true">
        <div ref={place} style={{ visibility: isEmpty ? "hidden" : "visible" }} />
        {isEmpty && <div class="chart-empty">{empty}</div>}
      </div>
    </figure>
  );
}

const swatchStyle = ({ colour, look }: Curve) =>
  look === "dots" ? { background: `var(--series-${colour})` } : { borderTopColor: `var(--series-${colour})` };

function valueAt(data: Series | undefined, step: number | null): string {
  if (!data || data.steps.length === 0) return "–";
  if (step === null) return compact(data.values.at(-1)!);
  let found = 0;
  for (let i = 0; i < data.steps.length && data.steps[i]! <= step; i++) found = i;
  return compact(data.values[found]!);
}

const markText = (marks: ChartProps["marks"]) =>
  marks && marks.steps.length > 0 ? ` ${marks.label} at update ${marks.steps.join(", ")}.` : "";

/** The curves in words. */
function summary(curves: readonly Curve[]): string {
  const parts = curves.flatMap(({ label, data }) =>
    data && data.steps.length > 0
      ? [`${label} from ${compact(data.values[0]!)} to ${compact(data.values.at(-1)!)} at update ${data.steps.at(-1)}`]
      : [],
  );
  return parts.length > 0 ? `${parts.join("; ")}.` : "Nothing measured yet.";
}
