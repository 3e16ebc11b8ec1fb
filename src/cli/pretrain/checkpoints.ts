// Checkpoints of a pretraining job, from which it goes on to the bit: weights, optimizer state, averages and the step. What
// a step draws is a function of its number, so nothing else has to be kept.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { allFinite, restoreFrom } from "../../runs/run_checkpoints.ts";
import type { MappedValues, Session } from "../../tensor/session.ts";
import type { KernelChoices } from "../../tensor/tuner.ts";
import type { Variable } from "../../tensor/variable.ts";
import {
  checkpointEntry,
  flatKeys,
  type Identity,
  loadCheckpoint,
  newestCheckpoint,
  rotateCheckpoints,
  saveCheckpoint,
} from "../../training/checkpoint.ts";
import type { PretrainJob } from "../../training/pretrain/jobs.ts";
import type { PretrainSettings } from "../../training/pretrain/recipes.ts";

/** Checkpoints of a job that are kept. */
const KEPT = 2;

export class JobCheckpoints {
  private readonly files: FileStore;
  private readonly folder: string;
  private readonly session: Session;
  private readonly job: PretrainJob;
  private readonly identity: Identity;
  private readonly emit: EventSink;

  constructor(
    files: FileStore,
    folder: string,
    session: Session,
    job: PretrainJob,
    settings: PretrainSettings,
    kernels: KernelChoices,
    emit: EventSink,
  ) {
    this.files = files;
    this.folder = folder;
    this.session = session;
    this.job = job;
    this.emit = emit;
    const { itemStride, imageSize, clipLength, t5Length, latentScale, latentShift } = settings;
    const config = { itemStride, imageSize, clipLength, t5Length, latentScale, latentShift, ...settings[job.part] };
    this.identity = { config: flatKeys(config), model: { part: job.part, kernels } };
  }

  /** @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from */
  async save(step: number): Promise<void> {
    const load = async (variable: Variable): Promise<MappedValues> => {
      const values = await this.session.map(variable);
      if (allFinite(values.view)) return values;
      values.release();
      throw new LongtailError("E-NUM-002", {
        what: `after step ${step} not all weights are finite numbers`,
        where: variable.name,
        why: "the learning rate was too high; such weights are not saved, and earlier checkpoints are unchanged",
        fix: "start again with a lower --rate",
      });
    };
    const { pools } = this.job.loop;
    const groups = Object.fromEntries(
      Object.entries(pools).map(([name, pool]) => [
        name,
        pool.variables.map((v) => ({ ...checkpointEntry(v), load: () => load(v) })),
      ]),
    );
    const path = await saveCheckpoint(this.files, this.folder, {
      step,
      groups,
      state: { step },
      identity: this.identity,
    });
    await rotateCheckpoints(this.files, this.folder, KEPT);
    const bytes = Object.values(pools).reduce((n, pool) => n + pool.bytes, 0);
    this.emit({ kind: "checkpoint", step, path, bytes });
  }

  /** Restores the newest whole checkpoint and returns its step; 0 where there is none. */
  async restore(): Promise<number> {
    const { newest, skipped } = await newestCheckpoint(this.files, this.folder);
    for (const { path, reason } of skipped) {
      this.emit({ kind: "warning", code: "E-RUN-014", text: `checkpoint ${path} was skipped: ${reason}` });
    }
    if (!newest) return 0;
    const checkpoint = await loadCheckpoint(this.files, newest, this.identity);
    await restoreFrom(checkpoint, this.session, this.job.loop.pools);
    await checkpoint.close();
    this.emit({ kind: "message", text: `${this.job.part}: continuing from ${newest.path}` });
    return newest.step;
  }
}
