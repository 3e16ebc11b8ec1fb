// The number of updates from the adapter's measured speed: the longest rung of the ladder whose training fits a budget, so
// that a laptop's CPU makes the shortest run and a GPU the longest. Chosen once, printed, and kept in the configuration.

/** Training longer than this is not what a first run should take. */
const BUDGET_SECONDS = 120;

export interface LadderChoice {
  steps: number;
  text: string;
  /** For config.resolved.toml. */
  origin: string;
}

export function chooseFromLadder(
  ladder: readonly number[],
  flopsPerSecond: number,
  flopsPerUpdate: number,
): LadderChoice {
  const seconds = (steps: number) => (steps * flopsPerUpdate) / flopsPerSecond;
  const fitting = ladder.filter((steps) => seconds(steps) <= BUDGET_SECONDS);
  const steps = fitting.at(-1) ?? ladder[0]!;
  const speed = `${(flopsPerSecond / 1e9).toFixed(1)} GFLOP/s`;
  return {
    steps,
    text: `${steps} updates of ${ladder.join(" / ")}: at ${speed} they take about ${Math.ceil(seconds(steps))} s`,
    origin: `the ladder, at ${speed}`,
  };
}
