// A short training run on a folder of pictures, for tests that start one as a user does.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { RunEvent } from "../../src/base/events.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import type { TrainReportData } from "../../src/evaluation/train_report_data.ts";
import { RecordingTerminal } from "../cli/recorder.ts";
import type { PictureFolder } from "./picture_folder.ts";

export const STEPS = 10;

/** One command inside this process; with --json its last line is the result. */
export async function here(...words: string[]): Promise<Line> {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine([...words, "--json"], { terminal, onInterrupt: () => () => {} });
  const lines = terminal.output.trimEnd();
  // Some commands print one object over several lines, others a line an event.
  const events = lines.startsWith("{\n") ? [] : lines.split("\n").flatMap((line) => (line ? [JSON.parse(line)] : []));
  const value = lines.startsWith("{\n") ? JSON.parse(lines) : events.at(-1)?.value;
  return { code, errors: terminal.errors, events, value };
}

/** A report with nothing left out, as a finished run writes it. */
type Whole<T> = T extends readonly (infer E)[]
  ? Whole<E>[]
  : T extends object
    ? { [K in keyof T]-?: Whole<NonNullable<T[K]>> }
    : T;
export type Report = Whole<TrainReportData>;

export interface Line {
  code: number;
  errors: string;
  events: RunEvent[];
  value: any;
}

/** The words of a run of ten updates on these pictures, with its cache in `folder` and its runs in `folder`/runs. */
export const shortRun = (folder: string, pictures: PictureFolder): string[] => [
  `--data.sets=${pictures.sets}`,
  `--data.cache=${join(folder, "cache")}`,
  `--run.folder=${join(folder, "runs")}`,
  "--data.caption_dropout=0.1",
  "--data.flip=true",
  "--data.trigger=ohwx",
  "--adapter.rank=4",
  "--schedule.warmup=0",
  "--lr=2e-3",
  "--batch=2",
  `--steps=${STEPS}`,
  "--train.validate_every=5",
  "--sample.prompts=ohwx red gradient,wide stripes",
  "--sample.steps=2",
  "--sample.every=4",
  "--save.every=0",
  "--log.every=1",
  "--device.tuner=off",
];

export const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));
/** The data part of a safetensors file; names of runs and times are in the header's metadata. */
export function tensorsOf(path: string): Buffer {
  const bytes = readFileSync(path);
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)));
}
