// The frame around commands: exit codes, one-line errors, interrupts, the log of a run, --json.
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { Command, CommandContext } from "../../src/cli/command.ts";
import { describeFailure, runCommandLine } from "../../src/cli/main.ts";
import { RecordingTerminal } from "./recorder.ts";

let runs: string;
beforeEach(() => {
  runs = mkdtempSync(join(tmpdir(), "longtail-frame-"));
});
afterEach(() => rmSync(runs, { recursive: true, force: true }));

const commandOf = (
  run: (context: CommandContext) => Promise<number>,
  json: "stream" | "result" = "stream",
): Command[] => [
  { name: "align", summary: "", usage: "", positionals: [0, 1], options: [], configuration: true, json, run },
];

/** Runs one command with the words `argv`; `interrupts` receives the two handlers. */
async function frame(
  argv: string[],
  run: (context: CommandContext) => Promise<number>,
  json: "stream" | "result" = "stream",
) {
  const terminal = new RecordingTerminal();
  const exits: number[] = [];
  let first = () => {};
  let second = () => {};
  const code = await runCommandLine(argv, {
    commands: commandOf(run, json),
    terminal,
    exit: (exitCode) => exits.push(exitCode),
    onInterrupt: (one, two) => {
      first = one;
      second = two;
      return () => {};
    },
  });
  return { code, terminal, exits, first, second };
}

describe("frame", () => {
  it("prints a coded error as one line on standard error and ends with its exit code", async () => {
    const { code, terminal } = await frame(["align"], () => {
      throw new LongtailError("E-DATA-014", {
        where: "items.json",
        what: "an item has no caption",
        why: "it is empty",
        fix: "write one",
      });
    });
    expect(code).toBe(4);
    expect(terminal.errors).toBe("E-DATA-014 items.json: an item has no caption → it is empty. Fix: write one\n");
    expect(terminal.output).toBe("");
  });

  it("names an unforeseen error E-RUN-099, asks for a report, and keeps a short stack for the log", async () => {
    const { code, terminal } = await frame(["align"], () => Promise.reject(new TypeError("x is undefined")));
    expect(code).toBe(1);
    expect(terminal.errors).toMatch(
      /^E-RUN-099 longtail: a fault of the program → TypeError: x is undefined\. Fix: please report it/,
    );
    expect(terminal.errors.split("\n")).toHaveLength(2);
    expect(describeFailure(new TypeError("x")).stack.split("\n").length).toBeLessThanOrEqual(6);
  });

  it("gives usage errors exit code 2 before any command runs", async () => {
    const { code, terminal } = await frame(["algin"], () => Promise.resolve(0));
    expect(code).toBe(2);
    expect(terminal.errors).toContain("did you mean longtail align?");
  });

  it("resolves the configuration with the overrides of the command line and emits its warnings", async () => {
    const { code, terminal } = await frame(["align", "embedded", "--align.steps=5"], async (context) => {
      const { config } = await context.loadConfig({ source: context.arguments.positionals[0]! });
      expect(config.align.steps).toBe(5);
      expect(config.align.stop_after_alarm).toBe("never");
      return 0;
    });
    expect(code).toBe(0);
    expect(terminal.output).toContain("warning E-CFG-030");
  });

  it("writes configuration, log and state of a run, also when it fails", async () => {
    const work = async (context: CommandContext) => {
      const run = await context.openRun(await context.loadConfig());
      context.emit({ kind: "metric", step: 1, values: { loss: 0.5 } });
      context.emit({ kind: "phase", name: "align", done: 1, total: 2, unit: "updates" });
      throw new LongtailError("E-NUM-001", { what: "the loss is NaN", where: run.name });
    };
    const { code, terminal } = await frame(["align", `--run.folder=${runs}`, "--name=a"], work);
    expect(code).toBe(5);
    expect(terminal.output).toContain("left at 1/2 updates");
    const log = readFileSync(join(runs, "a", "log.jsonl"), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(log.map(({ kind }) => kind)).toEqual(["metric", "phase", "error"]);
    expect(log[2]).toMatchObject({ step: 1, code: "E-NUM-001" });
    expect(readFileSync(join(runs, "a", "config.resolved.toml"), "utf8")).toContain('name = "a"');
    expect(JSON.parse(readFileSync(join(runs, "a", "run.json"), "utf8"))).toMatchObject({
      state: "failed",
      command: "align",
    });
  });

  it("lets the first interrupt save and stop, and the second end at once", async () => {
    const handlers: { first?: () => void; second?: () => void } = {};
    const terminal = new RecordingTerminal();
    const exits: number[] = [];
    const code = await runCommandLine(["align", `--run.folder=${runs}`, "--name=a"], {
      terminal,
      exit: (exitCode) => exits.push(exitCode),
      onInterrupt: (first, second) => {
        Object.assign(handlers, { first, second });
        return () => {};
      },
      commands: commandOf(async (context) => {
        await context.openRun(await context.loadConfig());
        expect(context.signal.aborted).toBe(false);
        handlers.first!();
        handlers.second!();
        expect(context.signal.aborted).toBe(true);
        throw context.signal.reason;
      }),
    });
    expect(code).toBe(7);
    expect(exits).toEqual([130]);
    expect(terminal.output).toContain("the run is saved and ends at the next step");
    expect(terminal.errors).toContain("E-RUN-001 interrupted");
    expect(JSON.parse(readFileSync(join(runs, "a", "run.json"), "utf8")).state).toBe("stopped");
  });

  it.skipIf(!existsSync("/dev/full"))("ends with the full disk's code when the log cannot be written", async () => {
    const { code, terminal } = await frame(["align", `--run.folder=${runs}`, "--name=a"], async (context) => {
      const resolved = await context.loadConfig();
      const run = await context.openRun(resolved);
      await run.finish("stopped");
      rmSync(run.paths.log);
      symlinkSync("/dev/full", run.paths.log);
      await context.openRun(resolved);
      context.emit({ kind: "message", text: "does not fit" });
      expect(context.signal.aborted).toBe(true);
      throw context.signal.reason;
    });
    expect(code).toBe(3);
    expect(terminal.errors).toContain("E-ENV-020");
  });

  it("prints nothing but JSON lines with --json, the result last", async () => {
    const { terminal } = await frame(["align", "--json"], (context) => {
      context.print("for people");
      context.emit({ kind: "message", text: "hello" });
      context.result({ change: 0.05 }, "a table");
      return Promise.resolve(0);
    });
    expect(terminal.lines.map((line) => JSON.parse(line).kind)).toEqual(["message", "result"]);
    expect(JSON.parse(terminal.lines[1]!).value).toEqual({ change: 0.05 });
  });

  it("prints one JSON document where a command has only a result", async () => {
    const { terminal } = await frame(
      ["align", "--json"],
      (context) => {
        context.emit({ kind: "message", text: "hello" });
        context.result({ a: 1 }, "text");
        return Promise.resolve(0);
      },
      "result",
    );
    expect(JSON.parse(terminal.output)).toEqual({ a: 1 });
  });

  it("still prints results and warnings with --quiet", async () => {
    const { terminal } = await frame(["align", "-q"], (context) => {
      context.print("for people");
      context.emit({ kind: "warning", code: "E-CFG-030", text: "x" });
      context.result({}, "a table");
      return Promise.resolve(0);
    });
    expect(terminal.lines).toEqual(["warning E-CFG-030 x", "a table"]);
  });
});
