// The command line's frame: finds the command, gives it a context, prints its errors as one line each, and ends the
// process explicitly, because Dawn's threads can keep it alive after the work is done.

import { resolve } from "node:path";
import process from "node:process";
import { LongtailError } from "../base/errors.ts";
import type { RunEvent } from "../base/events.ts";
import { DiskFiles } from "../platform/files.ts";
import { watchInterrupts } from "../platform/interrupts.ts";
import { lockFile } from "../platform/locks.ts";
import { type ConfigSources, loadConfig, type ResolvedConfig } from "../runs/config/load.ts";
import { toToml } from "../runs/config/toml.ts";
import { programFolder, projectSources } from "../runs/project.ts";
import { openRunFolder, type RunFolder, type RunRequest } from "../runs/run_folder.ts";
import { parseArguments } from "./arguments.ts";
import type { Command, CommandContext, ParsedArguments } from "./command.ts";
import { loadCommands } from "./commands.ts";
import { Progress } from "./progress.ts";
import { jsonSink, type LogSink, openLog, resultLine } from "./sinks.ts";
import { fileError } from "./system_errors.ts";
import { processTerminal, type Terminal } from "./terminal.ts";

/** The exit code of an error that no one foresaw. */
const EXIT_UNFORESEEN = 1;
/** The shell's code for a program that Ctrl-C ended. */
const EXIT_AT_ONCE = 130;
/** A checkpoint that was refused: nothing was trained, and the folder belongs to the run that it was. */
const NOT_THIS_RUN = /^E-RUN-01[0-3]$/;

export interface FrameOptions {
  commands?: readonly Command[];
  terminal?: Terminal;
  sources?: ConfigSources;
  files?: DiskFiles;
  /** Called with the function to call on each interrupt; returns how to stop listening. */
  onInterrupt?: (first: () => void, second: () => void) => () => void;
  /** Ends the process at once, on the second interrupt. */
  exit?: (code: number) => void;
}

/** Runs one command line and returns its exit code; never throws. */
export async function runCommandLine(argv: readonly string[], options: FrameOptions = {}): Promise<number> {
  const early = options.terminal ?? processTerminal(!argv.includes("--no-color"));
  try {
    const commands = options.commands ?? (await loadCommands());
    const parsed = parseArguments(argv, commands);
    const name = parsed.help && parsed.command !== "help" ? "help" : parsed.command;
    if (name !== parsed.command) {
      const topic = commands.find((one) => one.name === parsed.command)?.explain ? parsed.positionals.slice(0, 1) : [];
      Object.assign(parsed, { positionals: [parsed.command, ...topic], command: "help" });
    }
    const command = commands.find((one) => one.name === name)!;
    return await new Frame(command, parsed, early, options).run();
  } catch (error) {
    const { line, code } = describeFailure(error);
    early.err(`${line}\n`);
    return code;
  }
}

/** What is printed for an error, its exit code, and for the log the start of its stack. */
export function describeFailure(error: unknown): { line: string; code: number; id: string; stack: string } {
  const known = fileError(error, (error as { path?: string } | null)?.path ?? "file");
  if (known instanceof LongtailError) return { line: known.message, code: known.exitCode, id: known.code, stack: "" };
  const message = error instanceof Error ? `${error.name}: ${error.message.split("\n")[0]}` : String(error);
  const stack =
    error instanceof Error
      ? (error.stack ?? "")
          .split("\n")
          .slice(1, 7)
          .map((line) => line.trim().replace(/file:\/\/\S*?\/(src|node_modules)\//, "$1/"))
          .join("\n")
      : "";
  const line =
    `E-RUN-099 longtail: a fault of the program → ${message}. ` +
    "Fix: please report it with the command, `longtail doctor --json` and the last lines of the run's log.jsonl";
  return { line, code: EXIT_UNFORESEEN, id: "E-RUN-099", stack };
}

class Frame {
  private readonly command: Command;
  private readonly parsed: ParsedArguments;
  private readonly terminal: Terminal;
  private readonly options: FrameOptions;
  private readonly files: DiskFiles;
  private readonly controller = new AbortController();
  private readonly progress: Progress;
  private readonly streamJson: ((event: RunEvent) => void) | null;
  private log: LogSink | null = null;
  private folder: RunFolder | null = null;
  private unlock: (() => void) | null = null;

  constructor(command: Command, parsed: ParsedArguments, terminal: Terminal, options: FrameOptions) {
    this.command = command;
    this.parsed = parsed;
    this.terminal = terminal;
    this.options = options;
    this.files = options.files ?? new DiskFiles();
    this.progress = new Progress(terminal, { quiet: parsed.quiet || parsed.json });
    this.streamJson = parsed.json && command.json !== "result" ? jsonSink((text) => terminal.out(text)) : null;
  }

  async run(): Promise<number> {
    const stopListening = (this.options.onInterrupt ?? listen)(
      () => this.interrupt(),
      () => this.abandon(),
    );
    try {
      const code = await this.command.run(this.context());
      this.progress.close();
      this.log?.close();
      // A log that could not be written is a failed run, even where the command itself went through.
      if (this.log?.failure) throw this.log.failure;
      return code;
    } catch (error) {
      return await this.fail(error);
    } finally {
      stopListening();
      this.progress.close();
      this.log?.close();
      this.unlock?.();
    }
  }

  private readonly emit = (event: RunEvent): void => {
    if (this.parsed.json) this.streamJson?.(event);
    else this.progress.sink(event);
    this.log?.sink(event);
  };

  private context(): CommandContext {
    const sources = this.options.sources ?? projectSources(this.files);
    return {
      arguments: this.parsed,
      signal: this.controller.signal,
      emit: this.emit,
      print: (text) => {
        if (!this.parsed.json && !this.parsed.quiet) this.progress.above(text);
      },
      result: (value, text) => {
        if (!this.parsed.json) this.progress.above(text);
        else
          this.terminal.out(this.command.json === "result" ? `${JSON.stringify(value, null, 2)}\n` : resultLine(value));
      },
      projectRoot: programFolder(),
      files: this.files,
      sources,
      loadConfig: (request = {}) => this.loadConfig(request, sources),
      openRun: (resolved, request = {}) => this.openRun(resolved, request),
      columns: () => this.terminal.columns(),
      color: this.terminal.color,
    };
  }

  private async loadConfig(
    request: { source?: string; preset?: string },
    sources: ConfigSources,
  ): Promise<ResolvedConfig> {
    const resolved = await loadConfig({ ...request, overrides: this.parsed.overrides }, sources);
    for (const { code, text } of resolved.warnings) this.emit({ kind: "warning", code, text });
    this.progress.setHeartbeat(resolved.config.log.heartbeat);
    return resolved;
  }

  private async openRun(resolved: ResolvedConfig, request: Partial<RunRequest>): Promise<RunFolder> {
    const { folder, name, resume } = resolved.config.run;
    const run = await openRunFolder(this.files, {
      command: this.parsed.command,
      folder,
      name,
      resume,
      absolute: (path) => resolve(path),
      ...request,
    });
    this.unlock?.();
    this.unlock = lockFile(run.paths.lock);
    if (!this.unlock) {
      await run.giveBack();
      throw new LongtailError("E-RUN-015", {
        what: "another process is at work on this run",
        where: run.paths.folder,
        why: "two of them would write over each other's checkpoints",
        fix: "wait until it ends or stop it, or choose another run.name",
      });
    }
    this.folder = run;
    this.log = openLog(run.paths.log, (failure) => this.controller.abort(failure));
    for (const { code, text } of resolved.warnings) this.log.sink({ kind: "warning", code, text });
    await run.writeConfig(
      resolved.sourceText,
      toToml(resolved, [
        `The configuration of the run ${run.name}, with every default written out.`,
        `Repeat it with: longtail ${request.command ?? this.parsed.command} config.resolved.toml --run.name=another`,
      ]),
    );
    return run;
  }

  private interrupt(): void {
    if (this.controller.signal.aborted) return;
    const text = "stopping: the run is saved and ends at the next step (Ctrl-C again stops at once)";
    if (!this.command.endsOnInterrupt) this.emit({ kind: "message", text });
    this.controller.abort(
      new LongtailError("E-RUN-001", {
        what: "interrupted",
        why: "Ctrl-C or a request to terminate",
        fix: this.folder
          ? `continue it with --run.resume=${this.folder.paths.folder} and everything else as before`
          : "run the same command again",
      }),
    );
  }

  private abandon(): void {
    this.progress.close();
    this.log?.close();
    this.terminal.err("stopped at once; the last finished checkpoint is intact\n");
    (this.options.exit ?? ((code: number) => process.exit(code)))(EXIT_AT_ONCE);
  }

  private async fail(error: unknown): Promise<number> {
    const { line, code, id, stack } = describeFailure(error);
    this.log?.sink({ kind: "error", code: id, text: stack ? `${line}\n${stack}` : line });
    this.log?.close();
    if (this.parsed.json) this.streamJson?.({ kind: "error", code: id, text: line });
    this.progress.close();
    this.terminal.err(`${line}\n`);
    if (this.folder?.resumed && NOT_THIS_RUN.test(id)) await this.folder.giveBack().catch(() => {});
    else if (this.folder?.record.state === "running") {
      const state = id === "E-RUN-001" ? "stopped" : "failed";
      // The first error is what the user has to see; a record that cannot be written any more adds nothing to it.
      await this.folder.finish(state, { reason: line }).catch(() => {});
    }
    return code;
  }
}

const listen = (first: () => void, second: () => void) => watchInterrupts({ onFirst: first, onSecond: second });

/** How often the event loop is woken. */
const PULSE_MS = 50;

if ((import.meta as { main?: boolean }).main) {
  // While a device is open, its binding asks for finished work by immediates, and Deno's event loop now and then parks on them
  // until something else wakes it: pauses of a minute were seen at waits for files as well as for the device.
  setInterval(() => {}, PULSE_MS);
  process.exit(await runCommandLine(process.argv.slice(2)));
}
