// The terminal's reader of events: one line on a terminal, plain lines with a heartbeat elsewhere.
import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import { Progress } from "../../src/cli/progress.ts";
import { clock, PhaseProgress } from "../../src/cli/progress_state.ts";
import { renderTable } from "../../src/cli/table.ts";
import { cutTo, displayWidth, plainText, wantsColor } from "../../src/cli/terminal.ts";
import { ManualClock, RecordingTerminal } from "./recorder.ts";

const phase = (done: number, total = 40, name = "align", unit = "updates"): Extract<RunEvent, { kind: "phase" }> => ({
  kind: "phase",
  name,
  done,
  total,
  unit,
});

function start(interactive: boolean, options: { width?: number; quiet?: boolean } = {}) {
  const terminal = new RecordingTerminal(interactive, options.width ?? 80);
  const time = new ManualClock();
  const progress = new Progress(terminal, { now: time.now, every: time.every, quiet: options.quiet ?? false });
  return { terminal, time, progress };
}

describe("on a terminal", () => {
  it("redraws one line with bar, amount, ETA, rate and metrics, and leaves one line when the phase ends", () => {
    const { terminal, time, progress } = start(true);
    progress.sink(phase(0));
    expect(terminal.screen.at(-1)).toMatch(/^align {2}─+ {2}0\/40 updates {2}ETA –/);
    for (let i = 1; i <= 10; i++) {
      time.advance(2);
      progress.sink({ kind: "metric", step: i, values: { lr: 3e-5, loss: 0.288, reward: 0.412 } });
      progress.sink(phase(i));
    }
    time.advance(0.5);
    const line = terminal.screen.at(-1)!;
    expect(line).toContain("10/40 updates");
    expect(line).toContain("ETA 1:00");
    expect(line).toContain("2 s each");
    expect(line).toContain("reward 0.412");
    expect(terminal.output.split("\n")).toHaveLength(1);
    for (let i = 11; i <= 40; i++) {
      time.advance(2);
      progress.sink(phase(i));
    }
    expect(terminal.screen[0]).toMatch(/^✓ align {2}40 updates in 1 min 2[01] s$/);
    expect(terminal.screen).toHaveLength(2);
    progress.close();
    expect(terminal.screen).toHaveLength(2);
  });

  it("prints messages, warnings and checkpoints above the line", () => {
    const { terminal, progress } = start(true);
    progress.sink(phase(3));
    progress.sink({ kind: "message", text: "hello" });
    progress.sink({ kind: "warning", code: "E-CFG-030", text: "warm-up" });
    progress.sink({ kind: "checkpoint", step: 3, path: "ckpt/step-000003", bytes: 32_000_000 });
    progress.sink({ kind: "error", code: "E-NUM-001", text: "NaN" });
    expect(terminal.screen.slice(0, 3)).toEqual([
      "hello",
      "warning E-CFG-030 warm-up",
      "saved ckpt/step-000003 (30.5 MiB)",
    ]);
    expect(terminal.screen.at(-1)).toContain("3/40");
    expect(terminal.errors).toBe("E-NUM-001 NaN\n");
  });

  it("breaks long warnings between words, and only on a terminal", () => {
    const text = "the warm-up of 10 updates is not over within 3 updates; the learning rate ends at 27 % of its peak";
    const shown = start(true, { width: 60 });
    shown.progress.sink({ kind: "warning", code: "E-CFG-030", text });
    const lines = shown.terminal.lines;
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(displayWidth(line)).toBeLessThan(60);
    expect(lines.map((line) => line.trim()).join(" ")).toBe(`warning E-CFG-030 ${text}`);
    const piped = start(false, { width: 60 });
    piped.progress.sink({ kind: "warning", code: "E-CFG-030", text });
    expect(piped.terminal.lines).toHaveLength(1);
  });

  it("counts no units where a phase has one", () => {
    const { terminal, time, progress } = start(true);
    progress.sink(phase(0, 1, "save", "checkpoint"));
    time.advance(2);
    progress.sink(phase(1, 1, "save", "checkpoint"));
    expect(terminal.screen[0]).toBe("✓ save  2.0 s");
  });

  it("never writes into the last column, however narrow or resized", () => {
    const { terminal, time, progress } = start(true);
    progress.sink({ kind: "metric", step: 1, values: { reward: 0.1 } });
    for (let width = 120; width >= 4; width--) {
      terminal.width = width;
      time.advance(0.5);
      progress.sink(phase(121 - width, 1000, "generating samples", "pictures"));
      expect(displayWidth(terminal.screen.at(-1)!)).toBeLessThan(width);
    }
  });

  it("closes an unfinished phase honestly", () => {
    const { terminal, time, progress } = start(true);
    progress.sink(phase(5));
    time.advance(3);
    progress.sink(phase(0, 0, "loading", "tensors"));
    expect(terminal.screen[0]).toBe("· align  left at 5/40 updates after 3.0 s");
  });
});

describe("elsewhere", () => {
  it("prints a line at the start, at most every few seconds, and a heartbeat when nothing happens", () => {
    const { terminal, time, progress } = start(false);
    progress.sink(phase(0));
    expect(terminal.lines).toHaveLength(1);
    for (let i = 1; i <= 20; i++) {
      time.advance(0.1);
      progress.sink(phase(i));
    }
    expect(terminal.lines).toHaveLength(1);
    time.advance(100);
    expect(terminal.lines.length).toBeGreaterThanOrEqual(10);
    expect(terminal.lines.length).toBeLessThanOrEqual(13);
    expect(terminal.output).not.toContain("\u001b");
    expect(terminal.lines.at(-1)).toContain("align: 20/40 updates");
  });

  it("is never silent for longer than the heartbeat", () => {
    const { terminal, time, progress } = start(false);
    progress.sink(phase(0));
    let last = 0;
    let longest = 0;
    let printed = terminal.lines.length;
    for (let i = 0; i < 600; i++) {
      time.advance(0.25);
      if (i % 37 === 0) progress.sink(phase(Math.floor(i / 37)));
      if (terminal.lines.length > printed) {
        longest = Math.max(longest, time.time - last);
        last = time.time;
        printed = terminal.lines.length;
      }
    }
    expect(longest).toBeLessThanOrEqual(10.01);
  });

  it("says only warnings, errors and results when quiet", () => {
    const { terminal, time, progress } = start(false, { quiet: true });
    progress.sink(phase(0));
    progress.sink({ kind: "message", text: "hello" });
    time.advance(60);
    progress.sink({ kind: "warning", code: "E-CFG-030", text: "warm-up" });
    progress.sink(phase(40));
    progress.above("result");
    progress.close();
    expect(terminal.lines).toEqual(["warning E-CFG-030 warm-up", "result"]);
  });
});

describe("a training", () => {
  const step = (done: number) => phase(done, 1000, "train", "steps");
  const values = (i: number) => ({ update_ratio: 4e-4, lr: 1e-4, grad_norm: 0.31, loss: i % 2 ? 0.2 : 0.4 });

  /** Runs steps of half a second. */
  function steps(run: ReturnType<typeof start>, from: number, to: number): void {
    for (let i = from; i <= to; i++) {
      run.time.advance(0.5);
      run.progress.sink({ kind: "metric", step: i, values: values(i) });
      run.progress.sink(step(i));
    }
    run.time.advance(0.4);
  }

  it("shows speed, time to go and the loss with its mean, which one step's loss says little without", () => {
    const run = start(true, { width: 140 });
    run.progress.sink(step(0));
    steps(run, 1, 40);
    run.time.advance(0.1);
    const line = run.terminal.screen.at(-1)!;
    expect(line).toContain("40/1,000 steps  ETA 8:00  2/s  0:21  loss 0.4 (mean 0.3)  grad_norm 0.31  lr 0.0001");
  });

  it("keeps its line, its rate and its metrics through phases inside it, which leave no lines behind", () => {
    const run = start(true, { width: 140 });
    run.progress.sink(step(0));
    steps(run, 1, 40);
    run.progress.sink(phase(0, 4, "samples", "pictures"));
    expect(run.terminal.screen.at(-1)).toMatch(/^samples/);
    expect(run.terminal.screen.at(-1)).not.toContain("loss");
    for (let i = 1; i <= 4; i++) {
      run.time.advance(5);
      run.progress.sink(phase(i, 4, "samples", "pictures"));
    }
    expect(run.terminal.screen.at(-1)).toContain("40/1,000 steps");
    run.progress.sink({ kind: "metric", step: 40, values: { val_loss: 0.123 } });
    steps(run, 41, 60);
    const line = run.terminal.screen.at(-1)!;
    expect(line).toMatch(
      /60\/1,000 steps {2}ETA \d+:\d\d {2}(?:2|1\.9\d*)\/s {2}0:51 {2}loss 0\.4 \(mean 0\.3\) {2}val_loss 0\.123/,
    );
    // 470 s of steps are left, and for each 30 s of steps 20 s went to samples.
    const [, minutes, seconds] = line.match(/ETA (\d+):(\d\d)/)!;
    expect(60 * Number(minutes) + Number(seconds)).toBeGreaterThan(700);
    expect(run.terminal.screen).toHaveLength(1);
    run.progress.sink(step(1000));
    expect(run.terminal.screen[0]).toMatch(/^✓ train {2}1,000 steps in 51 s$/);
  });

  it("says where it was left when a phase inside it was the last", () => {
    const run = start(true);
    run.progress.sink(step(7));
    run.progress.sink(phase(1, 3, "validate", "pictures"));
    run.time.advance(2);
    run.progress.close();
    expect(run.terminal.screen[0]).toBe("· train  left at 7/1,000 steps after 2.0 s");
  });

  it("prints plain lines with a heartbeat where no line can be redrawn", () => {
    const run = start(false);
    run.progress.sink(step(0));
    steps(run, 1, 30);
    run.progress.sink(phase(0, 4, "samples", "pictures"));
    run.time.advance(25);
    run.progress.sink(phase(4, 4, "samples", "pictures"));
    steps(run, 31, 50);
    expect(run.terminal.output).not.toContain("\u001b");
    expect(run.terminal.lines.some((line) => line.startsWith("  samples: 0/4 pictures"))).toBe(true);
    expect(run.terminal.lines.at(-1)).toMatch(
      /^ {2}train: \d+\/1,000 steps, (?:2|1\.9\d*)\/s, ETA \d+:\d\d, loss 0\.\d+ \(mean 0\.3\d*\), grad_norm 0\.31, lr 0\.0001, .*\[/,
    );
  });
});

describe("rates", () => {
  it("does not claim a rate or an ETA before anything was done", () => {
    const progress = new PhaseProgress(phase(0), 0);
    expect(progress.rate(5)).toBeNull();
    expect(progress.remaining(5)).toBeNull();
    progress.update(phase(3, 0), 6);
    expect(progress.remaining(6)).toBeNull();
  });

  it("does not count work that a resumed run did before", () => {
    const progress = new PhaseProgress(phase(20), 0);
    progress.update(phase(21), 2);
    expect(progress.rate(2)).toBeCloseTo(0.5);
    expect(progress.remaining(2)).toBeCloseTo(38);
  });

  it("leaves the slow first interval out, and slows down when work stalls", () => {
    const progress = new PhaseProgress(phase(0), 0);
    progress.update(phase(1), 30);
    for (let i = 2; i <= 6; i++) progress.update(phase(i), 28 + 2 * i);
    expect(progress.rate(40)).toBeCloseTo(0.5);
    const stalled = progress.remaining(100)!;
    expect(stalled).toBeGreaterThan(progress.remaining(40)!);
  });

  it("writes clocks", () => {
    expect([clock(0), clock(92), clock(3725)]).toEqual(["0:00", "1:32", "1:02:05"]);
  });
});

describe("tables and text", () => {
  it("aligns numbers right and cuts text columns where the terminal is narrow", () => {
    const rows = [
      ["aligned tail, judge", ".496", "+.054 [.027, .080]"],
      ["head, judge", ".659", "−.004 [−.012, .005]"],
    ];
    const columns = [
      { title: "measure" },
      { title: "before", align: "right" as const },
      { title: "change", align: "right" as const },
    ];
    expect(renderTable(columns, rows)).toBe(
      "measure              before               change\n" +
        "───────────────────  ──────  ───────────────────\n" +
        "aligned tail, judge    .496   +.054 [.027, .080]\n" +
        "head, judge            .659  −.004 [−.012, .005]\n",
    );
    for (const line of renderTable(columns, rows, 40).split("\n")) expect(displayWidth(line)).toBeLessThanOrEqual(40);
  });

  it("measures wide characters and cuts by columns", () => {
    expect(displayWidth("寿司")).toBe(4);
    expect(displayWidth("\u001b[1mab\u001b[22m")).toBe(2);
    expect(displayWidth("✓━é→−")).toBe(5);
    expect(cutTo("寿司寿司", 5)).toBe("寿司…");
    expect(plainText("\u001b[31mred\u001b[39m")).toBe("red");
  });

  it("honours NO_COLOR, FORCE_COLOR, TERM=dumb and --no-color", () => {
    expect(wantsColor({}, true, true)).toBe(true);
    expect(wantsColor({}, false, true)).toBe(false);
    expect(wantsColor({ NO_COLOR: "1" }, true, true)).toBe(false);
    expect(wantsColor({ FORCE_COLOR: "1" }, false, true)).toBe(true);
    expect(wantsColor({ FORCE_COLOR: "1" }, false, false)).toBe(false);
    expect(wantsColor({ TERM: "dumb" }, true, true)).toBe(false);
  });
});
