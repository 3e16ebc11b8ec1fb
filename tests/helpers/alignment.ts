// A small alignment of the embedded model as the command line puts it together (configuration, world, run folder, store,
// `runAlignment`), on the test device: for tests of what a run leaves on the disk and in its weights.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RunEvent } from "../../src/base/events.ts";
import type { FileStore } from "../../src/base/files.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { StreamOptions } from "../../src/models/pipeline.ts";
import { availableMemory } from "../../src/platform/environment.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { loadItems } from "../../src/runs/align/items.ts";
import { judgedItems } from "../../src/runs/align/judged.ts";
import { type AlignInputs, type AlignOutcome, runAlignment } from "../../src/runs/align/run.ts";
import { RunStore } from "../../src/runs/align/store.ts";
import { encodeTexts, type RunTexts } from "../../src/runs/align/texts.ts";
import { buildWorld, openWorld, type World } from "../../src/runs/align/world.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { adapterStreams, chooseOffload } from "../../src/runs/offload.ts";
import { Phases } from "../../src/runs/phases.ts";
import { projectSources } from "../../src/runs/project.ts";
import { openRunFolder, type RunFolder } from "../../src/runs/run_folder.ts";
import { FileControl } from "../../src/runs/train/control.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Pool } from "../../src/tensor/variable.ts";
import { EncodingCache } from "../../src/training/encoding_cache.ts";
import { testGpu } from "./gpu.ts";

/** Settings under which a run is seconds of work. */
const SMALL: Record<string, string | boolean> = {
  "align.batch": "1",
  "align.rollout_steps": "2",
  "align.steps": "3",
  "align.focus": "2",
  "align.guard.every": "0",
  "align.guard.items": "2",
  "device.tuner": "off",
  "eval.batch": "2",
  "eval.head_items": "0",
  "eval.judge": "none",
  "eval.pictures": "1",
  "eval.steps": "1",
  "save.every": "0",
  "schedule.warmup": "0",
};

export type Changes = Record<string, string | boolean>;

export async function smallConfig(changes: Changes = {}): Promise<Config> {
  const overrides = Object.entries({ ...SMALL, ...changes }).map(([key, value]) => ({ key, value }));
  return (await loadConfig({ source: "embedded", overrides }, projectSources(new DiskFiles()))).config;
}

export interface RunOptions {
  /** Other values of keys that do not change the plans (steps, save.every). */
  changes?: Changes;
  signal?: AbortSignal;
  files?: FileStore;
  onEvent?: (event: RunEvent) => void;
}

/** A world that stays open for several runs; every run begins with the base weights. */
export class Bench {
  readonly gpu: Gpu;
  readonly world: World;
  readonly folder: string;
  readonly events: RunEvent[] = [];
  run: RunFolder | null = null;
  private readonly prompts = new EncodingCache(new DiskFiles(), null);
  private readonly changes: Changes;
  private start: Uint32Array[] = [];

  private constructor(gpu: Gpu, world: World, changes: Changes) {
    this.gpu = gpu;
    this.world = world;
    this.changes = changes;
    this.folder = mkdtempSync(join(tmpdir(), "longtail-alignment-"));
  }

  static async open(changes: Changes = {}, gpu?: Gpu): Promise<Bench> {
    const device = gpu ?? (await testGpu());
    const config = await smallConfig(changes);
    const build = (stream: StreamOptions | null) =>
      buildWorld(new DiskFiles(), config, targetOf(device), { train: true, stream });
    const { stream } = await chooseOffload(
      config,
      { canStream: adapterStreams(config), available: availableMemory },
      build,
    );
    const world = await build(stream);
    const bench = new Bench(device, world, changes);
    await openWorld(world, device, config, () => {});
    bench.start = await bench.bits();
    return bench;
  }

  /** Base weights, a fresh adapter and empty moments, as `openWorld` left them, or garbage everywhere. */
  reset(to: "start" | "garbage" = "start"): void {
    const variables = this.pools.flatMap((pool) => pool.variables);
    for (const [i, v] of variables.entries()) {
      const garbage = to === "garbage" ? new Uint32Array(v.size).fill(0x3e000001) : this.start[i]!;
      this.world.session.write(v, garbage);
    }
  }

  /** What a checkpoint holds: trained tensors, first and second moments. */
  get pools(): Pool[] {
    return [...this.world.trained, ...Object.values(this.world.trainer!.optimizer.state)];
  }

  /** The bits of all pools, in order. */
  async bits(): Promise<Uint32Array[]> {
    const all: Uint32Array[] = [];
    for (const pool of this.pools) {
      for (const v of pool.variables) all.push(new Uint32Array(await this.world.session.readBits(v)));
    }
    return all;
  }

  /** The texts of a run, as `align` encodes them before it opens its world. */
  async texts(config: Config): Promise<RunTexts> {
    const files = new DiskFiles();
    const { items } = await loadItems(files, config);
    return await encodeTexts({
      files,
      config,
      gpu: this.gpu,
      items,
      judged: judgedItems(config, items),
      stored: null,
      emit: () => {},
      phases: new Phases(() => {}),
      signal: new AbortController().signal,
      cache: this.prompts,
    });
  }

  /** Runs or continues the run `name`, as `align` does after its world is open. */
  async align(name: string, options: RunOptions = {}): Promise<AlignOutcome> {
    const files = options.files ?? new DiskFiles();
    const config = await smallConfig({ ...this.changes, ...options.changes });
    const { items, data } = await loadItems(files, config);
    this.run = await openRunFolder(files, { command: "align", folder: this.folder, name, resume: "auto" });
    const emit = (event: RunEvent) => {
      this.events.push(event);
      options.onEvent?.(event);
    };
    const inputs: AlignInputs = {
      files,
      config,
      world: this.world,
      items,
      texts: await this.texts(config),
      data,
      emit,
      signal: options.signal ?? new AbortController().signal,
      store: new RunStore(files, this.run, config, emit, {}),
      run: this.run.paths.folder,
      control: new FileControl(files, this.run.paths.folder, emit),
      chooseSteps: () => Promise.reject(new Error("the number of updates is given")),
    };
    return await runAlignment(inputs);
  }

  close(): void {
    this.world.session.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Index and place of the first difference, or null: a plain comparison of millions of words is what makes this fast. */
export function firstDifference(a: readonly Uint32Array[], b: readonly Uint32Array[]): string | null {
  if (a.length !== b.length) return `${a.length} tensors and ${b.length}`;
  for (const [i, x] of a.entries()) {
    const y = b[i]!;
    if (x.length !== y.length) return `tensor ${i}: ${x.length} values and ${y.length}`;
    for (let k = 0; k < x.length; k++) if (x[k] !== y[k]) return `tensor ${i}, value ${k}`;
  }
  return null;
}
