// Checkpoints of a training run: the trained tensors, everything that the optimizer keeps, and the run's curves. A run that
// is continued from one goes on to the bit.

import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { flatKeys, type Identity, rotateCheckpoints } from "../../training/checkpoint.ts";
import type { Config } from "../config/schema.ts";
import { type PoolGroups, poolGroups, restorePools, savePools, tensorCount } from "../run_checkpoints.ts";
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
      model: { parameters: world.parameters, trained: tensorCount(world.trained), ...this.facts },
    };
  }

  private pools(world: TrainWorld): PoolGroups {
    return poolGroups(world.trained, world.optimizer.state);
  }

  /** @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from */
  async save(world: TrainWorld, state: TrainState): Promise<string> {
    const content = { step: state.step, state, identity: this.identity(world) };
    const path = await savePools(this.files, this.run, world.session, this.pools(world), content, this.emit);
    await rotateCheckpoints(this.files, this.run.paths.checkpoints, this.config.save.keep);
    return path;
  }

  /** Restores the newest whole checkpoint, or the one that the user named; null where the run begins. */
  async restore(world: TrainWorld): Promise<TrainState | null> {
    const { files, run, emit } = this;
    const identity = this.identity(world);
    return (await restorePools(files, run, world.session, this.pools(world), identity, emit)) as TrainState | null;
  }
}
