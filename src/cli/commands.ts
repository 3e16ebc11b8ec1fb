// The table of commands, in the order in which help lists them. Each command loads the rooms below it only when it runs,
// so that `--help` and the errors of a command line appear at once.

import type { Command } from "./command.ts";

const LOADERS: readonly (() => Promise<{ command: Command }>)[] = [
  () => import("./commands/demo.ts"),
  () => import("./commands/doctor.ts"),
  () => import("./commands/init.ts"),
  () => import("./commands/plan.ts"),
  () => import("./commands/bench.ts"),
  () => import("./commands/align.ts"),
  () => import("./commands/train.ts"),
  () => import("./commands/cache.ts"),
  () => import("./commands/sample.ts"),
  () => import("./commands/lora.ts"),
  () => import("./commands/eval.ts"),
  () => import("./commands/preprocess.ts"),
  () => import("./commands/data.ts"),
  () => import("./commands/pretrain.ts"),
  () => import("./commands/report.ts"),
  () => import("./commands/serve.ts"),
  () => import("./commands/help.ts"),
  () => import("./commands/version.ts"),
];

/** Loads every command. */
export async function loadCommands(): Promise<Command[]> {
  return (await Promise.all(LOADERS.map((load) => load()))).map(({ command }) => command);
}
