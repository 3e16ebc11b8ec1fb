// What a run that has not ended has learnt up to now, by the names of its adapter's variables: out of its newest checkpoint, or
// straight from the device of a run that is paused. From the running average where the run keeps one, as its samples are.

import type { FileStore } from "../../base/files.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { loadCheckpoint, newestCheckpoint } from "../../training/checkpoint.ts";

export interface Learnt {
  /** Updates done. */
  step: number;
  values: ReadonlyMap<string, Float32Array>;
}

const AVERAGE = /^average(_\d+)?$/;
const TRAINED = /^trained(_\d+)?$/;
const variableOf = (name: string) => name.replace(/\.average$/, "");

/** @returns null where the folder has no whole checkpoint */
export async function learntInCheckpoint(files: FileStore, folder: string): Promise<Learnt | null> {
  const { newest } = await newestCheckpoint(files, folder);
  if (!newest) return null;
  const checkpoint = await loadCheckpoint(files, newest, newest.manifest.identity);
  try {
    const groups = [...checkpoint.groups].filter(([name]) => AVERAGE.test(name));
    if (groups.length === 0) groups.push(...[...checkpoint.groups].filter(([name]) => TRAINED.test(name)));
    const values = new Map<string, Float32Array>();
    for (const [, file] of groups)
      for (const name of file.names()) values.set(variableOf(name), await file.readF32(name));
    return { step: checkpoint.step, values };
  } finally {
    await checkpoint.close();
  }
}

/** Variables of an open session that `learntOnDevice` reads; none where the run trains no adapter. */
function learntVariables({ pools }: Session): Variable[] {
  const trained = pools.filter(({ category }) => category === "adapter");
  const averages = trained.length > 0 ? pools.filter(({ name }) => AVERAGE.test(name)) : [];
  return (averages.length > 0 ? averages : trained).flatMap(({ variables }) => variables);
}

/** @returns null where the run trains no adapter */
export async function learntOnDevice(session: Session, step: number): Promise<Learnt | null> {
  const variables = learntVariables(session);
  if (variables.length === 0) return null;
  const values = await Promise.all(variables.map(async (v) => [variableOf(v.name), await session.read(v)] as const));
  return { step, values: new Map(values) };
}
