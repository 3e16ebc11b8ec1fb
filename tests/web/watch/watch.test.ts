// The pure parts of watching: the player's clock, runs laid over each other, and a watched run's state.
import { describe, expect, it, vi } from "vitest";
import type { LogLine } from "../../../src/web/protocol.ts";
import { applyLine, emptyRunView } from "../../../src/web/run_view.ts";
import type { LogTaker, WatchSource } from "../../../src/web/sources/watch_source.ts";
import { KeptPictures } from "../../../src/web/watch/kept_pictures.ts";
import { metricGroups, smoothed } from "../../../src/web/watch/metrics.ts";
import {
  LONGEST_WORK,
  overlay,
  secondsAt,
  sharedMetrics,
  thinned,
  valuesAt,
  WorkClock,
} from "../../../src/web/watch/overlay.ts";
import { Player } from "../../../src/web/watch/player.ts";
import { WatchedRun } from "../../../src/web/watch/watched_run.ts";

const metric = (t: number, step: number, loss: number): LogLine => ({ t, step, kind: "metric", values: { loss } });
const sample = (t: number, step: number): LogLine => ({ t, step, kind: "sample", path: `samples/${step}.png` });

describe("the player", () => {
  const lines = [metric(100, 1, 5), metric(101, 2, 4), sample(101, 2), metric(110, 3, 3), sample(110, 3)];

  it("gives lines out by its own clock, at the speed that was chosen", () => {
    const player = new Player("a", lines);
    expect([player.duration, player.view.step]).toEqual([10, 1]);
    expect(player.tick(100)).toBe(false);
    player.speed = 1;
    player.play();
    player.tick(0.5);
    expect(player.view.step).toBe(1);
    player.tick(0.5);
    expect(player.view.step).toBe(2);
    player.speed = 10;
    player.tick(0.9);
    expect([player.view.step, player.position, player.playing]).toEqual([3, 10, false]);
  });

  it("goes back and forth, and from the end plays from the beginning", () => {
    const player = new Player("a", lines);
    player.seek(99);
    expect([player.position, player.view.series.get("loss")!.values]).toEqual([10, [5, 4, 3]]);
    player.seek(1);
    expect([player.view.series.get("loss")!.values, player.view.samples.size]).toEqual([[5, 4], 1]);
    player.seek(-5);
    expect(player.position).toBe(0);
    player.seek(10);
    player.play();
    expect([player.position, player.playing]).toEqual([0, true]);
    player.pause();
    expect(player.tick(1)).toBe(false);
  });

  it("marks where samples are, and bears an empty log and a clock that was set back", () => {
    expect(new Player("a", lines).sampleMarks()).toEqual([
      { step: 2, position: 1 },
      { step: 3, position: 10 },
    ]);
    const empty = new Player("a", []);
    empty.play();
    expect([empty.duration, empty.playing]).toEqual([0, false]);
    expect(new Player("a", [metric(10, 1, 1), metric(5, 2, 1)]).duration).toBe(5);
  });
});

describe("curves laid over each other", () => {
  const curve = (t: number[], steps: number[], values: number[]) => {
    const clock = new WorkClock();
    for (const [i, step] of steps.entries()) clock.add(t[i]!, step, true);
    return { series: { steps, values }, times: clock.times };
  };
  const fast = curve([0, 1, 2], [1, 2, 3], [5, 4, 3]);
  const slow = curve([50, 60, 70], [1, 2, 4], [6, 5, 2]);

  it("are aligned by update", () => {
    expect(overlay([fast, slow], "update")).toEqual({
      x: [1, 2, 3, 4],
      ys: [
        [5, 4, 3, undefined],
        [6, 5, undefined, 2],
      ],
    });
  });

  it("are aligned by the time that each has worked", () => {
    expect(overlay([fast, slow], "time")).toEqual({
      x: [0, 1, 2, 10, 20],
      ys: [
        [5, 4, 3, undefined, undefined],
        [6, undefined, undefined, 5, 2],
      ],
    });
  });

  it("say their values at a position: the last at or before it", () => {
    expect(valuesAt([fast, slow], "update", 3)).toEqual([3, 5]);
    expect(valuesAt([fast, slow], "update", 4)).toEqual([undefined, 2]);
    expect(valuesAt([fast, slow], "time", 1.5)).toEqual([4, 6]);
    expect(valuesAt([fast, slow], "time", 12)).toEqual([undefined, 5]);
    expect(valuesAt([fast, slow], "update", 0)).toEqual([undefined, undefined]);
    expect(valuesAt([curve([], [], [])], "time", 1)).toEqual([undefined]);
  });

  it("leave out breaks between a stop and a resume, and updates that were repeated", () => {
    const clock = new WorkClock();
    for (const [t, step] of [
      [0, 1],
      [1, 2],
      [2, 3],
      [2 + 2 * LONGEST_WORK, 2],
      [3 + 2 * LONGEST_WORK, 3],
    ] as const)
      clock.add(t, step, true);
    expect(clock.times).toEqual({ steps: [1, 2, 3], seconds: [0, 2, 3] });
    expect([secondsAt(clock.times, 2), secondsAt(clock.times, 0), secondsAt(clock.times, 9)]).toEqual([
      2,
      undefined,
      3,
    ]);
  });

  it("keep every peak when they are thinned", () => {
    const values = Array.from({ length: 100_000 }, (_, i) => Math.sin(i / 999));
    values[31_416] = 50;
    values[77_777] = -50;
    const kept = thinned(values, 1000);
    expect(kept.length).toBeLessThanOrEqual(1000);
    expect([kept[0], kept.at(-1)]).toEqual([0, 99_999]);
    expect(kept).toContain(31_416);
    expect(kept).toContain(77_777);
    expect(kept).toEqual([...kept].sort((a, b) => a - b));
    expect(thinned([1, 2, 3])).toEqual([0, 1, 2]);
  });

  it("have gaps where values are not finite", () => {
    expect(overlay([curve([0, 1], [1, 2], [Number.NaN, 1])], "update")).toEqual({ x: [1, 2], ys: [[null, 1]] });
  });

  it("are offered by what the runs share", () => {
    const series = { steps: [], values: [] };
    const runs = [new Map(Object.entries({ reward: series, loss: series })), new Map(Object.entries({ loss: series }))];
    expect(sharedMetrics(runs)).toEqual(["loss", "reward"]);
  });
});

describe("a smoothed curve", () => {
  it("is the mean of the latest values, whatever is not finite among them", () => {
    const values = Array.from({ length: 40 }, (_, i) => (i === 5 ? Number.NaN : i));
    const series = { steps: values.map((_, i) => i), values };
    const smooth = smoothed(series);
    expect(smooth.values[0]).toBe(0);
    expect(smooth.values[4]).toBe(2);
    expect(smooth.values[6]).toBeCloseTo((0 + 1 + 2 + 3 + 4 + 6) / 6, 12);
    expect(smooth.values[39]).toBeCloseTo(34.5, 12);
    expect(smoothed(series)).toBe(smooth);
  });

  it("stands beside reward and loss where the run logs no mean of its own, and foreign measurements are drawn too", () => {
    const view = emptyRunView("a");
    for (let i = 1; i <= 30; i++)
      applyLine(view, { t: i, step: i, kind: "metric", values: { reward: i, loss: i, loss_mean: i, new_measure: i } });
    const groups = metricGroups(view);
    expect(groups.map(({ title }) => title)).toEqual(["Reward", "Loss", "New measure"]);
    expect(groups[0]!.curves.map(({ label }) => label)).toEqual(["Reward", "Smoothed"]);
    expect(groups[1]!.curves.map(({ label }) => label)).toEqual(["Loss", "Loss, mean of 20"]);
  });
});

describe("pictures that are kept", () => {
  it("are read once, given back at the end, and asked for again where they were not there", async () => {
    const made: string[] = [];
    const revoked: string[] = [];
    vi.stubGlobal("URL", {
      createObjectURL: () => {
        made.push(`blob:${made.length}`);
        return made.at(-1);
      },
      revokeObjectURL: (url: string) => revoked.push(url),
    });
    let there = false;
    let reads = 0;
    const pictures = new KeptPictures({
      blob: async () => {
        reads++;
        return there ? new Blob(["x"]) : null;
      },
    });
    expect(await pictures.url("a.png")).toBeNull();
    there = true;
    const [first, second] = await Promise.all([pictures.url("a.png"), pictures.url("a.png")]);
    expect([first, second, await pictures.url("a.png"), reads]).toEqual(["blob:0", "blob:0", "blob:0", 2]);
    pictures.close();
    expect(revoked).toEqual(["blob:0"]);
    vi.unstubAllGlobals();
  });
});

describe("a watched run", () => {
  const watched = (files: Record<string, string> = {}) => {
    let taker: LogTaker | null = null;
    let stopped = 0;
    const source: WatchSource = {
      name: "a",
      origin: "folder",
      facts: { lines: 0, torn: 0, unknown: new Map() },
      text: async (path) => files[path] ?? null,
      blob: async (path) => (files[path] === undefined ? null : new Blob([files[path]])),
      has: async (path) => files[path] !== undefined,
      follow: () => () => {},
      watch: (given) => {
        taker = given;
        return () => stopped++;
      },
    };
    const run = new WatchedRun(source);
    run.start();
    return { run, taker: taker as unknown as LogTaker, stops: () => stopped };
  };

  it("shows what comes, says how it hears, and draws at most a few times a second", () => {
    vi.useFakeTimers();
    const { run, taker, stops } = watched();
    expect(run.hearing.value).toBe("reading");
    for (let i = 1; i <= 1000; i++) taker.lines([metric(i, i, 1 / i)]);
    taker.caughtUp!();
    vi.advanceTimersByTime(200);
    expect([run.version.value, run.hearing.value, run.view.step]).toEqual([1, "live", 1000]);
    taker.connection!("lost");
    expect(run.hearing.value).toBe("lost");
    taker.connection!("live");
    expect(run.hearing.value).toBe("live");
    taker.reset!();
    expect([run.view.step, run.clock.times.steps.length]).toEqual([0, 0]);
    taker.ended!();
    expect(run.hearing.value).toBe("ended");
    run.close();
    expect(stops()).toBe(1);
    vi.useRealTimers();
  });

  it("reads what stands beside the log, and bears a folder with nothing but a log", async () => {
    const { run } = watched({
      "run.json": '{"state":"finished","command":"train"}',
      "config.toml": 'preset = "lora"',
      "env.json": '{"adapter":{"name":"x","description":"A GPU"}}',
      "report.html": "",
    });
    await run.readFacts();
    expect(run.facts.value).toMatchObject({ config: 'preset = "lora"', device: "A GPU", hasReport: true });
    const bare = watched({ "run.json": "{", "env.json": "[]" }).run;
    await bare.readFacts();
    expect(bare.facts.value).toEqual({ record: null, config: null, device: null, hasReport: false });
  });
});
