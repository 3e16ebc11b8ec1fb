// What a run asks of the platform that it runs on. The command line answers with the system (src/cli), a page's worker with the
// browser (src/web/worker); the runs themselves are the same.

import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import type { Gpu } from "../gpu/device.ts";
import type { Session } from "../tensor/session.ts";
import type { Onlooker } from "../training/drawing.ts";
import type { ResolvedConfig } from "./config/load.ts";
import type { EnvironmentFacts } from "./environment.ts";
import type { AvailableMemory } from "./offload.ts";
import type { RunFolder, RunRequest } from "./run_folder.ts";
import type { RunControl } from "./train/control.ts";

/** A run whose session is open, for those who watch it. */
export interface OpenSession {
  gpu: Gpu;
  session: Session;
  emit: EventSink;
  run: RunFolder;
}

export interface RunHost {
  files: FileStore;
  /** The run's event stream; after `openRun` its log.jsonl reads it too. */
  emit: EventSink;
  /** Aborted when the run is to save and end at the next update, with what is to be thrown. */
  signal: AbortSignal;
  /** Makes or reopens the run's folder. @throws what `openRunFolder` says, E-RUN-015 where another one works on it */
  openRun(resolved: ResolvedConfig, request: Partial<RunRequest>): Promise<RunFolder>;
  environment(): Promise<EnvironmentFacts>;
  availableMemory: AvailableMemory;
  /** Folder in which measured kernels are remembered, a file per adapter. */
  kernelTables: string;
  /** Bytes that a software adapter's device has taken, as far as the system tells. */
  deviceBytes(): Promise<number | null>;
  /** Words from outside to the run. */
  control(run: RunFolder): RunControl;
  /** Does the replaying part of a run, whose session is open; a place to measure it or to show its memory. */
  watched<T>(open: OpenSession, work: () => Promise<T>): Promise<T>;
  /** Another reader of the run's events, TensorBoard's for one; null where the platform has none. */
  openSink: ((run: RunFolder, resolved: ResolvedConfig, stepsDone: number) => RunSink) | null;
  /** Who looks on while the samples of an update are drawn, one picture an item; where it is left out, nobody. */
  onlooker?(sampling: { step: number; items: readonly string[] }): Onlooker;
  /** The command line that repeats the run. */
  command: string;
}

export interface RunSink {
  sink: EventSink;
  close(): void;
}
