// Checkpoints of a training run: the trained tensors, everything that the optimizer keeps, and the run's curves. A run that
// is continued from one goes on to the bit.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import {
  checkpointEntry,
  flatKeys,
  type Identity,
  loadCheckpoint,
  newestCheckpoint,
  rotateCheckpoints,
  saveCheckpoint,
} from "../../training/checkpoint.ts";
import type { Config } from "../config/schema.ts";
import type { RunFolder } from "../run_folder.ts";
import type { TrainState } from "./state.ts";
import type { TrainWorld } from "./world.ts";

/** Sections and keys that may change when a run goes on; [align] and [eval] do not matter to a training run at all. */
const FREE_KEYS = [
  "run.",
  "log.",
  "save.",
  "sample.",
  "align.",
  "eval.",
  "device.",
  "train.steps",
  "train.validate_every",
  "train.validation_pictures",
  "data.cache",
  "data.items",
  "data.pictures",
];

/** Names of the trained pools in a checkpoint: `trained`, and `trained_1` for DoRA's magnitudes. */
export function trainedGroups(pools: readonly Pool[]): Record<string, Pool> {
  return Object.fromEntries(pools.map((pool, i) => [i === 0 ? "trained" : `trained_${i}`, pool] as const));
}

export class TrainStore {
  private readonly files: FileStore;
  private readonly run: RunFolder;
  private readonly config: Config;
  private readonly emit: EventSink;
  private readonly facts: Record<string, string>;

  /** @param facts what the run is made of besides its configuration: kernels, the pictures' hashes */
  constructor(files: FileStore, run: RunFolder, config: Config, emit: EventSink, facts: Record<string, string>) {
    this.files = files;
    this.run = run;
    this.config = config;
    this.emit = emit;
    this.facts = facts;
  }

  private identity(world: TrainWorld): Identity {
    // Where the schedule depends on the length, a run of another length has other rates from the start.
    const fixed = this.config.schedule.kind === "constant" ? [] : ["train.steps"];
    return {
      config: flatKeys(
        this.config as unknown as Record<string, unknown>,
        (key) => !fixed.includes(key) && FREE_KEYS.some((free) => key.startsWith(free)),
      ),
      model: { parameters: world.parameters, trained: trainedCount(world), ...this.facts },
    };
  }

  private pools(world: TrainWorld): Record<string, Pool> {
    return { ...trainedGroups(world.trained), ...world.optimizer.state };
  }

  /** @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from */
  async save(world: TrainWorld, state: TrainState): Promise<string> {
    const load = async (v: Variable): Promise<Float32Array | Uint32Array> => {
      if (v.dtype === "u32") return new Uint32Array(await world.session.readBits(v));
      const values = await world.session.read(v);
      if (!values.every(Number.isFinite)) throw notFinite(state.step, v.name);
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
    await rotateCheckpoints(this.files, folder, this.config.save.keep);
    const bytes = Object.values(this.pools(world)).reduce((n, pool) => n + pool.bytes, 0);
    this.emit({ kind: "checkpoint", step: state.step, path, bytes });
    return path;
  }

  /** Restores the newest whole checkpoint, or the one that the user named; null where the run begins. */
  async restore(world: TrainWorld): Promise<TrainState | null> {
    if (!this.run.resumed) return null;
    const { newest, skipped } = await newestCheckpoint(this.files, this.run.paths.checkpoints);
    for (const { path, reason } of skipped) {
      this.emit({ kind: "warning", code: "E-RUN-014", text: `checkpoint ${path} was skipped: ${reason}` });
    }
    const from = this.run.checkpoint ?? newest;
    if (!from) return null;
    const checkpoint = await loadCheckpoint(this.files, from, this.identity(world));
    try {
      for (const [name, pool] of Object.entries(this.pools(world))) {
        const byName = new Map(pool.variables.map((v) => [v.name, v]));
        const expected = pool.variables.map(checkpointEntry);
        await checkpoint.restore(name, expected, (tensor, values) => world.session.write(byName.get(tensor)!, values));
      }
    } finally {
      await checkpoint.close();
    }
    this.emit({ kind: "message", text: `continuing from ${checkpoint.path}, ${checkpoint.step} updates done` });
    return checkpoint.state as unknown as TrainState;
  }
}

const trainedCount = (world: TrainWorld) => world.trained.reduce((n, pool) => n + pool.variables.length, 0);

function notFinite(step: number, where: string): LongtailError {
  return new LongtailError("E-NUM-002", {
    what: `after update ${step} not all trained values are finite numbers`,
    where,
    why: "the learning rate was too high for 32-bit floats; such values are not saved, and earlier checkpoints are unchanged",
    fix: "start again with a lower optim.lr",
  });
}
