// Moving in the browser's storage, which moves single files at best: a folder goes file by file, and where files cannot be moved
// either they are copied. A record of the move is written first, and the next start finishes what a crash cut off, so that
// after it the whole folder is at one place and nothing of it at the other.

import { copyInto, moved, syncHandle, writeAll } from "./opfs_handles.ts";
import { encodeName, folderAt, isMissing, segmentsOf } from "./opfs_names.ts";

export interface Move {
  from: string;
  to: string;
}

/** Moves files and folders below `root`; paths are plain ones. */
export class Mover {
  readonly #root: FileSystemDirectoryHandle;
  readonly #system: FileSystemDirectoryHandle;
  readonly #canMove: boolean;

  /** @param canMove false copies instead of moving, as in a browser that cannot move files */
  constructor(root: FileSystemDirectoryHandle, system: FileSystemDirectoryHandle, canMove: boolean) {
    this.#root = root;
    this.#system = system;
    this.#canMove = canMove;
  }

  /** Moves a file onto a missing or another file, in one step as far as anybody sees who goes through the record. */
  async moveFile(move: Move, record: string): Promise<void> {
    if (this.#canMove) await this.#file(move);
    else {
      await this.#recorded(
        move,
        record,
        () => this.#file(move),
        async () => {},
      );
    }
  }

  /** Moves a folder onto a missing or empty place. Where it fails without a crash, what was moved goes back. */
  async moveFolder(move: Move, record: string): Promise<void> {
    await this.#recorded(
      move,
      record,
      () => this.#folder(move),
      () => this.#folder({ from: move.to, to: move.from }),
    );
  }

  /** Finishes a move of which a record was found; a record that is cut off belongs to a move that had not begun. */
  async finish(record: string): Promise<Move | null> {
    let move: Move;
    try {
      move = JSON.parse(await (await (await this.#system.getFileHandle(record)).getFile()).text()) as Move;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      await this.#system.removeEntry(record);
      return null;
    }
    const kind = await this.kindOf(move.from);
    if (kind === "directory") await this.#folder(move);
    else if (kind === "file") await this.#file(move);
    await this.#system.removeEntry(record);
    return move;
  }

  /** What stands at a path. */
  async kindOf(path: string): Promise<"file" | "directory" | null> {
    const segments = segmentsOf(path);
    const name = segments.pop();
    if (name === undefined) return "directory";
    try {
      const folder = await folderAt(this.#root, segments);
      try {
        await folder.getFileHandle(encodeName(name));
        return "file";
      } catch (error) {
        if (isMissing(error)) return null;
        await folder.getDirectoryHandle(encodeName(name));
        return "directory";
      }
    } catch (error) {
      if (error instanceof DOMException && ["NotFoundError", "TypeMismatchError"].includes(error.name)) return null;
      throw error;
    }
  }

  async #recorded(move: Move, record: string, work: () => Promise<void>, undo: () => Promise<void>): Promise<void> {
    const file = await this.#system.getFileHandle(record, { create: true });
    try {
      const handle = await syncHandle(file);
      try {
        writeAll(handle, new TextEncoder().encode(JSON.stringify(move)), 0);
        handle.flush();
      } finally {
        handle.close();
      }
    } catch (error) {
      await this.#system.removeEntry(record).catch(() => {});
      throw error;
    }
    try {
      await work();
    } catch (error) {
      // Where going back fails too, the record stays and the next start finishes the move.
      await undo().then(
        () => this.#system.removeEntry(record),
        () => {},
      );
      throw error;
    }
    await this.#system.removeEntry(record);
  }

  async #file({ from, to }: Move): Promise<void> {
    const [source, sourceName] = await this.#place(from, false);
    const [target, targetName] = await this.#place(to, true);
    await this.#entry(source, sourceName, target, targetName);
  }

  async #folder({ from, to }: Move): Promise<void> {
    const source = await folderAt(this.#root, segmentsOf(from));
    await this.#entries(source, await folderAt(this.#root, segmentsOf(to), true));
    const [parent, name] = await this.#place(from, false);
    await parent.removeEntry(name, { recursive: true });
  }

  async #entries(source: FileSystemDirectoryHandle, target: FileSystemDirectoryHandle): Promise<void> {
    const entries: [string, FileSystemHandle][] = [];
    for await (const entry of source.entries()) entries.push(entry);
    // A manifest says that all else is there, so it goes last, for readers that see the folder in the middle of it.
    entries.sort(([a], [b]) => Number(/manifest/.test(a)) - Number(/manifest/.test(b)));
    for (const [name, entry] of entries) {
      if (entry.kind === "file") await this.#entry(source, name, target, name);
      else
        await this.#entries(
          entry as FileSystemDirectoryHandle,
          await target.getDirectoryHandle(name, { create: true }),
        );
    }
  }

  async #entry(
    source: FileSystemDirectoryHandle,
    sourceName: string,
    target: FileSystemDirectoryHandle,
    targetName: string,
  ): Promise<void> {
    const file = await source.getFileHandle(sourceName);
    if (this.#canMove && (await moved(file, target, targetName))) return;
    const content = await file.getFile();
    const copy = await target.getFileHandle(targetName, { create: true });
    try {
      await copyInto(
        copy,
        content.size,
        async (offset, length) => new Uint8Array(await content.slice(offset, offset + length).arrayBuffer()),
      );
    } catch (error) {
      // An empty one was made above: going back must not take it for the content.
      if ((await copy.getFile()).size === 0) await target.removeEntry(targetName);
      throw error;
    }
    await source.removeEntry(sourceName);
  }

  async #place(path: string, create: boolean): Promise<[FileSystemDirectoryHandle, string]> {
    const segments = segmentsOf(path);
    const name = segments.pop()!;
    return [await folderAt(this.#root, segments, create), encodeName(name)];
  }
}
