// `longtail report` finds runs and refuses what is no report; docs/options.md is what the schema says.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { command as report } from "../../src/cli/commands/report.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { optionsMarkdown } from "../../src/runs/config/options_doc.ts";
import { RecordingTerminal } from "./recorder.ts";

let runs: string;
beforeEach(() => {
  runs = mkdtempSync(join(tmpdir(), "longtail-report-"));
});
afterEach(() => rmSync(runs, { recursive: true, force: true }));

function makeRun(name: string, started: string, data: unknown): void {
  mkdirSync(join(runs, name));
  writeFileSync(join(runs, name, "run.json"), JSON.stringify({ state: "finished", command: "align", started }));
  if (data !== undefined)
    writeFileSync(join(runs, name, "report.json"), typeof data === "string" ? data : JSON.stringify(data));
}

const dataOf = (name: string) => ({
  name,
  createdAt: "2026-11-22T14:25:30.000Z",
  status: { state: "complete", updatesDone: 2, updatesPlanned: 2 },
  method: { label: "SRPO with MIA pairs", training: "full" },
  model: { label: "embedded", architecture: "FluxTransformer2DModel" },
});

async function run(...argv: string[]) {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine(["report", ...argv, `--folder=${runs}`], { commands: [report], terminal });
  return { code, terminal };
}

describe("report", () => {
  it("renders the newest run, a named one, and into another file", async () => {
    makeRun("old", "2026-01-01T00:00:00.000Z", dataOf("old"));
    makeRun("new", "2026-02-01T00:00:00.000Z", dataOf("new"));
    makeRun("unfinished", "2026-03-01T00:00:00.000Z", undefined);
    const newest = await run();
    expect(newest.terminal.errors).toBe("");
    expect(newest.code).toBe(0);
    expect(readFileSync(join(runs, "new", "report.html"), "utf8")).toContain("new");
    expect((await run("old", `--output=${join(runs, "page.html")}`)).code).toBe(0);
    expect(readFileSync(join(runs, "page.html"), "utf8")).toContain("<html");
    expect((await run(join(runs, "old"))).code).toBe(0);
  });

  it.each([
    ["nothing there", undefined, "E-FILE-050", "nope"],
    ["no data", undefined, "E-FILE-001", "a"],
    ["torn data", '{"name": "a', "E-FILE-051", "a"],
    ["a list", [], "E-FILE-051", "a"],
    ["a part missing", { name: "a" }, "E-FILE-051", "a"],
  ])("ends with one coded error: %s", async (_name, data, code, word) => {
    makeRun("a", "2026-01-01T00:00:00.000Z", data);
    const result = await run(word);
    expect(result.code).toBe(4);
    expect(result.terminal.errors).toContain(code);
    expect(result.terminal.errors.trimEnd().split("\n")).toHaveLength(1);
  });

  it("says so where there is no run at all", async () => {
    expect((await run()).terminal.errors).toContain("E-FILE-050");
  });
});

describe("docs/options.md", () => {
  it("is what the schema and the presets say", () => {
    const presets = new URL("../../presets/", import.meta.url);
    const text = optionsMarkdown(
      readdirSync(presets)
        .filter((name) => name.endsWith(".toml"))
        .sort()
        .map((name) => ({ name: name.slice(0, -5), text: readFileSync(new URL(name, presets), "utf8") })),
    );
    const written = readFileSync(new URL("../../docs/options.md", import.meta.url), "utf8");
    expect(written === text, "stale: run deno run -A --no-check scripts/generate_docs.ts").toBe(true);
  });
});
