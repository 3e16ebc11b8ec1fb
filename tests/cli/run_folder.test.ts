// The run folder's rules and the log that is written into it.
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import { jsonSink, openLog } from "../../src/cli/sinks.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { lineMaker } from "../../src/runs/log_lines.ts";
import { openRunFolder, readRecord, runPaths } from "../../src/runs/run_folder.ts";

const files = new DiskFiles();
let runs: string;
beforeEach(() => {
  runs = mkdtempSync(join(tmpdir(), "longtail-runs-"));
});
afterEach(() => rmSync(runs, { recursive: true, force: true }));

const request = (name = "auto", resume = "auto") => ({
  command: "align",
  folder: runs,
  name,
  resume,
  now: new Date(2026, 10, 22, 14, 25, 30),
});
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "none",
    (error: LongtailError) => error.code,
  );

describe("run folder", () => {
  it("names itself after command and time, and never shares a folder", async () => {
    const first = await openRunFolder(files, request());
    const second = await openRunFolder(files, request());
    expect([first.name, second.name]).toEqual(["align-20261122-142530", "align-20261122-142530-2"]);
    expect(first.resumed).toBe(false);
    expect((await readRecord(files, first.paths.folder))?.state).toBe("running");
  });

  it("says so where it cannot be made", async () => {
    writeFileSync(join(runs, "file"), "");
    for (const name of ["auto", "a"]) {
      const asked = openRunFolder(files, { ...request(name), folder: join(runs, "file", "runs") });
      const error = await asked.then(
        () => null,
        (thrown: LongtailError) => thrown,
      );
      expect(error).toMatchObject({ code: "E-ENV-022", exitCode: 3 });
      expect(error!.message).toMatch(/the run's folder cannot be made → .*Fix: set run\.folder/);
    }
  });

  it("knows where everything lies", () => {
    const paths = runPaths(join("runs", "a"));
    expect(paths.samples(0)).toBe(join("runs", "a", "samples", "step-000000"));
    expect(paths.picture(200, 3, 42)).toBe(join("runs", "a", "samples", "step-000200", "03-seed42.png"));
    expect(paths.checkpoint(200)).toBe(join("runs", "a", "ckpt", "step-000200"));
    expect(paths.transformer).toBe(join("runs", "a", "a.transformer.safetensors"));
  });

  it("writes both configurations and the environment", async () => {
    const run = await openRunFolder(files, request("a"));
    await run.writeConfig(null, "x = 1\n");
    await run.writeEnvironment({ adapter: "test" });
    expect(readFileSync(run.paths.config, "utf8")).toContain("No configuration file");
    expect(readFileSync(run.paths.resolvedConfig, "utf8")).toBe("x = 1\n");
    expect(JSON.parse(readFileSync(run.paths.environment, "utf8"))).toEqual({ adapter: "test" });
  });

  it("continues an unfinished run of the same name and refuses a finished one", async () => {
    const run = await openRunFolder(files, request("a"));
    await run.finish("stopped", { step: 7, reason: "interrupted" });
    const again = await openRunFolder(files, request("a"));
    expect(again.resumed).toBe(true);
    expect(again.record).toMatchObject({ state: "running", step: 7 });
    expect(again.record.reason).toBeUndefined();
    await again.finish("finished", { step: 40 });
    expect(await codeOf(openRunFolder(files, request("a")))).toBe("E-CFG-021");
    expect((await openRunFolder(files, request("auto", join(runs, "a")))).resumed).toBe(true);
  });

  it("resumes by path, by name and from one checkpoint", async () => {
    const run = await openRunFolder(files, request("a"));
    mkdirSync(run.paths.checkpoint(20), { recursive: true });
    expect((await openRunFolder(files, request("auto", `${join(runs, "a")}/`))).name).toBe("a");
    expect((await openRunFolder(files, request("auto", "a"))).checkpoint).toBeNull();
    const fromCheckpoint = await openRunFolder(files, request("auto", run.paths.checkpoint(20)));
    expect(fromCheckpoint.name).toBe("a");
    expect(fromCheckpoint.checkpoint).toBe(run.paths.checkpoint(20));
  });

  it("refuses strange names, strange folders, and what is not there", async () => {
    for (const name of ["../a", "a/b", "..", ".hidden", "a\nb", "x".repeat(101), "con:1"]) {
      expect(await codeOf(openRunFolder(files, request(name)))).toBe("E-CFG-020");
    }
    mkdirSync(join(runs, "mine"));
    writeFileSync(join(runs, "mine", "thesis.txt"), "do not touch");
    expect(await codeOf(openRunFolder(files, request("mine")))).toBe("E-CFG-022");
    expect(await codeOf(openRunFolder(files, request("auto", "nowhere")))).toBe("E-CFG-023");
    expect(await codeOf(openRunFolder(files, request("auto", join(runs, "mine"))))).toBe("E-CFG-023");
    await openRunFolder(files, request("a"));
    expect(await codeOf(openRunFolder(files, request("a", "no")))).toBe("E-CFG-022");
    mkdirSync(join(runs, "empty"));
    expect((await openRunFolder(files, request("empty", "no"))).resumed).toBe(false);
  });
});

describe("log.jsonl", () => {
  it("writes one JSON object a line with time and step, keeps what was there, and mends a torn line", () => {
    const path = join(runs, "log.jsonl");
    const first = openLog(
      path,
      () => {},
      () => 1000.1234,
    );
    first.sink({ kind: "metric", step: 3, values: { loss: 0.5, grad_norm: Number.NaN } });
    first.sink({ kind: "message", text: "hello" });
    first.close();
    appendFileSync(path, '{"t":1,"ki');
    const second = openLog(
      path,
      () => {},
      () => 2000,
    );
    second.sink({ kind: "checkpoint", step: 4, path: "ckpt/step-000004", bytes: 10 });
    second.close();
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    expect(lines).toHaveLength(4);
    expect(JSON.parse(lines[0]!)).toEqual({
      t: 1000.123,
      step: 3,
      kind: "metric",
      values: { loss: 0.5, grad_norm: "NaN" },
    });
    expect(JSON.parse(lines[1]!)).toEqual({ t: 1000.123, step: 3, kind: "message", text: "hello" });
    expect(JSON.parse(lines[3]!).kind).toBe("checkpoint");
  });

  it("keeps the beginning and end of a phase, and one event a second between", () => {
    let now = 0;
    const make = lineMaker(() => now);
    const kept: number[] = [];
    for (let i = 0; i <= 100; i++, now += 0.1) {
      if (make({ kind: "phase", name: "align", done: i, total: 100, unit: "updates" })) kept.push(i);
    }
    expect(kept[0]).toBe(0);
    expect(kept.at(-1)).toBe(100);
    expect(kept.length).toBeLessThan(14);
  });

  it.skipIf(!existsSync("/dev/full"))(
    "reports a full disk once, with its code, and does not throw into the loop",
    () => {
      const path = join(runs, "log.jsonl");
      symlinkSync("/dev/full", path);
      const failures: LongtailError[] = [];
      const log = openLog(path, (error) => failures.push(error));
      log.sink({ kind: "message", text: "one" });
      log.sink({ kind: "message", text: "two" });
      log.close();
      expect(failures).toHaveLength(1);
      expect(failures[0]!.code).toBe("E-ENV-020");
      expect(failures[0]!.exitCode).toBe(3);
      expect(log.failure).toBe(failures[0]);
    },
  );

  it("names a log that cannot be opened", () => {
    expect(() => openLog(join(runs, "no", "log.jsonl"), () => {})).toThrow(/E-FILE-001/);
  });

  it("streams the same lines for --json", () => {
    let text = "";
    jsonSink(
      (part) => (text += part),
      () => 5,
    )({ kind: "warning", code: "E-CFG-030", text: "x" });
    expect(JSON.parse(text)).toEqual({ t: 5, step: 0, kind: "warning", code: "E-CFG-030", text: "x" });
  });
});
