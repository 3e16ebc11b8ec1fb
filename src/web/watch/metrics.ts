// Names of measurements for people, and which of them a run's panel draws together. What is not known here is shown under
// its own name, so that a newer run loses nothing.

import type { Curve } from "../components/chart.tsx";
import type { RunView } from "../run_view.ts";

const NAMES: Readonly<Record<string, string>> = {
  loss: "Loss",
  loss_mean: "Loss, mean of 20",
  val_loss: "Validation loss",
  grad_norm: "Gradient norm",
  update_ratio: "Size of an update",
  lr: "Learning rate",
  seconds: "Seconds an update",
  stall_seconds: "Seconds waited for data",
  host_seconds: "Seconds of the processor",
  reward: "Reward",
  positive: "Reward of the positive text",
  negative: "Reward of the negative text",
  m0: "Noise level of the rollout",
};

/** A measurement's name for people. */
export const metricName = (name: string): string => NAMES[name] ?? name.replace(/_/g, " ");

export interface MetricGroup {
  title: string;
  log: boolean;
  curves: Curve[];
}

/** Charts of a run in order: what it is about first (loss, or reward), then how it moves, then whatever else it measured. */
export function metricGroups(view: RunView): MetricGroup[] {
  const has = (name: string) => view.series.has(name);
  const curve = (name: string, colour: number, look: Curve["look"] = "line"): Curve[] =>
    has(name) ? [{ label: metricName(name), data: view.series.get(name), colour, look }] : [];
  const groups: MetricGroup[] = [
    { title: "Reward", log: false, curves: [...curve("reward", 1, "thick")] },
    {
      title: "Reward of the two texts",
      log: false,
      curves: [...curve("positive", 3), ...curve("negative", 2, "dashed")],
    },
    {
      title: "Loss",
      log: false,
      curves: [
        ...curve("loss", has("loss_mean") ? 6 : 1, has("loss_mean") ? "thin" : "line"),
        ...curve("loss_mean", 1, "thick"),
        ...curve("val_loss", 2, "dots"),
      ],
    },
    { title: "Gradient norm", log: true, curves: curve("grad_norm", 5) },
    { title: "Size of an update", log: true, curves: curve("update_ratio", 3) },
    { title: "Learning rate", log: false, curves: curve("lr", 4) },
    { title: "Seconds an update", log: false, curves: curve("seconds", 8) },
  ];
  const drawn = new Set([...Object.keys(NAMES)]);
  for (const name of view.series.keys())
    if (!drawn.has(name)) groups.push({ title: metricName(name), log: false, curves: curve(name, 1) });
  return groups.filter(({ curves }) => curves.length > 0);
}
