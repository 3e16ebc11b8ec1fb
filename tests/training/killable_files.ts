// Files in memory of a process that can be killed: after a given number of changes nothing more happens, not even the
// cleaning up. A full disk instead fails one write and lives on.

import { LongtailError } from "../../src/base/errors.ts";
import { MemoryFiles } from "../helpers/files.ts";

type Chunks = Parameters<MemoryFiles["writeAtomic"]>[1];

export class KillableFiles extends MemoryFiles {
  /** Changes (writes, renames, removed files) until the process dies. */
  changesLeft = Number.POSITIVE_INFINITY;
  /** Writes until one finds the disk full. */
  writesLeft = Number.POSITIVE_INFINITY;
  /** All changes so far. */
  changes = 0;

  #change(): void {
    if (this.changesLeft-- <= 0) throw new Error("killed");
    this.changes++;
  }

  override async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    if (this.writesLeft-- <= 0) throw new LongtailError("E-ENV-020", { what: "the disk is full", where: path });
    if (this.changesLeft <= 0) throw new Error("killed");
    await super.writeAtomic(path, chunks);
    this.#change();
  }

  /** A folder moves whole, onto an empty place only, as on a disk. */
  override async rename(from: string, to: string): Promise<void> {
    this.#change();
    if (this.content.has(from)) return await super.rename(from, to);
    if (await this.exists(to)) throw new Error(`${to} exists`);
    if (!(await this.exists(from))) throw new Error(`${from} does not exist`);
    for (const [name, bytes] of [...this.content]) {
      if (!name.startsWith(`${from}/`)) continue;
      this.content.set(to + name.slice(from.length), bytes);
      this.content.delete(name);
    }
  }

  /** Files of a folder go one by one: a kill leaves some of them. */
  override async remove(path: string): Promise<void> {
    for (const name of [...this.content.keys()]) {
      if (name !== path && !name.startsWith(`${path}/`)) continue;
      this.#change();
      this.content.delete(name);
    }
  }
}
