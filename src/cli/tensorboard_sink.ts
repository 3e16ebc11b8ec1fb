// A reader of the event stream that keeps a run's numbers, samples and settings as TensorBoard event files in the run
// folder's tb/. Files are only ever appended to; a continued run opens another file, which TensorBoard reads after the
// earlier ones and whose session start makes it drop the steps that the checkpoint did not hold.

import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { basename, isAbsolute, join } from "node:path";
import type { LongtailError } from "../base/errors.ts";
import type { EventSink, RunEvent } from "../base/events.ts";
import { type EventPicture, pngPicture, TensorBoardWriter } from "../formats/tensorboard.ts";
import { fileError } from "./system_errors.ts";

export interface TensorBoardOptions {
  /** Updates that the checkpoint holds from which the run goes on; 0 for a fresh run. */
  stepsDone?: number;
  /** Text pages, written once at the start: name → Markdown. See `settingsTable` and `configText`. */
  texts?: Readonly<Record<string, string>>;
  /** Called once, at the first write that fails; nothing is written after it. */
  onFailure: (error: LongtailError) => void;
  /** Seconds since 1970. */
  now?: () => number;
}

export interface TensorBoardSink {
  readonly sink: EventSink;
  /** The event file. */
  readonly path: string;
  /** The first failed write, null while all went well. */
  readonly failure: LongtailError | null;
  /** Writes a text page, Markdown. */
  text(step: number, name: string, markdown: string): void;
  close(): void;
}

const FILE_NAME = /^events\.out\.tfevents\.(\d+)\./;
/** The places of seconds in a file's name, so that names sort by time. */
const SECONDS_DIGITS = 10;
/** Longer names do not fit TensorBoard's cards. */
const LONGEST_NAME = 60;
/** Metrics whose names begin so have a section of their own. */
const VALIDATION = /^(?:validation|val)_/;

/**
 * Opens a new event file in `<runFolder>/tb`.
 * Throws E-FILE-004 or E-ENV-020 where it cannot be written.
 */
export function openTensorBoard(runFolder: string, options: TensorBoardOptions): TensorBoardSink {
  const now = options.now ?? (() => Date.now() / 1000);
  const folder = join(runFolder, "tb");
  let path = folder;
  try {
    mkdirSync(folder, { recursive: true });
    path = join(folder, freshName(readdirSync(folder), now()));
    return new FileSink(openSync(path, "ax"), path, runFolder, options, now);
  } catch (error) {
    throw fileError(error, path);
  }
}

/** TensorBoard reads files in the order of their names, so a new one must come last even if the clock went back. */
function freshName(present: readonly string[], seconds: number): string {
  const newest = Math.max(-1, ...present.map((name) => Number(FILE_NAME.exec(name)?.[1] ?? -1)));
  const time = Math.max(Math.floor(seconds), newest + 1);
  return `events.out.tfevents.${String(time).padStart(SECONDS_DIGITS, "0")}.longtail`;
}

/** `loss` → `train/loss`, `val_loss` → `validation/loss`; a name that has a section keeps it. */
export function scalarTag(name: string): string {
  if (name.includes("/")) return name;
  return VALIDATION.test(name) ? `validation/${name.replace(VALIDATION, "")}` : `train/${name}`;
}

/** `samples/03-seed42 a red fox`: the same for every step, so that TensorBoard shows one picture with a slider. */
export function sampleTag(event: Extract<RunEvent, { kind: "sample" }>): string {
  const stem = basename(event.path).replace(/\.[a-z]+$/i, "");
  const item = (event.item ?? "").replace(/[\s/]+/g, " ").trim();
  const name = item ? `${stem} ${item}` : stem;
  const letters = [...name];
  return `samples/${letters.length > LONGEST_NAME ? `${letters.slice(0, LONGEST_NAME - 1).join("")}…` : name}`;
}

/** Settings as a table in Markdown: the run's hyper-parameters at a glance. */
export function settingsTable(settings: Readonly<Record<string, unknown>>): string {
  const cell = (value: unknown) =>
    (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).replace(/\s+/g, " ").replace(/[|\\]/g, "\\$&");
  const rows = Object.entries(settings).map(([name, value]) => `| ${cell(name)} | ${cell(value)} |`);
  return ["| setting | value |", "|---|---|", ...rows].join("\n");
}

/** A text as Markdown that shows it as it is: indented, so that no fence inside it can end it. */
export function configText(text: string): string {
  return text
    .split("\n")
    .map((line) => `    ${line}`)
    .join("\n");
}

class FileSink implements TensorBoardSink {
  readonly path: string;
  failure: LongtailError | null = null;
  private file: number | null;
  private readonly runFolder: string;
  private readonly onFailure: (error: LongtailError) => void;
  private readonly writer: TensorBoardWriter;
  private step: number;

  constructor(file: number, path: string, runFolder: string, options: TensorBoardOptions, now: () => number) {
    this.file = file;
    this.path = path;
    this.runFolder = runFolder;
    this.onFailure = options.onFailure;
    const done = options.stepsDone ?? 0;
    // What was written at the checkpoint's own step stays; readers drop from the step of the session start on.
    const first = done === 0 ? 0 : done + 1;
    this.step = first;
    this.writer = new TensorBoardWriter((bytes) => this.append(bytes), first, now);
    for (const [name, text] of Object.entries(options.texts ?? {})) this.text(first, name, text);
  }

  readonly sink = (event: RunEvent): void => {
    if ("step" in event) this.step = event.step;
    switch (event.kind) {
      case "metric": {
        const values = Object.entries(event.values).map(([name, value]) => [scalarTag(name), value] as const);
        this.writer.scalars(event.step, Object.fromEntries(values));
        break;
      }
      case "sample":
        this.picture(event);
        break;
      case "warning":
      case "error":
        this.text(this.step, "events", `**${event.kind} ${event.code}**\n\n${configText(event.text)}`);
        break;
    }
  };

  text(step: number, name: string, markdown: string): void {
    this.writer.text(step, name, markdown);
  }

  close(): void {
    if (this.file !== null) closeSync(this.file);
    this.file = null;
  }

  private picture(event: Extract<RunEvent, { kind: "sample" }>): void {
    const path = isAbsolute(event.path) ? event.path : join(this.runFolder, event.path);
    let picture: EventPicture;
    try {
      picture = pngPicture(readFileSync(path));
    } catch {
      // A sample that is no PNG, or that somebody moved away, is no reason to stop writing numbers.
      return;
    }
    const description = [event.item, event.seed === undefined ? "" : `seed ${event.seed}`].filter(Boolean).join(", ");
    this.writer.picture(event.step, sampleTag(event), picture, configText(description));
  }

  private append(bytes: Uint8Array): void {
    if (this.file === null || this.failure) return;
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.file, bytes, done, bytes.length - done);
    } catch (error) {
      this.failure = fileError(error, this.path) as LongtailError;
      this.onFailure(this.failure);
    }
  }
}
