// One run of the page: the very `runTrain` and `runAlign` of the command line, with the browser in the place of the system. Its
// folder lies in the browser's storage as it would on a disk.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink, RunEvent } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { checkAlignment } from "../../runs/align/checks.ts";
import { type ConfigSources, loadConfig, type ResolvedConfig } from "../../runs/config/load.ts";
import { toToml } from "../../runs/config/toml.ts";
import { unreadKeys } from "../../runs/config/unread.ts";
import type { RunHost } from "../../runs/host.ts";
import { projectSources } from "../../runs/project.ts";
import { openRunFolder, type RunFolder } from "../../runs/run_folder.ts";
import { checkTraining } from "../../runs/train/checks.ts";
import { type Learnt, learntOnDevice } from "../../runs/train/learnt.ts";
import type { Session } from "../../tensor/session.ts";
import type { EngineEvent, RunStatus, StartRequest } from "../protocol.ts";
import { browserFacts } from "./browser_facts.ts";
import { LogWriter } from "./log_writer.ts";
import type { Lookout } from "./onlooker.ts";
import { PageControl } from "./page_control.ts";
import { wireError } from "./wire_error.ts";

/** Name of the configuration text in messages. */
const SOURCE = "config.toml";
/** A checkpoint that was refused: nothing was trained, and the folder belongs to the run that it was. */
const NOT_THIS_RUN = /^E-RUN-01[0-3]$/;

/** The configuration of a request; models are those that come along, so no key can send the page to another host. */
export async function configOf(files: FileStore, request: StartRequest, software: boolean): Promise<ResolvedConfig> {
  const plain = projectSources(files);
  const sources: ConfigSources = {
    ...plain,
    exists: (path) => (path === SOURCE ? Promise.resolve(true) : plain.exists(path)),
    readText: (path) => (path === SOURCE ? Promise.resolve(request.toml) : plain.readText(path)),
  };
  const overrides = [
    { key: "run.name", value: request.name },
    { key: "run.folder", value: "runs" },
    { key: "run.resume", value: request.resume ? "auto" : "no" },
    { key: "log.tensorboard", value: "false" },
    // A software adapter of a browser takes longer to compile variants than they could save.
    ...(software ? [{ key: "device.tuner", value: "off" }] : []),
  ].map((o) => ({ ...o, origin: "the page" }));
  const preset = request.command === "align" ? "embedded" : "lora";
  const resolved = await loadConfig({ source: SOURCE, preset, overrides }, sources);
  if (request.command === "align") checkAlignment(resolved.config);
  else checkTraining(resolved.config);
  return resolved;
}

export interface JobParts {
  files: FileStore;
  request: StartRequest;
  post: (event: EngineEvent) => void;
  /** Shows samples while they take shape. */
  lookout?: Lookout;
}

/** The weights of a run that is paused. */
export interface Paused {
  step: number;
  /** Null where there are none to read, or not any more. */
  read(): Promise<Learnt | null>;
}

export class RunJob {
  readonly request: StartRequest;
  readonly control: PageControl;
  step = 0;
  private status: RunStatus = "starting";
  private readonly files: FileStore;
  private readonly post: (event: EngineEvent) => void;
  private readonly controller = new AbortController();
  private log: LogWriter | null = null;
  private readonly early: RunEvent[] = [];
  private folder: RunFolder | null = null;
  private session: Session | null = null;
  private readonly lookout: Lookout | null;

  constructor({ files, request, post, lookout }: JobParts) {
    this.lookout = lookout ?? null;
    this.files = files;
    this.request = request;
    this.post = post;
    // A run that is being stopped wakes up to save; that is not running again.
    this.control = new PageControl((paused) => {
      if (!this.stopping) this.tell(paused ? "paused" : "running");
    });
  }

  tell(status: RunStatus, error?: unknown): void {
    this.status = status;
    const run = this.request.name;
    this.post({ kind: "status", run, status, step: this.step, ...(error ? { error: wireError(error) } : {}) });
  }

  /** Whether its end was told. */
  get isOver(): boolean {
    return ["finished", "stopped", "failed"].includes(this.status);
  }

  /** Whether it was told to end, by the user or because its log cannot be written. */
  get stopping(): boolean {
    return this.controller.signal.aborted;
  }

  /** Saves at the next update and ends; what is under way before the first update ends at once. */
  stop(): void {
    if (this.stopping) return;
    this.tell("stopping");
    this.controller.abort(
      new LongtailError("E-RUN-001", {
        what: "stopped",
        where: `runs/${this.request.name}`,
        why: "the button Stop was pressed",
        fix: "resume it whenever you like: it goes on from its last checkpoint",
      }),
    );
    this.control.resume();
  }

  /**
   * Runs to the end. Does not throw: how it ended is told as an event and kept in run.json.
   * @param recoverable a lost device is not told as the run's end, because somebody takes it up again; where it was `stopping`
   * nobody does
   * @returns the error where it ended with one
   */
  async run(gpu: Gpu, recoverable = false): Promise<unknown> {
    const { request } = this;
    try {
      const resolved = await configOf(this.files, request, gpu.facts.software);
      const host = this.host(gpu);
      if (this.stopping) throw this.controller.signal.reason;
      this.tell("running");
      for (const { code, text } of unreadKeys(resolved, request.command)) host.emit({ kind: "warning", code, text });
      if (request.command === "align") {
        const { runAlign } = await import("../../runs/align/job.ts");
        await runAlign(gpu, host, resolved);
      } else {
        const { runTrain } = await import("../../runs/train/job.ts");
        await runTrain(gpu, host, resolved);
      }
      await this.log?.flush();
      this.tell("finished");
      return undefined;
    } catch (error) {
      await this.fail(error, recoverable && error instanceof LongtailError && error.code === "E-MEM-002");
      return error;
    }
  }

  /** Tells a run that could not begin. */
  async refuse(error: unknown): Promise<void> {
    await this.fail(error, false);
  }

  private async fail(error: unknown, quietly: boolean): Promise<void> {
    const { code, ...parts } = wireError(error);
    const text = error instanceof LongtailError ? error.message : `${code} ${parts.what}: ${parts.why}`;
    this.emit({ kind: "error", code, text });
    await this.log?.flush();
    const stopped = code === "E-RUN-001";
    if (this.folder?.resumed && NOT_THIS_RUN.test(code)) await this.folder.giveBack().catch(() => {});
    else if (this.folder?.record.state === "running") {
      // The first error is what the user has to see; a record that cannot be written any more adds nothing to it.
      await this.folder.finish(stopped ? "stopped" : "failed", { step: this.step, reason: text }).catch(() => {});
    }
    // Asked for last: Stop may be pressed while the above is written.
    if (!quietly || this.stopping) this.tell(stopped ? "stopped" : "failed", error);
  }

  private readonly emit: EventSink = (event: RunEvent): void => {
    if (event.kind === "metric" || event.kind === "checkpoint") this.step = Math.max(this.step, event.step);
    // The log lies in the run's folder, which the run opens after it has looked at its data.
    if (this.log) this.log.sink(event);
    else this.early.push(event);
  };

  private host(gpu: Gpu): RunHost {
    const { files, controller, request } = this;
    return {
      files,
      emit: this.emit,
      signal: controller.signal,
      openRun: (resolved, wanted) => this.openRun(resolved, wanted.command ?? request.command),
      environment: () => Promise.resolve(browserFacts()),
      availableMemory: () => Promise.resolve(browserFacts().memory.available),
      kernelTables: "kernels",
      deviceBytes: () => Promise.resolve(null),
      control: () => this.control,
      watched: async ({ session }, work) => {
        session.gate = () => this.control.gate(controller.signal);
        this.tellMemory(session);
        this.session = session;
        try {
          return await Promise.race([work(), gpu.lost.then((error) => Promise.reject(error))]);
        } finally {
          this.session = null;
        }
      },
      openSink: null,
      ...(this.lookout ? { onlooker: ({ step, items }) => this.lookout!.onlooker(request.name, step, items) } : {}),
      command: `npx longtail ${request.command} config.toml`,
    };
  }

  private async openRun(resolved: ResolvedConfig, command: string): Promise<RunFolder> {
    const { name, resume } = resolved.config.run;
    const run = await openRunFolder(this.files, { command, folder: "runs", name, resume });
    this.folder = run;
    this.log = new LogWriter(
      this.files,
      run.paths.log,
      (lines) => this.post({ kind: "log", run: name, lines }),
      (error) => this.controller.abort(error),
    );
    for (const event of this.early.splice(0)) this.log.sink(event);
    for (const { code, text } of resolved.warnings) this.emit({ kind: "warning", code, text });
    const heading = [`The configuration of the run ${name}, with every default written out.`];
    await run.writeConfig(resolved.sourceText, toToml(resolved, heading));
    return run;
  }

  /** What the run has learnt, readable as long as it is paused; null while it computes. */
  paused(): Paused | null {
    const { session, step, control } = this;
    if (!session || !control.isPaused) return null;
    return {
      step,
      read: async () => {
        const learnt = await learntOnDevice(session, step);
        // Somebody let it go on meanwhile: some values may be of one update, some of the next.
        return this.step === step ? learnt : null;
      },
    };
  }

  private tellMemory(session: Session): void {
    const { variables, arena, uniforms, bindings, staging } = session.memory();
    const categories = { ...variables, "activations and workspace": arena, uniforms, bindings, staging };
    this.post({ kind: "memory", run: this.request.name, categories });
  }
}
