// What saving and continuing a run have in common, whatever it trains: the trained pools and the optimizer's state from the
// device into a checkpoint of the run folder and back, to the bit.

import { LongtailError } from "../base/errors.ts";
import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import type { MappedValues, Session } from "../tensor/session.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import {
  type Checkpoint,
  checkpointEntry,
  type Identity,
  loadCheckpoint,
  newestCheckpoint,
  saveCheckpoint,
} from "../training/checkpoint.ts";
import type { RunFolder } from "./run_folder.ts";

/** Pools by the name of their group of tensors in a checkpoint. */
export type PoolGroups = Readonly<Record<string, Pool>>;

/** `trained`, and `trained_1` for a second pool such as DoRA's magnitudes, beside the optimizer's own groups. */
export function poolGroups(trained: readonly Pool[], optimizerState: PoolGroups): PoolGroups {
  const own = trained.map((pool, i) => [i === 0 ? "trained" : `trained_${i}`, pool] as const);
  return { ...Object.fromEntries(own), ...optimizerState };
}

/** Tensors of all pools. */
export const tensorCount = (pools: readonly Pool[]): number => pools.reduce((n, pool) => n + pool.variables.length, 0);

/**
 * Saves pools and state as the checkpoint of a step and tells it; nothing half-written can be picked up later.
 * @returns the checkpoint's path
 * @throws LongtailError E-NUM-002 where a value is not finite: a checkpoint holds only what a run can go on from
 */
export async function savePools(
  files: FileStore,
  run: RunFolder,
  session: Session,
  pools: PoolGroups,
  content: { step: number; state: unknown; identity: Identity },
  emit: EventSink,
): Promise<string> {
  const { step, state, identity } = content;
  const load = async (v: Variable, values: MappedValues): Promise<MappedValues> => {
    if (v.dtype === "u32" || allFinite(values.view)) return values;
    values.release();
    throw leftRange(step, v.name);
  };
  const groups = Object.fromEntries(
    Object.entries(pools).map(([name, pool]) => {
      const read = readerOf(session, pool);
      return [name, pool.variables.map((v) => ({ ...checkpointEntry(v), load: async () => load(v, await read(v)) }))];
    }),
  );
  const folder = run.paths.checkpoints;
  const path = await saveCheckpoint(files, folder, { step, groups, state: state as never, identity });
  const bytes = Object.values(pools).reduce((n, pool) => n + pool.bytes, 0);
  emit({ kind: "checkpoint", step, path, bytes });
  return path;
}

/**
 * Pools up to this size, a LoRA's, are read segment by segment into the host's memory; larger ones tensor by tensor, because the
 * buffer that a read goes through stays on the device and is in no plan.
 */
const READ_WHOLE = 8 * 1024 * 1024;

function readerOf(session: Session, pool: Pool): (v: Variable) => Promise<MappedValues> {
  if (pool.bytes > READ_WHOLE) return (v) => session.map(v);
  const segments = new Map<number, Promise<ArrayBuffer>>();
  return async (v) => {
    const segment = segments.get(v.segment) ?? session.readSegment(pool, v.segment);
    segments.set(v.segment, segment);
    const View = { f32: Float32Array, u32: Uint32Array, f16: Uint16Array }[v.dtype];
    return { view: new View(await segment, v.offset, v.size), release: () => {} };
  };
}

/**
 * Restores pools from the newest whole checkpoint, or from the one that the user named, where the run is continued.
 * @returns the state that was saved with it; null where the run begins
 */
export async function restorePools(
  files: FileStore,
  run: RunFolder,
  session: Session,
  pools: PoolGroups,
  identity: Identity,
  emit: EventSink,
): Promise<unknown> {
  if (!run.resumed) return null;
  const { newest, skipped } = await newestCheckpoint(files, run.paths.checkpoints);
  for (const { path, reason } of skipped) {
    emit({ kind: "warning", code: "E-RUN-014", text: `checkpoint ${path} was skipped: ${reason}` });
  }
  const from = run.checkpoint ?? newest;
  if (!from) return null;
  const checkpoint = await loadCheckpoint(files, from, identity);
  try {
    await restoreFrom(checkpoint, session, pools);
  } finally {
    await checkpoint.close();
  }
  emit({ kind: "message", text: `continuing from ${checkpoint.path}, ${checkpoint.step} updates done` });
  return checkpoint.state;
}

/** Hands the tensors of a checkpoint to the device. */
export async function restoreFrom(checkpoint: Checkpoint, session: Session, pools: PoolGroups): Promise<void> {
  const bytes = Object.values(pools).reduce((n, pool) => n + pool.bytes, 0);
  await session.upload(bytes, async (write) => {
    for (const [name, pool] of Object.entries(pools)) {
      const byName = new Map(pool.variables.map((v) => [v.name, v]));
      const expected = pool.variables.map(checkpointEntry);
      await checkpoint.restore(name, expected, (tensor, values) => write(byName.get(tensor)!, values));
    }
  });
}

/** True where no value is NaN or infinite. */
export function allFinite(values: ArrayLike<number>): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

/** The error of weights or moments that are no numbers any more. */
export function leftRange(step: number, where: string): LongtailError {
  return new LongtailError("E-NUM-002", {
    what: `after update ${step} not all trained values are finite numbers`,
    where,
    why: "the learning rate was too high for 32-bit floats; such values are not saved, and earlier checkpoints are unchanged",
    fix: "start again with a lower optim.lr, or continue from an earlier checkpoint",
  });
}
