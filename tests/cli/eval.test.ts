// `longtail eval` on pictures that come along, from the command line to the table: prompts from PNG texts, .txt files and
// HPS's benchmark lists, rows that are kept, groups, pictures that cannot be scored. The judge is the embedded one.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { command } from "../../src/cli/commands/eval.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { EmbeddedData } from "../../src/data/embedded.ts";
import type { ScoreRow } from "../../src/evaluation/scores.ts";
import { encodePng, fromPlanes } from "../../src/formats/png.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { EMBEDDED, embeddedFixture } from "../helpers/embedded.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { noise } from "../helpers/gpu.ts";
import { RecordingTerminal } from "./recorder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-eval-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function evaluate(...argv: string[]) {
  const terminal = new RecordingTerminal();
  const words = ["eval", ...argv, "--device.tuner=off", "--eval.batch=3"];
  const code = await runCommandLine(words, { commands: [command], terminal, onInterrupt: () => () => {} });
  const result = terminal.lines.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : [])).at(-1);
  return { code, errors: terminal.errors, output: terminal.output, result: result?.value };
}

const rowsOf = (path: string): ScoreRow[] =>
  readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

const JUDGE = `--model=${join(MODELS, "embedded/judge")}`;

/** Real pictures of items with the prompts of their own and of the next item. */
async function pictures(count: number) {
  const data = await EmbeddedData.load(new NodeFiles(), EMBEDDED);
  const found: { item: string; planes: Float32Array }[] = [];
  for (const item of data.items) {
    const planes = found.length < count ? await data.picture(item, "noto") : null;
    if (planes) found.push({ item: item.item, planes });
  }
  return { side: data.size, found };
}

describe("eval clip", () => {
  it("scores a run's samples with the judge, keeps rows, and tells groups apart", async () => {
    const { side, found } = await pictures(7);
    const run = join(folder, "run");
    for (const [g, group] of ["step-000000", "step-000020"].entries()) {
      mkdirSync(join(run, "samples", group), { recursive: true });
      for (const [i, { planes }] of found.entries()) {
        // In the second group every prompt is that of another picture.
        const prompt = `icon of ${found[(i + g) % found.length]!.item}`;
        const png = encodePng(fromPlanes(planes, side, side, { prompt }));
        writeFileSync(join(run, "samples", group, `0${i}-seed1.png`), png);
      }
    }
    writeFileSync(
      join(run, "run.json"),
      JSON.stringify({ state: "finished", command: "align", started: "2026-01-01" }),
    );
    writeFileSync(join(run, "samples", "step-000020", "broken.png"), "not a picture");
    const first = await evaluate("clip", run, JUDGE, "--json");
    expect(first.errors).toBe("");
    expect(first.code).toBe(0);
    const summary = JSON.parse(readFileSync(join(run, "eval-clip/summary.json"), "utf8"));
    expect(summary.scorer).toMatchObject({ kind: "clip", label: "CLIP score (judge)", fit: "crop" });
    expect(summary.dropped).toMatchObject([{ picture: "step-000020/broken.png", code: "E-DATA-021" }]);
    const [all, right, wrong] = summary.groups;
    expect([all, right, wrong].map(({ group, n }) => [group, n])).toEqual([
      ["all", 14],
      ["step-000000", 7],
      ["step-000020", 7],
    ]);
    // The judge knows the pictures by their names.
    expect(right.mean).toBeGreaterThan(wrong.mean);
    expect(right.low).toBeLessThan(right.mean);
    const rows = rowsOf(join(run, "eval-clip/scores.jsonl"));
    expect(rows).toHaveLength(14);
    expect(rows[0]).toMatchObject({ picture: "step-000000/00-seed1.png", scorer: "CLIP score (judge)", fit: "crop" });

    // The first row is lost and the last one torn, as a machine without power leaves it: two are scored again, to the same
    // numbers.
    const path = join(run, "eval-clip/scores.jsonl");
    const kept = rows.slice(1, -1).map((row) => `${JSON.stringify(row)}\n`);
    writeFileSync(path, `${kept.join("")}{"picture":"step-0000`);
    const again = await evaluate("clip", run, JUDGE);
    expect(again.code).toBe(0);
    expect(again.output).toContain("12 were there already; 1 left out");
    expect(again.output).toContain("step-000020");
    const after = rowsOf(path);
    expect(after.map(({ picture }) => picture)).toEqual(rows.map(({ picture }) => picture));
    for (const i of [0, 13]) expect(after[i]!.score).toBeCloseTo(rows[i]!.score, 4);
    expect(after.slice(1, -1)).toEqual(rows.slice(1, -1));
  });

  it("takes a prompt from the .txt file beside a picture, and writes where it is told to", async () => {
    const { side, found } = await pictures(1);
    const plain = join(folder, "plain");
    mkdirSync(plain);
    writeFileSync(join(plain, "a.png"), encodePng(fromPlanes(found[0]!.planes, side, side)));
    writeFileSync(join(plain, "a.txt"), `${embeddedFixture.judge_texts[0]}\n`);
    const { code, result } = await evaluate("clip", plain, JUDGE, "--json", `--output=${folder}/out`);
    expect(code).toBe(0);
    expect(result).toMatchObject({ pictures: 1, kept: 0, groups: [{ group: "all", n: 1, low: null }] });
    expect(rowsOf(join(folder, "out/scores.jsonl"))[0]!.prompt).toBe(embeddedFixture.judge_texts[0]);
  });
});

describe("eval hps", () => {
  it("takes prompts from the benchmark's lists, and prints the version", async () => {
    const { side, found } = await pictures(2);
    const bench = join(folder, "bench");
    for (const style of ["anime", "photo"]) {
      mkdirSync(join(bench, style), { recursive: true });
      for (const [i, { planes }] of found.entries())
        writeFileSync(join(bench, style, `0000${i}.png`), encodePng(fromPlanes(planes, side, side)));
      writeFileSync(
        join(bench, `benchmark_${style}.json`),
        JSON.stringify(found.map(({ item }) => `${style} of ${item}`)),
      );
    }
    const reward = `--model=${join(MODELS, "embedded/reward")}`;
    const { code, output } = await evaluate("hps", bench, reward, "--hps-version=2.1");
    expect(code).toBe(0);
    expect(output).toContain("HPS v2.1");
    expect(output).toContain("leaderboards print it times 100");
    const rows = rowsOf(join(bench, "eval-hps/scores.jsonl"));
    expect(rows.map(({ group, prompt }) => [group, prompt])).toContainEqual(["photo", `photo of ${found[1]!.item}`]);
    expect(rows.every(({ fit, score }) => fit === "pad" && Math.abs(score) < 1)).toBe(true);

    writeFileSync(join(bench, "benchmark_photo.json"), JSON.stringify(["only one"]));
    expect((await evaluate("hps", bench, reward)).errors).toContain("E-DATA-073");
  });
});

describe("eval aesthetic", () => {
  it("scores pictures without prompts by a linear head", async () => {
    const { side, found } = await pictures(2);
    const plain = join(folder, "silent");
    mkdirSync(plain);
    for (const [i, { planes }] of found.entries())
      writeFileSync(join(plain, `${i}.png`), encodePng(fromPlanes(planes, side, side)));
    const head = join(folder, "head.safetensors");
    const width = 96;
    await writeSafetensors(new NodeFiles(), head, [
      { name: "weight", dtype: "F32", shape: [1, width], data: Float32Array.from(noise(width, 3)) },
      { name: "bias", dtype: "F32", shape: [1], data: Float32Array.of(5) },
    ]);
    const { code, errors } = await evaluate("aesthetic", plain, JUDGE, `--head=${head}`);
    expect(errors).toBe("");
    expect(code).toBe(0);
    const rows = rowsOf(join(plain, "eval-aesthetic/scores.jsonl"));
    expect(rows.map(({ prompt }) => prompt)).toEqual([null, null]);
    for (const { score } of rows) expect(Math.abs(score - 5)).toBeLessThan(Math.sqrt(width));
    expect((await evaluate("clip", plain, JUDGE)).errors).toContain("the picture has no prompt");
  });
});

describe("eval refuses", () => {
  it.each([
    ["an unknown score", ["beauty", "."], "E-ARG-083"],
    ["a score without weights", ["hps", "."], "E-ARG-082"],
    ["the head's absence", ["aesthetic", ".", "--model=embedded"], "E-ARG-082"],
    ["a folder that is not there", ["clip", "nowhere", "--model=embedded"], "E-FILE-001"],
    ["another fit", ["clip", ".", "--model=embedded", "--fit=squash"], "E-ARG-081"],
  ])("%s", async (_name, words, code) => {
    const [kind, where, ...rest] = words as [string, string, ...string[]];
    mkdirSync(join(folder, "one"), { recursive: true });
    writeFileSync(join(folder, "one/a.png"), encodePng(fromPlanes(new Float32Array(48), 4, 4, { prompt: "a" })));
    const { errors } = await evaluate(kind, where === "." ? join(folder, "one") : join(folder, where), ...rest);
    expect(errors).toContain(code);
    expect(errors.trimEnd().split("\n")).toHaveLength(1);
  });
});
