// What lies in the browser's storage, for the panel that shows and clears it.

import type { FileStore } from "../../base/files.ts";
import { readRecord } from "../../runs/run_folder.ts";
import { ASSET_CACHE } from "../files/assets.ts";
import { folderAt, segmentsOf, storageEstimate } from "../files/opfs_names.ts";
import type { StorageFacts, StoredRun } from "../protocol.ts";

/** Bytes and files below a folder of the browser's storage; zeros where it does not exist. */
async function sizeOf(path: string): Promise<{ bytes: number; pictures: number }> {
  const total = { bytes: 0, pictures: 0 };
  const walk = async (folder: FileSystemDirectoryHandle): Promise<void> => {
    for await (const [name, entry] of folder.entries()) {
      if (entry.kind === "directory") await walk(entry as FileSystemDirectoryHandle);
      else {
        total.bytes += (await (entry as FileSystemFileHandle).getFile().catch(() => null))?.size ?? 0;
        if (/\.(png|jpe?g)$/i.test(name)) total.pictures++;
      }
    }
  };
  try {
    await walk(await folderAt(await navigator.storage.getDirectory(), segmentsOf(path)));
  } catch {
    // Gone meanwhile, or never there.
  }
  return total;
}

/** @param stored whether the browser gives storage at all */
export async function storageFacts(files: FileStore, stored: boolean): Promise<StorageFacts> {
  const runs: StoredRun[] = [];
  for (const name of await files.list("runs")) {
    const record = await readRecord(files, `runs/${name}`);
    if (!record) continue;
    const { command, state, started, step = 0 } = record;
    const { bytes } = stored ? await sizeOf(`runs/${name}`) : { bytes: 0 };
    runs.push({ name, command, state, started, bytes, step: Math.max(step, await lastCheckpoint(files, name)) });
  }
  const sets = [];
  for (const name of await files.list("pictures")) sets.push({ name, ...(await sizeOf(`pictures/${name}`)) });
  const weightsBytes = stored ? (await sizeOf(ASSET_CACHE)).bytes : 0;
  const { quota, usage } = await storageEstimate();
  const known = runs.reduce((n, run) => n + run.bytes, 0) + sets.reduce((n, set) => n + set.bytes, 0) + weightsBytes;
  return {
    runs,
    sets,
    weightsBytes,
    otherBytes: Math.max(0, (usage ?? known) - known),
    quota: quota ?? null,
    usage: usage ?? null,
    persisted: (await navigator.storage?.persisted?.()) ?? false,
  };
}

/** Updates of the newest checkpoint: a tab that crashed has not written how far it came. */
async function lastCheckpoint(files: FileStore, run: string): Promise<number> {
  const steps = (await files.list(`runs/${run}/ckpt`)).map((name) => Number(/^step-(\d+)$/.exec(name)?.[1] ?? 0));
  return Math.max(0, ...steps);
}
