// The alignment's panel as data: guard rails out of the stream, strips by item, their order, and the report's last word.

import { describe, expect, it } from "vitest";
import type { ReportData } from "../../../src/evaluation/report_data.ts";
import {
  alarmSteps,
  guardPoints,
  guardStateOf,
  guardTiles,
  parseReport,
  secondsPerUpdate,
  sortedStrips,
  stripChange,
  stripsOf,
} from "../../../src/web/longtail/align_view.ts";
import type { LogLine } from "../../../src/web/protocol.ts";
import { applyLine, emptyRunView, type RunView } from "../../../src/web/run_view.ts";

const line = (step: number, rest: object) => ({ t: 1000 + step, step, ...rest }) as LogLine;

function viewOf(lines: LogLine[]): RunView {
  const view = emptyRunView("test");
  for (const one of lines) applyLine(view, one);
  return view;
}

const measured = (step: number, reward: number, judge: number, saturation: number) =>
  line(step, {
    kind: "metric",
    values: { eval_reward: reward, guard_judge: judge, guard_saturation: saturation, guard_grid8: 0.004 },
  });

const sample = (step: number, item: string, file: string, judge?: number) =>
  line(step, {
    kind: "sample",
    path: `samples/step-${step}/${file}`,
    item,
    seed: 1,
    ...(judge === undefined ? {} : { judge }),
  });

describe("guard rails", () => {
  it("are read out of the stream, measurement by measurement", () => {
    const points = guardPoints(viewOf([measured(0, 0.4, 0.5, 0.15), measured(10, 0.42, 0.52, 0.16)]));
    expect(points).toHaveLength(2);
    expect(points[1]).toEqual({ step: 10, reward: 0.42, signals: { judge: 0.52, saturation: 0.16, grid8: 0.004 } });
  });

  it("raise the alarm that the run's own monitor raises: two outside, three times in a row, while the reward rises", () => {
    const lines = [0, 10, 20, 30].map((step) =>
      measured(step, 0.4 + step / 100, step === 0 ? 0.5 : 0.4, step === 0 ? 0.15 : 0.3),
    );
    expect(guardStateOf(viewOf(lines.slice(0, 3)), null).level).toBe("watching");
    const state = guardStateOf(viewOf(lines), null);
    expect(state.level).toBe("alarm");
    expect(state.alarm).toMatchObject({ step: 30, since: 10, outside: ["judge", "saturation"] });
  });

  it("show a tile for each signal with its band, and which one is outside now", () => {
    const view = viewOf([measured(0, 0.4, 0.5, 0.15), measured(10, 0.42, 0.4, 0.16)]);
    const tiles = guardTiles(view, guardStateOf(view, null));
    expect(tiles.map(({ signal, outside }) => [signal, outside])).toEqual([
      ["judge", true],
      ["saturation", false],
      ["grid8", false],
    ]);
    expect(tiles[0]!.band.low).toBeCloseTo(0.475);
  });

  it("are those of the report where there is one", () => {
    const view = viewOf([measured(0, 0.4, 0.5, 0.15)]);
    const guards = { ...guardStateOf(view, null), level: "alarm" as const };
    expect(guardStateOf(view, { guards } as ReportData).level).toBe("alarm");
  });

  it("mark where the run was warned", () => {
    const view = viewOf([line(30, { kind: "warning", code: "E-NUM-010", text: "guard rails" })]);
    expect(alarmSteps(view)).toEqual([30]);
  });
});

describe("strips", () => {
  const lines = [
    sample(0, "moai", "00.png", 0.4),
    sample(0, "moai", "01.png", 0.5),
    sample(0, "diya lamp", "02.png", 0.3),
    sample(0, "cat", "03.png", 0.7),
    sample(10, "moai", "01.png", 0.6),
    sample(10, "moai", "00.png", 0.5),
    sample(20, "diya lamp", "02.png", 0.2),
  ];

  it("put pictures from the same noise side by side and take the newest of each item", () => {
    const strips = stripsOf(viewOf(lines), null);
    expect(strips.map(({ item, step }) => [item, step])).toEqual([
      ["moai", 10],
      ["diya lamp", 20],
      ["cat", 0],
    ]);
    const [moai] = strips;
    expect(moai!.latest.map((s) => s.path)).toEqual(["samples/step-10/00.png", "samples/step-10/01.png"]);
    expect(stripChange(moai!)).toBeCloseTo(0.1);
    expect(stripChange(strips[2]!)).toBeNull();
  });

  it("can be sorted by gain, loss and name; what was not measured comes last", () => {
    const strips = stripsOf(viewOf(lines), null);
    const names = (order: Parameters<typeof sortedStrips>[1]) => sortedStrips(strips, order).map((s) => s.item);
    expect(names("run")).toEqual(["moai", "diya lamp", "cat"]);
    expect(names("gain")).toEqual(["moai", "diya lamp", "cat"]);
    expect(names("loss")).toEqual(["diya lamp", "moai", "cat"]);
    expect(names("name")).toEqual(["cat", "diya lamp", "moai"]);
  });

  it("take numbers and groups from the report where there is one", () => {
    const row = { item: "moai", category: "architecture", region: "Easter Island", group: "aligned" };
    const rows = [{ ...row, before: { judge: 0.41 }, after: { judge: 0.61 } }];
    const [moai] = stripsOf(viewOf(lines), { evaluation: { rows } } as unknown as ReportData);
    expect(moai).toMatchObject({ group: "aligned", region: "Easter Island", judgeBefore: 0.41, judgeLatest: 0.61 });
  });
});

describe("the rest", () => {
  it("takes the time of an update from the last ones", () => {
    const view = viewOf([1, 2, 3].map((step) => line(step, { kind: "metric", values: { loss: 1, seconds: step } })));
    expect(secondsPerUpdate(view)).toBeCloseTo(2);
    expect(secondsPerUpdate(emptyRunView("none"))).toBeNull();
  });

  it("reads a report of an alignment and nothing else", () => {
    expect(parseReport(null)).toBeNull();
    expect(parseReport("{")).toBeNull();
    expect(parseReport("{}")).toBeNull();
    expect(parseReport('{"evaluation":{"rows":[],"summary":{"groups":[]}}}')).not.toBeNull();
  });
});
