// What runs ask of the platform, answered by the command line: the system's facts, the user's cache folder, TensorBoard files,
// --profile, and the file CMD in the run's folder.

import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { softwareDeviceBytes } from "../platform/device_memory.ts";
import { availableMemory, environmentFacts } from "../platform/environment.ts";
import { toToml } from "../runs/config/toml.ts";
import type { RunHost } from "../runs/host.ts";
import { FileControl } from "../runs/train/control.ts";
import type { CommandContext } from "./command.ts";
import { profiled } from "./profile.ts";
import { configText, openTensorBoard } from "./tensorboard_sink.ts";

/** @param command the command line that repeats the run */
export function runHost(context: CommandContext, command: string): RunHost {
  const { files, signal, emit } = context;
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return {
    files,
    signal,
    emit,
    openRun: (resolved, request) => context.openRun(resolved, request),
    environment: environmentFacts,
    availableMemory,
    kernelTables: join(cache, "longtail", "kernels"),
    deviceBytes: () => Promise.resolve(softwareDeviceBytes()),
    control: (run) => new FileControl(files, run.paths.folder, emit),
    watched: ({ gpu, session, emit: all, run }, work) =>
      profiled({ context, gpu, session, emit: all, path: run.paths.profile }, work),
    openSink: (run, resolved, stepsDone) =>
      openTensorBoard(run.paths.folder, {
        stepsDone,
        texts: { configuration: configText(toToml(resolved)) },
        onFailure: (error) => emit({ kind: "warning", code: error.code, text: error.message }),
      }),
    command,
  };
}
