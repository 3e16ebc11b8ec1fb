// Several runs in one chart: any measurement, aligned by update or by time, with every run's value where the cursor is. The
// cursor can be moved with the keyboard too, by the slider below the chart.

import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { compact, duration, grouped } from "../../evaluation/format.ts";
import { Card, Check, Field, Slider } from "../components/basic.tsx";
import { metricName } from "./metrics.ts";
import { type Alignment, lastAtMost, overlay, sharedMetrics, valuesAt } from "./overlay.ts";
import { clockText, LOOKS, type OverlayPlot, openOverlay } from "./overlay_plot.ts";
import { type ShownRun, shown } from "./shown_runs.ts";

const HEIGHT = 300;

/** The line of a run as it is drawn in the chart. */
export function Swatch({ slot }: { slot: number }) {
  const { colour, dash } = LOOKS[slot]!;
  return (
    <svg class="swatch" viewBox="0 0 30 4" aria-hidden="true">
      <line
        x1="0"
        y1="2"
        x2="30"
        y2="2"
        stroke={`var(--series-${colour})`}
        stroke-width="2.5"
        stroke-dasharray={dash.join(" ")}
      />
    </svg>
  );
}

export function CompareCard() {
  const runs = shown.value;
  const alignment = useSignal<Alignment>("update");
  const log = useSignal(false);
  const chosen = useSignal<string | null>(null);
  const metrics = sharedMetrics(runs.map(({ run }) => run.view.series));
  const metric = chosen.value && metrics.includes(chosen.value) ? chosen.value : (metrics[0] ?? null);
  // Reading them draws the card again whenever one of the runs has grown.
  const version = runs.map(({ run }) => run.version.value).join(" ");
  return (
    <Card title="Compare" aside={`${runs.length} runs`}>
      <div class="compare-controls">
        <Field label="Measurement">
          {(attributes) => (
            <select
              {...attributes}
              class="input"
              value={metric ?? ""}
              onChange={(event) => {
                chosen.value = event.currentTarget.value;
              }}
            >
              {metrics.map((name) => (
                <option key={name} value={name}>
                  {metricName(name)}
                </option>
              ))}
            </select>
          )}
        </Field>
        <fieldset class="choice">
          <legend class="field-label">Aligned by</legend>
          {(["update", "time"] as const).map((one) => (
            <label key={one} class="check-field">
              <input
                type="radio"
                name="alignment"
                checked={alignment.value === one}
                onChange={() => {
                  alignment.value = one;
                }}
              />
              {one === "update" ? "Update" : "Time worked"}
            </label>
          ))}
        </fieldset>
        <Check
          label="Log scale"
          checked={log.value}
          onChange={(on) => {
            log.value = on;
          }}
        />
      </div>
      {metric === null ? (
        <p class="quiet">Nothing measured yet.</p>
      ) : (
        <OverlayChart {...{ runs, metric, version }} alignment={alignment.value} log={log.value} />
      )}
    </Card>
  );
}

interface OverlayChartProps {
  runs: readonly ShownRun[];
  metric: string;
  alignment: Alignment;
  log: boolean;
  version: string;
}

function OverlayChart({ runs, metric, alignment, log, version }: OverlayChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<OverlayPlot | null>(null);
  const at = useSignal<number | null>(null);
  const curves = runs.map(({ run }) => ({
    series: run.view.series.get(metric) ?? { steps: [], values: [] },
    times: run.clock.times,
  }));
  const shape = JSON.stringify([runs.map(({ id, slot }) => [id, slot]), alignment, log, metric]);
  const latest = useRef(curves);
  latest.current = curves;
  // Before anything can be pressed on what is drawn: later, it would put away a position that was chosen meanwhile.
  useLayoutEffect(() => {
    plot.current = openOverlay(place.current!, {
      slots: runs.map(({ slot }) => slot),
      names: runs.map(({ run }) => run.name),
      alignment,
      log,
      height: HEIGHT,
      onCursor: (x) => {
        at.value = x;
      },
    });
    plot.current.draw(overlay(latest.current, alignment));
    return () => {
      plot.current?.close();
      plot.current = null;
      at.value = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.draw(overlay(latest.current, alignment)), [version]);

  const end = Math.max(0, ...curves.map((curve) => endOf(curve, alignment)));
  const position = useComputed(() => at.value);
  const where = position.value;
  const values = where === null ? curves.map(({ series }) => series.values.at(-1)) : valuesAt(curves, alignment, where);
  const whereText = where === null ? "newest" : alignment === "update" ? `update ${where}` : clockText(where);
  return (
    <figure class="chart" aria-label={`${metricName(metric)} of ${runs.length} runs`}>
      <div class="chart-plot" style={{ height: `${HEIGHT}px` }} aria-hidden="true">
        <div ref={place} />
      </div>
      <div class="compare-cursor">
        <Slider
          label="Read the values at"
          text={whereText}
          min={0}
          max={Math.max(1, Math.ceil(end))}
          value={where ?? Math.ceil(end)}
          onValue={(x) => {
            at.value = x;
            // The dots stand on what was measured last, as the values do.
            const { x: measured } = overlay(latest.current, alignment);
            plot.current?.point(measured[lastAtMost(measured, x)] ?? x);
          }}
        />
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable with the keyboard */}
      <section class="table-scroll" aria-label="Values of the runs" tabIndex={0}>
        <table class="table">
          <thead>
            <tr>
              <th>Run</th>
              <th class="number">{whereText === "newest" ? "Newest value" : `At ${whereText}`}</th>
              <th class="number">Updates</th>
              <th class="number">Worked</th>
            </tr>
          </thead>
          <tbody>
            {runs.map(({ id, slot, run }, i) => (
              <tr key={id}>
                <td>
                  <span class="compare-name">
                    <Swatch slot={slot} />
                    {run.name}
                  </span>
                </td>
                <td class="number">{compact(values[i], 4)}</td>
                <td class="number">{grouped(run.view.step)}</td>
                <td class="number">{duration(run.clock.seconds)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {alignment === "time" && (
        <figcaption class="field-hint">
          Time since each run began; breaks of more than ten minutes, as between a stop and a resume, are left out.
        </figcaption>
      )}
    </figure>
  );
}

function endOf(
  { series, times }: { series: { steps: number[] }; times: { seconds: number[] } },
  alignment: Alignment,
): number {
  return (alignment === "update" ? series.steps.at(-1) : times.seconds.at(-1)) ?? 0;
}
