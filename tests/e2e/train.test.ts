// A training run on a folder of pictures, started as a user starts it: what it leaves, what it tells, what the words in its
// CMD file do, and what its weights draw. One short run serves most of the tests.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import { decodePng } from "../../src/formats/png.ts";
import { readTensorBoard } from "../../src/formats/tensorboard.ts";
import { type PictureFolder, writePictureFolder } from "../helpers/picture_folder.ts";
import { gradient, jpegOf, pngOf } from "../helpers/pictures.ts";
import { type Ended, longtail } from "../helpers/processes.ts";
import { here, json, type Line, type Report, STEPS, shortRun, tensorsOf } from "../helpers/short_run.ts";

let folder: string;
let runs: string;
let pictures: PictureFolder;
/** The run that most tests look at. */
let whole: Ended;
let cached: { first: Line; again: Line };

const settings = () => shortRun(folder, pictures);
const at = (...parts: string[]) => join(runs, "whole", ...parts);
const warnings = (events: readonly RunEvent[]) => events.filter((event) => event.kind === "warning");

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-train-"));
  runs = join(folder, "runs");
  pictures = writePictureFolder(join(folder, "pictures"));
  const first = await here("cache", "lora", ...settings());
  cached = { first, again: await here("cache", "lora", ...settings()) };
  whole = await longtail(["train", "lora", "--name=whole", "--profile", ...settings()]);
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the cache of a run", () => {
  it("is filled by `longtail cache` once, and a second one encodes nothing", () => {
    expect([cached.first.errors, cached.first.code]).toEqual(["", 0]);
    // 4 pictures to learn from and 2 of the class, each also mirrored, and 2 held back, of which one is a file again.
    // Texts: 4 captions, that of the class, none, and two prompts; those of the held-back ones are among them.
    const { made, total } = cached.first.value;
    expect(made).toEqual({ pictures: 13, texts: 8, damaged: 0 });
    expect([cached.again.errors, cached.again.code]).toEqual(["", 0]);
    expect(cached.again.value).toMatchObject({ made: { texts: 0, damaged: 0 }, total });
    expect(cached.again.value.made.pictures).toBe(0);
  });

  it("leaves the run nothing to encode, and no encoder in its memory", () => {
    const phases = new Set(whole.events.flatMap((event) => (event.kind === "phase" ? [event.name] : [])));
    expect([...phases]).toContain("train");
    expect([...phases]).not.toContain("encode captions");
    const { memory } = json(at("report.json")) as Report;
    expect(memory.map(({ category }) => category)).not.toContain("encoders, before training and freed");
  });

  it("is mended where an entry was changed on the disk, with a warning", async () => {
    const entries = (readdirSync(join(folder, "cache"), { recursive: true }) as string[]).filter((n) =>
      /picture-/.test(n),
    );
    const path = join(folder, "cache", entries.sort()[0]!);
    const sound = readFileSync(path);
    const damaged = Buffer.from(sound);
    damaged[damaged.length - 5]! ^= 1;
    writeFileSync(path, damaged);
    const mended = await here("cache", "lora", ...settings());
    expect([mended.errors, mended.code]).toEqual(["", 0]);
    expect(mended.value.made).toEqual({ pictures: 1, texts: 0, damaged: 1 });
    expect(warnings(mended.events).map(({ code }) => code)).toContain("E-FILE-090");
    expect(readFileSync(path).equals(sound)).toBe(true);
  });
});

it("a picture whose damage only its decoding shows is left out with all its copies", async () => {
  const place = join(folder, "bent");
  mkdirSync(place);
  const bent = jpegOf(gradient(64, 64, 7));
  bent.fill(0, bent.length - 60, bent.length - 20);
  for (const [name, content] of Object.entries({ "bent.jpg": bent, "copy.jpg": bent, "sound.png": pngOf(64, 64) })) {
    writeFileSync(join(place, name), content);
    writeFileSync(join(place, name.replace(/\w+$/, "txt")), "a gradient");
  }
  const own = join(folder, "bent-cache");
  const words = ["cache", "lora", `--data=${place}`, `--data.cache=${own}`, `--run.folder=${runs}`];
  const result = await here(...words);
  expect([result.errors, result.code]).toEqual(["", 0]);
  expect(result.value).toMatchObject({ made: { pictures: 1, texts: 1, damaged: 0 }, total: { pictures: 1, texts: 1 } });
  const told = warnings(result.events).map(({ text }) => text);
  expect(told.filter((text) => /^2 files were left out: bent\.jpg .*; copy\.jpg /.test(text))).toHaveLength(1);

  rmSync(join(place, "sound.png"));
  const nothing = await here(...words);
  expect(nothing.errors).toMatch(/^E-DATA-042 .*no picture is left to learn from.*Fix: .+\n$/);
  expect(nothing.code).toBe(4);
});

describe("a run on a folder of pictures", () => {
  it("leaves the times of its kernels where it was asked to, of its own updates and samplings", () => {
    const { longtail: rows } = json(at("profile.json")) as {
      longtail: { plans: { plan: string; replays: number; timed: number; seconds: number }[] };
    };
    const updates = rows.plans.filter(({ plan }) => /update|micro/.test(plan));
    expect(updates.reduce((n, { replays }) => n + replays, 0)).toBeGreaterThanOrEqual(STEPS);
    for (const { replays, timed, seconds } of rows.plans) {
      expect(timed).toBe(Math.min(4, replays));
      expect(seconds).toBeGreaterThan(0);
    }
  });

  it("ends well, and its folder has everything", () => {
    expect(whole.errors).toBe("");
    expect(whole.code).toBe(0);
    const names = readdirSync(at(), { recursive: true }).map(String);
    for (const name of [
      "config.toml",
      "config.resolved.toml",
      "env.json",
      "run.json",
      "log.jsonl",
      "kernels.json",
      "whole.safetensors",
      "whole.kohya.safetensors",
      "README.md",
      "report.html",
      "report.json",
      `ckpt/step-${String(STEPS).padStart(6, "0")}/manifest.json`,
    ])
      expect(names).toContain(name);
    expect(names.some((name) => /^tb\/events\.out\.tfevents/.test(name))).toBe(true);
    expect(names.filter((name) => /tmp|partial/.test(name))).toEqual([]);
    expect(json(at("run.json"))).toMatchObject({ state: "finished", command: "train", step: STEPS });
    expect(readFileSync(at("config.resolved.toml"), "utf8")).toContain("longtail train config.resolved.toml");
    expect(readFileSync(at("README.md"), "utf8")).toContain("ohwx");
  });

  it("draws samples from the same noise at step 0, every so many updates and at the end, with their prompts inside", () => {
    const steps = [0, 4, 8, STEPS].map((step) => `step-${String(step).padStart(6, "0")}`);
    expect(readdirSync(at("samples")).sort()).toEqual(steps);
    for (const step of steps) {
      expect(readdirSync(at("samples", step)).filter((name) => name.endsWith(".png"))).toEqual([
        "00-seed42.png",
        "01-seed42.png",
      ]);
      const picture = decodePng(readFileSync(at("samples", step, "00-seed42.png")), step);
      expect(picture).toMatchObject({ width: 64, height: 64 });
      expect(picture.text).toMatchObject({ prompt: "ohwx red gradient", seed: "42" });
    }
    const first = readFileSync(at("samples", steps[0]!, "00-seed42.png"));
    expect(first.equals(readFileSync(at("samples", steps[3]!, "00-seed42.png")))).toBe(false);
  });

  it("writes a log whose every line parses, with metrics of every update and a falling validation loss", () => {
    const lines = readFileSync(at("log.jsonl"), "utf8").trimEnd().split("\n");
    const events = lines.map((line) => JSON.parse(line)) as (RunEvent & {
      t: number;
      values?: Record<string, number>;
    })[];
    for (const event of events) expect(event.t).toBeGreaterThan(0);
    const metrics = events.filter((event) => event.kind === "metric");
    const updates = metrics.filter(({ values }) => "loss" in values!);
    expect(updates.map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    for (const { values } of updates) {
      for (const name of ["loss", "loss_mean", "grad_norm", "lr", "update_ratio", "seconds", "stall_seconds"])
        expect(Number.isFinite(values![name]), name).toBe(true);
      expect(values!["lr"]).toBe(2e-3);
    }
    const validation = metrics.filter(({ values }) => "val_loss" in values!);
    expect(validation.map(({ step }) => step)).toEqual([0, 5, STEPS]);
    const [before, middle, after] = validation.map(({ values }) => values!["val_loss"]!);
    expect(middle).toBeLessThan(before!);
    expect(after).toBeLessThan(middle!);
  });

  it("reads pictures as they are to be seen, and names each file that it left out with its reason", () => {
    const report = json(at("report.json")) as Report;
    expect(report.status).toEqual({ state: "complete", stepsDone: STEPS, stepsPlanned: STEPS });
    const { data } = report;
    // Two sizes: the picture that lies on its side is one of the wide ones.
    expect(data.buckets.map(({ width, height }) => `${width}x${height}`).sort()).toEqual(["64x64", "80x48"]);
    expect(data.sets.map(({ pictures: n, repeats, prior, split }) => [n, repeats, prior, split])).toEqual([
      [4, 2, false, "train"],
      [2, 1, true, "train"],
      [2, 1, false, "validation"],
    ]);
    expect(data.draws).toBe(2 * STEPS);
    const { uncaptioned, torn } = pictures.left;
    const dropped = new Map(data.dropped.map(({ name, code, why }) => [name, `${code} ${why}`]));
    expect([...dropped.keys()].sort()).toEqual([uncaptioned, torn]);
    expect(dropped.get(uncaptioned)).toMatch(/^E-DATA-\d+ .*caption/);
    expect(dropped.get(torn)).toMatch(/^E-DATA-\d+ .+/);
    const told = warnings(whole.events)
      .map(({ text }) => text)
      .join("\n");
    for (const name of [uncaptioned, torn]) expect(told).toContain(name);
    expect(readFileSync(at("report.html"), "utf8")).toContain(torn);
    expect(data.examples.map(({ caption }) => caption)).toEqual(
      expect.arrayContaining([
        "ohwx, a red gradient",
        "ohwx, a blue gradient, soft",
        "ohwx, stripes from a camera held on its side",
        // Pictures of the class stand for what the word is not.
        "a gradient",
      ]),
    );
  });

  it("needs the device memory that its plan says, and hardly waits for its pictures", () => {
    const { memory, speed } = json(at("report.json")) as Report;
    const { plannedBytes, allocatedBytes } = memory.find((row) => row.category === "total")!;
    expect(plannedBytes).toBeLessThan(2 ** 28);
    expect(speed.loaderStall).toBeLessThan(0.05);
    // Hardware and other systems do not show device memory.
    if (allocatedBytes === undefined) return;
    expect(Math.abs(allocatedBytes / plannedBytes - 1)).toBeLessThan(0.1);
    expect(Math.abs(whole.peak.device / plannedBytes - 1)).toBeLessThan(0.1);
  });

  it("leaves adapter files that verify against the base in both key styles, and TensorBoard files that read back", async () => {
    for (const name of ["whole.safetensors", "whole.kohya.safetensors"]) {
      const verdict = await here("lora", "verify", at(name), "--base=embedded");
      expect([verdict.errors, verdict.code], name).toEqual(["", 0]);
    }
    const file = readdirSync(at("tb"))[0]!;
    const bytes = readFileSync(at("tb", file));
    const { events, wholeBytes } = readTensorBoard(bytes, file);
    expect(wholeBytes).toBe(bytes.length);
    const values = events.flatMap((event) =>
      event.kind === "values" ? event.values.map((v) => ({ ...v, step: event.step })) : [],
    );
    const report = json(at("report.json")) as Report;
    const scalar = (tag: string) => values.filter((v) => v.kind === "scalar" && v.tag === tag);
    expect(scalar("validation/loss").map(({ step }) => step)).toEqual([0, 5, STEPS]);
    expect(scalar("train/loss").map((v) => v.kind === "scalar" && Math.fround(v.value))).toEqual(
      report.curves.steps.map(({ loss }) => Math.fround(loss)),
    );
    for (const tag of ["train/grad_norm", "train/lr", "train/update_ratio"]) expect(scalar(tag)).toHaveLength(STEPS);
    expect(values.filter(({ kind }) => kind === "picture")).toHaveLength(2 * 4);
  });

  it("makes the same page again from its data", async () => {
    const output = join(folder, "again.html");
    const result = await here("report", at(), `--output=${output}`);
    expect([result.errors, result.code]).toEqual(["", 0]);
    expect(readFileSync(output).equals(readFileSync(at("report.html")))).toBe(true);
  });

  it("is not overwritten once it is finished", async () => {
    const before = readFileSync(at("report.json"));
    const result = await here("train", "lora", "--name=whole", ...settings());
    expect(result.errors).toMatch(/^E-CFG-021 .*whole: a finished run has this name .*Fix: .+\n$/);
    expect(result.code).toBe(2);
    expect(readFileSync(at("report.json")).equals(before)).toBe(true);
  });
});

describe("the words in CMD", () => {
  it("save, sample and stop a run that was paused; continued, it ends with the weights of the run in one go", async () => {
    const place = join(runs, "spoken");
    const speak = (words: string) => writeFileSync(join(place, "CMD"), words);
    const said = ["save sample", "stop"];
    const heard: string[] = [];
    let pausedAt = 0;
    let step = 0;
    const spoken = await longtail(["train", "lora", "--name=spoken", ...settings()], (event) => {
      if (event.kind === "metric" && "loss" in event.values) step = event.step!;
      if (event.kind === "metric" && event.step === 1) speak("pause");
      if (event.kind === "message" && event.text.startsWith("paused")) {
        pausedAt = step;
        speak(said.shift() ?? "resume");
      }
      if (pausedAt > 0 && (event.kind === "checkpoint" || event.kind === "sample")) heard.push(event.kind);
    });
    expect(pausedAt).toBeGreaterThan(0);
    expect(pausedAt).toBeLessThan(STEPS);
    expect(spoken.errors).toMatch(/^E-RUN-001 .*stopped by CMD .*Fix: continue it with --run\.resume=.*\n$/);
    expect(spoken.code).toBe(7);
    // Saved when it was asked to, drawn both prompts, and saved once more on stopping.
    expect(heard).toEqual(["checkpoint", "sample", "sample", "checkpoint"]);
    expect(json(join(place, "run.json"))).toMatchObject({ state: "stopped" });
    expect(readdirSync(place)).not.toContain("CMD");
    expect(readdirSync(join(place, "samples"))).toContain(`step-${String(pausedAt).padStart(6, "0")}`);

    const finished = await longtail(["train", "lora", "--name=spoken", ...settings()]);
    expect([finished.errors, finished.code]).toEqual(["", 0]);
    const steps = finished.events.flatMap((e) => (e.kind === "metric" && "loss" in e.values ? [e.step] : []));
    expect(steps[0]).toBe(pausedAt + 1);
    for (const ending of [".safetensors", ".kohya.safetensors"])
      expect(tensorsOf(join(place, `spoken${ending}`)).equals(tensorsOf(at(`whole${ending}`)))).toBe(true);
    const report = json(join(place, "report.json")) as Report;
    expect(report.curves.steps.map((point) => point.step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  }, 300_000);
});

describe("the weights of a run", () => {
  it("draw the base model's picture at strength 0, bit for bit, and another one at strength 1", async () => {
    const draw = async (name: string, ...words: string[]) => {
      const output = join(folder, "drawn", name);
      const result = await here(
        ...[
          "sample",
          "icon of taco",
          "--count=1",
          `--output=${output}`,
          "--sample.steps=2",
          "--eval.batch=1",
          ...words,
        ],
      );
      expect([result.errors, result.code]).toEqual(["", 0]);
      const path = join(output, "icon_of_taco_0.png");
      return decodePng(readFileSync(path), path).data;
    };
    const base = await draw("base");
    expect(await draw("none", `--weights=${at()}`, "--strength=0")).toEqual(base);
    expect(await draw("all", `--weights=${at()}`, "--strength=1")).not.toEqual(base);
  }, 120_000);
});
