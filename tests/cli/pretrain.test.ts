// `longtail pretrain` and `longtail data` on the command line: plans, refusals by name, and a run that is stopped in the
// middle and goes on to the same files.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { command as dataCommand } from "../../src/cli/commands/data.ts";
import { command as pretrainCommand } from "../../src/cli/commands/pretrain.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { RecordingTerminal } from "./recorder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-pretrain-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const commands = [dataCommand, pretrainCommand];

/** @param stopAt aborts when the output has this text */
async function longtail(argv: string[], stopAt?: string) {
  const terminal = new RecordingTerminal();
  let interrupt = () => {};
  let waiting = stopAt !== undefined;
  const out = terminal.out.bind(terminal);
  terminal.out = (text) => {
    out(text);
    if (waiting && terminal.output.includes(stopAt!)) {
      waiting = false;
      interrupt();
    }
  };
  const onInterrupt = (first: () => void) => {
    interrupt = first;
    return () => {};
  };
  const code = await runCommandLine(argv, { terminal, commands, onInterrupt });
  return { code, errors: terminal.errors, output: terminal.output };
}

const SMALL = ["--steps=8", "--batch=2", "--stride=250", "--checkpoint-every=3", "--device.tuner=off"];

describe("pretrain --plan", () => {
  const planOf = async (recipe: string) => {
    const { code, errors, output } = await longtail(["pretrain", "all", recipe, "--plan", "--json"]);
    expect([code, errors]).toEqual([0, ""]);
    return JSON.parse(output.split("\n").find((line) => line.includes('"result"'))!).value as {
      part: string;
      files: { file: string; parameters: number; bytes: number }[];
      training: number;
    }[];
  };

  it("counts the shipped models' parameters for the full recipe", async () => {
    const files = (await planOf("full")).flatMap((p) => p.files);
    expect(Object.fromEntries(files.map((f) => [f.file, f.parameters]))).toMatchObject({
      transformer: 8_153_344,
      text_encoder: 502_400,
      text_encoder_2: 431_360,
    });
  });

  it("keeps the page's generator with its text encoders and decoder below 12 MB", async () => {
    const [generator] = await planOf("page");
    const decoder = 2_704_756;
    expect(generator!.files.reduce((n, f) => n + f.bytes, decoder)).toBeLessThan(11e6);
  });
});

describe("words that mean nothing", () => {
  it.each([
    [["pretrain", "generatr"], /E-ARG-062.*did you mean generator/],
    [["pretrain", "all", "shrt"], /E-ARG-063.*did you mean short/],
    [["pretrain", "all", "short", "--steps=0"], /E-ARG-064.*--steps/],
    [["pretrain", "all", "short", "--accumulation=3"], /E-ARG-064.*micro-batches/],
    [["pretrain", "all", "short", "--rate=-1"], /E-ARG-064.*--rate/],
    [["pretrain", "evaluate"], /E-ARG-065/],
    [["pretrain", "evaluate", "no/such/folder"], /E-FILE-001.*no\/such\/folder/],
    [["data", "biuld"], /E-ARG-060.*data build/],
    [["data", "build", "--size=65"], /E-ARG-061.*64, 96, 128/],
  ])("%j are refused with what to use instead", async (argv, message) => {
    const { code, errors } = await longtail(argv);
    expect(errors).toMatch(message);
    expect([2, 4]).toContain(code);
  });
});

describe("a pretraining run", () => {
  it("that is stopped saves, goes on by its folder alone, and leaves the files of one that was not", async () => {
    const runs = (name: string) => [`--run.folder=${folder}`, `--run.name=${name}`];
    const whole = await longtail(["pretrain", "judge", "short", ...SMALL, ...runs("whole")]);
    expect(whole.errors).toBe("");
    expect(whole.output).toMatch(/judge +8 /);
    const stopped = await longtail(["pretrain", "judge", "short", ...SMALL, ...runs("cut")], "step-000003");
    expect(stopped.errors).toMatch(/E-RUN-001.*--run\.resume=/);
    expect(stopped.code).toBe(7);
    const resumed = await longtail(["pretrain", "judge", `--run.resume=${folder}/cut`, "--device.tuner=off"]);
    expect(resumed.errors).toBe("");
    expect(resumed.output).toMatch(/continuing from .*step-00000[34]/);
    const weights = (name: string) => readFileSync(join(folder, name, "model/judge/open_clip_model.safetensors"));
    expect(weights("cut").equals(weights("whole"))).toBe(true);
    const log = readFileSync(join(folder, "cut/log.jsonl"), "utf8").trim().split("\n");
    expect(log.map((line) => JSON.parse(line)).filter((event) => event.kind === "metric").length).toBeGreaterThan(1);
    const pipeline = JSON.parse(readFileSync(join(folder, "cut/model/pipeline.json"), "utf8"));
    expect(pipeline).toMatchObject({ image_size: 64, tokens: 16, vae: { kind: "TAEF2" } });
  });
});
