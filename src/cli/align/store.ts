// What a run keeps on disk while it goes on: checkpoints with exact resume, and the sample pictures.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { GuardState } from "../../evaluation/guards.ts";
import type { EvaluationPoint, UpdatePoint } from "../../evaluation/report_data.ts";
import { encodePng, fromPlanes } from "../../formats/png.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import {
  bestCheckpoint,
  checkpointEntry,
  flatKeys,
  type Identity,
  loadCheckpoint,
  markBest,
  newestCheckpoint,
  rotateCheckpoints,
  saveCheckpoint,
} from "../../training/checkpoint.ts";
import type { Drawn } from "../../training/drawing.ts";
import type { Config } from "../config/schema.ts";
import type { RunFolder } from "../run_folder.ts";
import { trainedGroups } from "../train/store.ts";
import type { Judged } from "./protocol.ts";
import type { World } from "./world.ts";

/** Everything besides tensors that decides how a run goes on. */
export interface RunState {
  /** Updates done. */
  step: number;
  /** Updates planned; the ladder's choice is kept here, so that a resumed run ends where it meant to. */
  steps: number;
  updates: UpdatePoint[];
  evaluations: EvaluationPoint[];
  guard: GuardState;
}

/** Keys that may change when a run goes on: where it lies, what it prints and keeps, and how long it is. */
const FREE_KEYS = [
  "run.",
  "log.",
  "save.",
  "sample.",
  "align.steps",
  "align.ladder",
  "align.stop_after_alarm",
  "device.",
];

export class RunStore {
  private readonly files: FileStore;
  private readonly run: RunFolder;
  private readonly config: Config;
  private readonly emit: EventSink;
  private readonly kernels: Record<string, string>;

  constructor(files: FileStore, run: RunFolder, config: Config, emit: EventSink, kernels: Record<string, string>) {
    this.files = files;
    this.run = run;
    this.config = config;
    this.emit = emit;
    this.kernels = kernels;
  }

  private identity(world: World): Identity {
    return {
      config: flatKeys(this.config as unknown as Record<string, unknown>, (key) =>
        FREE_KEYS.some((free) => key.startsWith(free)),
      ),
      model: { parameters: world.parameters, trained: trainedTensors(world), kernels: this.kernels },
    };
  }

  private pools(world: World): Record<string, Pool> {
    return { ...trainedGroups(world.trained), ...world.trainer!.optimizer.state };
  }

  /**
   * Saves weights, moments and state; nothing half-written can be picked up later.
   * @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from
   */
  async save(world: World, state: RunState): Promise<void> {
    const load = async (v: Variable): Promise<Float32Array | Uint32Array> => {
      if (v.dtype === "u32") return new Uint32Array(await world.session.readBits(v));
      const values = await world.session.read(v);
      if (!values.every(Number.isFinite)) throw leftRange(state.step, v.name);
      return values;
    };
    const groups = Object.fromEntries(
      Object.entries(this.pools(world)).map(([name, pool]) => [
        name,
        pool.variables.map((v) => ({ ...checkpointEntry(v), load: () => load(v) })),
      ]),
    );
    const folder = this.run.paths.checkpoints;
    const path = await saveCheckpoint(this.files, folder, {
      step: state.step,
      groups,
      state: state as never,
      identity: this.identity(world),
    });
    const { best } = state.guard;
    if (best && best.step === state.step && state.guard.level !== "alarm") {
      await markBest(this.files, folder, state.step, `${best.measure} ${best.value.toFixed(4)}`);
    }
    await rotateCheckpoints(this.files, folder, this.config.save.keep);
    const bytes = Object.values(this.pools(world)).reduce((n, pool) => n + pool.bytes, 0);
    this.emit({ kind: "checkpoint", step: state.step, path, bytes });
  }

  /**
   * After an update that was refused: makes sure that the weights before it are on the disk, without touching a checkpoint
   * that is there already. Returns the path of the newest whole checkpoint, or null where no good weights are left.
   */
  async keepLastGood(world: World, state: RunState): Promise<string | null> {
    const folder = this.run.paths.checkpoints;
    const { newest } = await newestCheckpoint(this.files, folder);
    if (newest?.step === state.step) return newest.path;
    try {
      await this.save(world, state);
      return this.run.paths.checkpoint(state.step);
    } catch (error) {
      if (!(error instanceof LongtailError && error.code === "E-NUM-002")) throw error;
      return newest?.path ?? null;
    }
  }

  /** Restores the newest whole checkpoint (or the one that the user named) where this run is continued. */
  async restore(world: World): Promise<RunState | null> {
    if (!this.run.resumed) return null;
    const folder = this.run.paths.checkpoints;
    const { newest, skipped } = await newestCheckpoint(this.files, folder);
    for (const { path, reason } of skipped) {
      this.emit({ kind: "warning", code: "E-RUN-014", text: `checkpoint ${path} was skipped: ${reason}` });
    }
    const from = this.run.checkpoint ?? newest;
    if (!from) return null;
    const checkpoint = await loadCheckpoint(this.files, from, this.identity(world));
    for (const [name, pool] of Object.entries(this.pools(world))) {
      const byName = new Map(pool.variables.map((v) => [v.name, v]));
      const expected = pool.variables.map(checkpointEntry);
      await checkpoint.restore(name, expected, (tensor, values) => world.session.write(byName.get(tensor)!, values));
    }
    await checkpoint.close();
    this.emit({ kind: "message", text: `continuing from ${checkpoint.path}, ${checkpoint.step} updates done` });
    return checkpoint.state as unknown as RunState;
  }

  /** Path of the checkpoint that guard rails marked best, if any. */
  best(): Promise<{ path: string; step: number; reason: string } | null> {
    return bestCheckpoint(this.files, this.run.paths.checkpoints);
  }

  /** Writes the judged pictures of a step as PNG files with their parameters inside. */
  async saveSamples(step: number, judged: readonly Judged[], drawn: readonly (readonly Drawn[])[]): Promise<void> {
    const seed = this.config.eval.seed;
    const side = Math.sqrt(drawn[0]![0]!.picture.length / 3);
    for (const [i, j] of judged.entries()) {
      for (const [p, { prompt, index }] of j.pictures.entries()) {
        const path = this.run.paths.picture(step, index, seed);
        if (await this.files.exists(path)) continue;
        const text = { prompt, seed: String(seed), picture: String(index), step: String(step), software: "longtail" };
        await this.files.writeAtomic(path, encodePng(fromPlanes(drawn[i]![p]!.picture, side, side, text)));
        this.emit({
          kind: "sample",
          step,
          path: join("samples", path.split("samples/").at(-1)!),
          item: j.item.item,
          seed,
        });
      }
    }
  }
}

const trainedTensors = (world: World) => world.trained.reduce((n, pool) => n + pool.variables.length, 0);

/** The error of weights or moments that are no numbers any more. */
export function leftRange(step: number, where: string): LongtailError {
  return new LongtailError("E-NUM-002", {
    what: `after update ${step} not all weights are finite numbers`,
    where,
    why: "the learning rate was too high for 32-bit floats; such weights are not saved, and earlier checkpoints are unchanged",
    fix: "start again with a lower optim.lr",
  });
}
