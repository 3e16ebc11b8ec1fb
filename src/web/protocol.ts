// What page and worker say to each other. Requests that have an answer go through comlink (`Engine`); everything that happens
// while a run goes on comes as `EngineEvent`s over one message port, in order, at most ten batches a second. The run's own
// events are the very `RunEvent`s of the command line, so a server's log.jsonl can be shown by the same panels.

import type { RunEvent } from "../base/events.ts";

/** What an error is on its way out of the worker: LongtailError's parts, because class instances do not cross. */
export interface WireError {
  code: string;
  what: string;
  where?: string;
  why?: string;
  fix?: string;
}

export type RunStatus =
  | "starting"
  | "running"
  | "paused"
  | "stopping"
  /** Ended at its last update. */
  | "finished"
  /** Ended earlier, saved, can be resumed. */
  | "stopped"
  | "failed";

/** One line of a run's log.jsonl: an event, when it happened (seconds since 1970) and at which update. */
export type LogLine = RunEvent & { t: number; step: number };

export type EngineEvent =
  | { kind: "log"; run: string; lines: LogLine[] }
  | { kind: "status"; run: string; status: RunStatus; step: number; error?: WireError }
  /** Bytes of weights on their way; `name` is a path like `models/taef2/taef2.safetensors`. */
  | { kind: "download"; name: string; received: number; total: number; cached: boolean }
  /** Planned device memory of the open session, bytes by category. */
  | { kind: "memory"; run: string; categories: Record<string, number> }
  /**
   * Pictures that take shape, after `done` of `total` steps: a run's samples of update `step`, or those of a drawing apart from runs.
   */
  | {
      kind: "preview";
      run: string | null;
      step: number;
      done: number;
      total: number;
      pictures: readonly PreviewPicture[];
    }
  /** Something to know that belongs to no run: the storage is nearly full, for one. */
  | { kind: "warning"; code: string; text: string }
  /** The device went away; `recovering` says whether the run goes on by itself. */
  | { kind: "device-lost"; run: string | null; why: string; recovering: boolean; step: number };

/** Every message carries a number that only rises, so that a gap can be seen. */
export type Sequenced<T> = T & { seq: number };

/** What the worker found out about the adapter; the page's own verdict (verdict.ts) needs no worker. */
export interface DeviceFacts {
  name: string;
  software: boolean;
  f16: boolean;
  subgroups: boolean;
  maxBindingBytes: number;
}

export interface StartRequest {
  command: "train" | "align";
  /**
   * A configuration file's whole text, `preset = "lora"` or `preset = "embedded"` in its first line. It is kept as the run's
   * config.toml: `npx longtail train config.toml` repeats the run. Own pictures lie in `pictures/<set>` of the browser's
   * storage and are named so in `[[data.sets]]`.
   */
  toml: string;
  /** The run's name; it must not exist unless `resume`. */
  name: string;
  /** Go on from the newest whole checkpoint. */
  resume: boolean;
}

/** What is known about a request before anything is allocated. */
export interface PlanFacts {
  steps: number;
  /** Device bytes by category, and their sum. */
  memory: Record<string, number>;
  total: number;
  flopsPerUpdate: number;
  parameters: number;
  trainedParameters: number;
  /** `32 pictures to learn from, 2 left out; one size (64×64: 32)`. */
  pictures: string;
  /** Warnings of the configuration, as they would be printed. */
  warnings: { code: string; text: string }[];
}

export interface DrawRequest {
  /** The run whose adapter (or aligned transformer) is used; null for the base model alone. */
  run: string | null;
  prompts: readonly string[];
  /** Picture i is drawn from noise number `first + i` of the seed. */
  seed: number;
  first: number;
  /** Of the adapter; 0 is the base model. A run without an adapter knows 0 and 1 only. */
  strength: number;
  steps: number;
}

/** 8-bit RGBA, ready for a canvas. */
export interface Pixels {
  width: number;
  height: number;
  rgba: Uint8ClampedArray<ArrayBuffer>;
}

/** A picture that is done; its buffer is transferred. */
export interface DrawnPicture extends Pixels {
  /** Updates that the weights of an unfinished run had had; null for a finished run's and the base model's. */
  step: number | null;
}

/** A picture that is not done; `index` is its place among those that are drawn together, `item` what it is of. */
export interface PreviewPicture extends Pixels {
  index: number;
  item: string;
}

/** A file on its way in: from a drop, a folder, a paste or the camera. */
export interface IncomingFile {
  /** Path inside what was dropped, `set/01.png`. */
  name: string;
  blob: Blob;
}

export interface SetPicture {
  /** Path in the browser's storage, `pictures/mine/01.png`. */
  path: string;
  width: number;
  height: number;
  caption: string;
}

/** A set of the user's own pictures and every file that was left out, with its reason. */
export interface PictureSetFacts {
  name: string;
  /** `pictures/<name>`: what `[[data.sets]] path` is to say. */
  path: string;
  pictures: SetPicture[];
  dropped: { name: string; code: string; why: string }[];
}

export interface StoredRun {
  name: string;
  command: string;
  state: string;
  step: number;
  started: string;
  bytes: number;
}

export interface StorageFacts {
  runs: StoredRun[];
  sets: { name: string; pictures: number; bytes: number }[];
  weightsBytes: number;
  otherBytes: number;
  /** What the browser says, or null where it does not. */
  quota: number | null;
  usage: number | null;
  persisted: boolean;
}

/** The worker's side. Every method rejects with a `WireError`. */
export interface Engine {
  /** Hands over the port that events come through; once. */
  connect(port: MessagePort): void;
  /** Opens the device (and keeps it); also says what the kernels can use. */
  open(): Promise<DeviceFacts>;
  /** Fetches what drawing needs, with `download` events, so that a first picture is not waited for twice. */
  warm(): Promise<void>;

  plan(request: StartRequest): Promise<PlanFacts>;
  /** Resolves when the run is under way; everything after that comes as events. */
  start(request: StartRequest): Promise<void>;
  /** These act between two submits: within 200 ms where a kernel takes less. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Makes `updates` updates and pauses again. */
  step(updates: number): Promise<void>;
  /** Saves and ends the run; it can be resumed. */
  stop(): Promise<void>;
  /** Draws the run's samples or writes a checkpoint at the next update. */
  sampleNow(): Promise<void>;
  saveNow(): Promise<void>;

  /**
   * Draws with a run's finished weights; of an unfinished run with those that it is paused with, or of its newest checkpoint.
   * Beside a run that trains, which it slows down.
   */
  draw(request: DrawRequest): Promise<DrawnPicture[]>;

  /** Whether pictures are shown while they take shape; not before this was called. */
  previews(on: boolean): Promise<void>;

  /** Checks, converts and stores pictures with their captions; decoding is the engine's own (JPEG, PNG) or the browser's. */
  addPictures(set: string, files: IncomingFile[]): Promise<PictureSetFacts>;
  pictureSet(set: string): Promise<PictureSetFacts>;
  setCaption(path: string, caption: string): Promise<void>;
  removePicture(path: string): Promise<void>;

  storage(): Promise<StorageFacts>;
  removeRun(name: string): Promise<void>;
  removeSet(name: string): Promise<void>;
  removeWeights(): Promise<void>;

  /** For tests: destroys the device as a driver's reset would. */
  loseDevice(): Promise<void>;
}
