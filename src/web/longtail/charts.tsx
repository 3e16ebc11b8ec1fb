// The curves of an alignment. Reward and judge have an axis each: they are cosines of two models, and only their directions
// can be compared. The dashed line is the edge of the judge's band; an upright line marks an alarm.

import type { GuardState } from "../../evaluation/guards.ts";
import { Chart, type Curve } from "../components/chart.tsx";
import type { RunView, Series } from "../run_view.ts";
import { EVAL_REWARD, guardName } from "./align_view.ts";

const HEIGHT = 230;

/** Changes when the series have grown. */
const versionOf = (...series: (Series | undefined)[]) =>
  series.map((one) => `${one?.steps.length ?? 0}:${one?.steps.at(-1) ?? 0}`).join();

export function RewardChart({ view, alarms, guards }: { view: RunView; alarms: number[]; guards: GuardState }) {
  const reward = view.series.get(EVAL_REWARD);
  const judge = view.series.get(guardName("judge"));
  const low = guards.bands.judge?.low;
  const ends = [0, Math.max(view.steps, judge?.steps.at(-1) ?? 0)];
  const edge = low === undefined ? undefined : { steps: ends, values: [low, low] };
  const curves: Curve[] = [
    { label: "reward, optimised", data: reward, colour: 2, look: "thick" },
    { label: "judge, held out", data: judge, colour: 1, look: "thick", right: true },
    { label: "edge of the judge’s band", data: edge, colour: 1, look: "dashed", right: true },
  ];
  return (
    <Chart
      label="Reward and held-out judge by update"
      curves={curves}
      version={versionOf(reward, judge, edge)}
      marks={{ label: "alarm", steps: alarms }}
      height={HEIGHT}
      xMax={view.steps}
      leftLabel="reward"
      rightLabel="judge"
      empty="Measured before the first update and every few after it"
    />
  );
}

export function PartsChart({ view }: { view: RunView }) {
  const positive = view.series.get("positive");
  const negative = view.series.get("negative");
  return (
    <Chart
      label="Positive and negative part of the reward by update"
      curves={[
        { label: "positive text, s+", data: positive, colour: 3 },
        { label: "negative text, s−", data: negative, colour: 5, look: "dashed" },
      ]}
      version={versionOf(positive, negative)}
      height={HEIGHT}
      xMax={view.steps}
      leftLabel="score"
      empty="From the first update on"
    />
  );
}
