// Names of measurements for people, and which of them a run's panel draws together. What is not known here is shown under
// its own name, so that a newer run loses nothing.

import type { Curve } from "../components/chart.tsx";
import type { RunView, Series } from "../run_view.ts";

const NAMES: Readonly<Record<string, string>> = {
  loss: "Loss",
  loss_mean: "Loss, mean of 20",
  reward_mean: "Reward, mean",
  val_loss: "Validation loss",
  grad_norm: "Gradient norm",
  update_ratio: "Size of an update",
  lr: "Learning rate",
  seconds: "Seconds an update",
  stall_seconds: "Seconds waited for data",
  host_seconds: "Seconds of the processor",
  reward: "Reward",
  positive: "Positive text",
  negative: "Negative text",
  m0: "Noise level of the rollout",
};

/** A measurement's name for people. */
export function metricName(name: string): string {
  const plain =
    NAMES[name] ??
    name
      .replace(/^guard_/, "Guard rail: ")
      .replace(/^eval_/, "Evaluated: ")
      .replace(/_/g, " ");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** A measurement of a few updates only: a line through it would say more than was measured. */
const sparse = (view: RunView, name: string) => view.series.get(name)!.steps.length < 4;

export interface MetricGroup {
  title: string;
  log: boolean;
  curves: Curve[];
}

/** Updates of a mean, at least; a long run's is a hundredth of it. */
const LEAST_MEAN = 10;
const smooth = new WeakMap<Series, { length: number; series: Series }>();

/** The mean of the latest values at each update, of as many as make a noisy curve readable. */
export function smoothed(series: Series): Series {
  const known = smooth.get(series);
  if (known?.length === series.values.length) return known.series;
  const span = Math.max(LEAST_MEAN, Math.round(series.values.length / 100));
  const values: number[] = [];
  let sum = 0;
  let count = 0;
  const given = series.values;
  for (let i = 0; i < given.length; i++) {
    const value = given[i]!;
    const old = i >= span ? given[i - span]! : Number.NaN;
    if (Number.isFinite(value)) {
      sum += value;
      count++;
    }
    if (Number.isFinite(old)) {
      sum -= old;
      count--;
    }
    values.push(count > 0 ? sum / count : Number.NaN);
  }
  const made = { steps: series.steps.slice(), values };
  smooth.set(series, { length: values.length, series: made });
  return made;
}

/** Charts of a run in order: what it is about first (loss, or reward), then how it moves, then whatever else it measured. */
export function metricGroups(view: RunView): MetricGroup[] {
  const has = (name: string) => view.series.has(name);
  const curve = (name: string, colour: number, look: Curve["look"] = "line"): Curve[] =>
    has(name) ? [{ label: metricName(name), data: view.series.get(name), colour, look }] : [];
  /** A noisy curve thin, and its mean thick: the run's own where it logs one. */
  const noisy = (name: string, mean: string): Curve[] => {
    const series = view.series.get(name);
    if (!series) return curve(mean, 1, "thick");
    const own = has(mean) ? curve(mean, 1, "thick") : [];
    const made: Curve[] = [{ label: "Smoothed", data: smoothed(series), colour: 1, look: "thick" }];
    return [...curve(name, 6, "thin"), ...(own.length > 0 ? own : series.values.length > LEAST_MEAN ? made : [])];
  };
  const groups: MetricGroup[] = [
    { title: "Reward", log: false, curves: noisy("reward", "reward_mean") },
    {
      title: "Reward of the two texts",
      log: false,
      curves: [...curve("positive", 3), ...curve("negative", 2, "dashed")],
    },
    {
      title: "Loss",
      log: false,
      curves: [...noisy("loss", "loss_mean"), ...curve("val_loss", 2, "dots")],
    },
    { title: "Gradient norm", log: true, curves: curve("grad_norm", 5) },
    { title: "Size of an update", log: true, curves: curve("update_ratio", 3) },
    { title: "Learning rate", log: false, curves: curve("lr", 4) },
    { title: "Seconds an update", log: false, curves: curve("seconds", 8) },
  ];
  const drawn = new Set([...Object.keys(NAMES)]);
  for (const name of view.series.keys())
    if (!drawn.has(name))
      groups.push({
        title: metricName(name),
        log: false,
        curves: curve(name, 1, sparse(view, name) ? "dots" : "line"),
      });
  return groups.filter(({ curves }) => curves.length > 0);
}
