// What a run keeps on disk while it goes on: checkpoints with exact resume, and the sample pictures.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { join } from "../../base/paths.ts";
import type { GuardState } from "../../evaluation/guards.ts";
import type { EvaluationPoint, UpdatePoint } from "../../evaluation/report_data.ts";
import { encodePng, fromPlanes } from "../../formats/png.ts";
import {
  bestCheckpoint,
  flatKeys,
  type Identity,
  markBest,
  newestCheckpoint,
  rotateCheckpoints,
} from "../../training/checkpoint.ts";
import type { Drawn } from "../../training/drawing.ts";
import type { Config } from "../config/schema.ts";
import { type PoolGroups, poolGroups, restorePools, savePools, tensorCount } from "../run_checkpoints.ts";
import type { RunFolder } from "../run_folder.ts";
import type { Judged } from "./judged.ts";
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
  "align.guard.pictures",
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
      config: flatKeys(
        this.config as unknown as Record<string, unknown>,
        // Where the schedule depends on the length, a run of another length has other rates from the start.
        (key) =>
          (key !== "align.steps" || this.config.schedule.kind === "constant") &&
          FREE_KEYS.some((free) => key.startsWith(free)),
      ),
      model: { parameters: world.parameters, trained: tensorCount(world.trained), kernels: this.kernels },
    };
  }

  private pools(world: World): PoolGroups {
    return poolGroups(world.trained, world.trainer!.optimizer.state);
  }

  /** @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from */
  async save(world: World, state: RunState): Promise<void> {
    const folder = this.run.paths.checkpoints;
    const content = { step: state.step, state, identity: this.identity(world) };
    await savePools(this.files, this.run, world.session, this.pools(world), content, this.emit);
    const { best } = state.guard;
    if (best && best.step === state.step && state.guard.level !== "alarm") {
      await markBest(this.files, folder, state.step, `${best.measure} ${best.value.toFixed(4)}`);
    }
    await rotateCheckpoints(this.files, folder, this.config.save.keep);
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
    const { files, run, emit } = this;
    return (await restorePools(
      files,
      run,
      world.session,
      this.pools(world),
      this.identity(world),
      emit,
    )) as RunState | null;
  }

  /** Path of the checkpoint that guard rails marked best, if any. */
  best(): Promise<{ path: string; step: number; reason: string } | null> {
    return bestCheckpoint(this.files, this.run.paths.checkpoints);
  }

  /**
   * Writes the judged pictures of a step as PNG files with their parameters inside.
   * @param judgeOf the judge's score of a picture; undefined where there is no judge
   */
  async saveSamples(
    step: number,
    judged: readonly Judged[],
    drawn: readonly (readonly Drawn[])[],
    judgeOf: (judged: Judged, drawn: Drawn) => number | undefined,
  ): Promise<void> {
    const seed = this.config.eval.seed;
    const side = Math.sqrt(drawn[0]![0]!.picture.length / 3);
    for (const [i, j] of judged.entries()) {
      for (const [p, { prompt, index }] of j.pictures.entries()) {
        const path = this.run.paths.picture(step, index, seed);
        if (await this.files.exists(path)) continue;
        const text = { prompt, seed: String(seed), picture: String(index), step: String(step), software: "longtail" };
        const picture = drawn[i]![p]!;
        await this.files.writeAtomic(path, encodePng(fromPlanes(picture.picture, side, side, text)));
        const judge = judgeOf(j, picture);
        this.emit({
          kind: "sample",
          step,
          path: join("samples", path.split("samples/").at(-1)!),
          item: j.item.item,
          seed,
          ...(judge === undefined ? {} : { judge }),
        });
      }
    }
  }
}
