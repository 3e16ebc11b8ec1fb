// What a command is, and what it is handed. Each file in commands/ exports one `command`; the frame in main.ts parses the
// arguments, builds the context, and turns the returned number or thrown error into the exit code.

import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import type { ConfigSources, Override, ResolvedConfig } from "../runs/config/load.ts";
import type { RunFolder, RunRequest } from "../runs/run_folder.ts";

/** A flag of a command. One without `value` is a switch. */
export interface OptionSpec {
  /** Without dashes. */
  name: string;
  /** Placeholder of the value in help, `PATH`; absent for a switch. */
  value?: string;
  summary: string;
}

export interface Command {
  name: string;
  /** One line for the list of commands. */
  summary: string;
  /** What follows `longtail <name>`, `[preset | file.toml] [--section.key=value ...]`. */
  usage: string;
  options: readonly OptionSpec[];
  /** A paragraph for `--help`. */
  description?: string;
  /** Help of one of the command's own subcommands; throws where there is none of that name. */
  explain?: (subcommand: string) => string;
  /** Command lines and what each does. */
  examples?: readonly (readonly [string, string])[];
  /** Fewest and most words after the command; none are taken where absent. */
  positionals?: readonly [number, number];
  /** True where configuration keys can be set on the command line. */
  configuration?: boolean;
  /** Short names of keys that mean something else here than in `ALIASES`, `{ steps: "train.steps" }`. */
  aliases?: Readonly<Record<string, string>>;
  /** With --json: "stream" (default) prints events as they happen and then the result, "result" prints the result alone. */
  json?: "stream" | "result";
  /** True where Ctrl-C is the way to end the command: nothing is saved, and it ends with 0. */
  endsOnInterrupt?: boolean;
  /** Does the work and returns the exit code. */
  run(context: CommandContext): Promise<number>;
}

/** The parsed command line. */
export interface ParsedArguments {
  command: string;
  positionals: string[];
  /** The command's own flags: text, or true for a switch. */
  flags: Record<string, string | true>;
  overrides: Override[];
  help: boolean;
  json: boolean;
  quiet: boolean;
  /** False after --no-color. */
  color: boolean;
}

export interface CommandContext {
  arguments: ParsedArguments;
  /** Aborted by the first Ctrl-C or by a log that cannot be written: save, stop at the next step, throw `signal.reason`. */
  signal: AbortSignal;
  /** The run's event stream: terminal, --json and (after openRun) log.jsonl read it. */
  emit: EventSink;
  /** Prints text for people on standard output, above the progress line; nothing with --json. */
  print(text: string): void;
  /** The command's outcome: JSON with --json, else the text (also with --quiet). */
  result(value: unknown, text: string): void;
  /** Folder of the program's own presets and models. */
  projectRoot: string;
  /** The file system. */
  files: FileStore;
  sources: ConfigSources;
  /** Resolves the configuration from `arguments`; `preset` lies below the user's file. Emits its warnings. */
  loadConfig(options?: { source?: string; preset?: string }): Promise<ResolvedConfig>;
  /** Makes or reopens the run folder, and from then on writes every event to its log.jsonl. */
  openRun(resolved: ResolvedConfig, request?: Partial<RunRequest>): Promise<RunFolder>;
  /** Columns of the terminal, 80 where unknown. */
  columns(): number;
  /** Whether colours may be used. */
  color: boolean;
}
