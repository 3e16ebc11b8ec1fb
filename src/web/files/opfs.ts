// The browser's own storage (origin private file system) as a FileStore, for a dedicated worker: runs, pictures and caches of the
// page lie in it as they do on a disk. What is written appears whole or not at all: a tab that is closed, crashes or meets a
// full storage leaves the old file and no half of a new one. Everything in the making lies in a folder of its own, by
// names that say which store made it; a store holds a Web Lock of its name, so that another one cleans up after the dead only.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle, FileStore } from "../../base/files.ts";
import { bytesOf, OpfsAppender, OpfsReader, syncHandle, writeAll } from "./opfs_handles.ts";
import { Mover } from "./opfs_moves.ts";
import {
  coded,
  decodeName,
  encodeName,
  fileAt,
  folderAt,
  isMissing,
  isOtherKind,
  plainPath,
  SYSTEM_FOLDER,
  segmentsOf,
  storageEstimate,
} from "./opfs_names.ts";

type Chunks = Parameters<FileStore["writeAtomic"]>[1];

const LOCK = "longtail-files-";

export interface OpfsOptions {
  /** Another root than the storage's own; for tests. */
  root?: FileSystemDirectoryHandle;
  /** false copies instead of moving, as in a browser that cannot move files; for tests. */
  canMove?: boolean;
}

export class OpfsFiles implements FileStore {
  readonly #root: FileSystemDirectoryHandle;
  readonly #system: FileSystemDirectoryHandle;
  readonly #mover: Mover;
  readonly #id: string;
  readonly #release: () => void;
  readonly #appenders = new Map<string, Promise<OpfsAppender>>();
  /** Open readers, and the name of the copy that they read where their file has gone. */
  readonly #readers = new Map<OpfsReader, string | null>();
  /** Moves and removals go one after another, and reading waits for them: nobody sees a folder halfway. */
  #changes: Promise<unknown> = Promise.resolve();
  #count = 0;

  private constructor(
    root: FileSystemDirectoryHandle,
    system: FileSystemDirectoryHandle,
    mover: Mover,
    id: string,
    release: () => void,
  ) {
    this.#root = root;
    this.#system = system;
    this.#mover = mover;
    this.#id = id;
    this.#release = release;
  }

  /**
   * Opens the storage and finishes or clears what stores of closed tabs left in the making.
   * @throws E-ENV-023 the browser gives this page no storage
   */
  static async open(options: OpfsOptions = {}): Promise<OpfsFiles> {
    let root: FileSystemDirectoryHandle;
    let system: FileSystemDirectoryHandle;
    try {
      root = options.root ?? (await navigator.storage.getDirectory());
      system = await root.getDirectoryHandle(SYSTEM_FOLDER, { create: true });
    } catch (error) {
      throw new LongtailError("E-ENV-023", {
        what: "the browser gives this page no storage",
        why: (error as Error | null)?.message ?? String(error),
        fix: "leave private browsing, allow site data for this page, and use https or localhost",
        cause: error,
      });
    }
    const id = crypto.randomUUID().slice(0, 8);
    const release = await holdLock(LOCK + id);
    const canMove = options.canMove ?? "move" in FileSystemFileHandle.prototype;
    const mover = new Mover(root, system, canMove);
    await navigator.locks.request(`${LOCK}clean`, () => clean(system, mover));
    return new OpfsFiles(root, system, mover, id, release);
  }

  async exists(path: string): Promise<boolean> {
    await this.#changes;
    try {
      return (await this.#mover.kindOf(path)) !== null;
    } catch (error) {
      throw await coded(error, path);
    }
  }

  async list(path: string): Promise<string[]> {
    await this.#changes;
    try {
      const names: string[] = [];
      for await (const name of (await folderAt(this.#root, segmentsOf(path))).keys()) names.push(decodeName(name));
      return names.filter((name) => name !== SYSTEM_FOLDER).sort();
    } catch (error) {
      if (isMissing(error) || isOtherKind(error)) return [];
      throw await coded(error, path);
    }
  }

  /** Opens a file for reading by ranges. Throws E-FILE-001 where it is missing, E-FILE-004 where it cannot be read. */
  async open(path: string): Promise<FileHandle> {
    await this.#changes;
    try {
      const reader = await OpfsReader.open(await fileAt(this.#root, path), plainPath(path), async (closed) => {
        const copy = this.#readers.get(closed);
        this.#readers.delete(closed);
        if (copy) await this.#system.removeEntry(copy).catch(() => {});
      });
      this.#readers.set(reader, null);
      return reader;
    } catch (error) {
      throw await coded(error, path);
    }
  }

  async readBytes(path: string): Promise<Uint8Array> {
    await this.#changes;
    try {
      return await bytesOf(await fileAt(this.#root, path));
    } catch (error) {
      throw await coded(error, path);
    }
  }

  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }

  /**
   * Writes under another name, flushes, and moves onto the target. Makes missing folders. Throws E-ENV-020 where the storage
   * is full; nothing half-written stays on any failure, including one of `chunks` itself, which is passed on as it is.
   */
  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    const target = plainPath(path);
    const temporary = this.#newName("part");
    let moved = false;
    try {
      // Refused before the bytes are written, not after.
      await this.#guard(path, () => folderAt(this.#root, segmentsOf(target).slice(0, -1), true));
      const file = await this.#guard(path, () => this.#system.getFileHandle(temporary, { create: true }));
      const handle = await this.#guard(path, () => syncHandle(file));
      try {
        let size = 0;
        for await (const chunk of gathered(pieces(chunks))) {
          await this.#guard(path, () => writeAll(handle, chunk, size));
          size += chunk.length;
        }
        await this.#guard(path, () => handle.flush());
      } finally {
        handle.close();
      }
      await this.#alone(path, async () => {
        if ((await this.#mover.kindOf(target)) === "directory")
          throw new DOMException("it is a folder", "TypeMismatchError");
        await this.#closeAppenders(target);
        await this.#detachReaders(target);
        const move = { from: `${SYSTEM_FOLDER}/${temporary}`, to: target };
        await this.#mover.moveFile(move, this.#newName("move"));
      });
      moved = true;
    } finally {
      if (!moved) await this.#system.removeEntry(temporary).catch(() => {});
    }
  }

  /** Writes at the end of a file that stays open; see `flush`. A `.jsonl` that a crash left in mid-line gets its line end. */
  async append(path: string, text: string): Promise<void> {
    await this.#changes;
    const target = plainPath(path);
    await this.#guard(path, async () => {
      let appender = this.#appenders.get(target);
      if (!appender) {
        appender = this.#openAppender(target);
        this.#appenders.set(target, appender);
        appender.catch(() => this.#appenders.delete(target));
      }
      (await appender).write(text);
    });
  }

  /** What was appended is on the disk when this returns; without it, within two seconds. */
  async flush(): Promise<void> {
    for (const appender of this.#appenders.values()) (await appender).flush();
  }

  /** Closes what was appended to at or below a path, so that other tabs may write it; `append` opens it again. */
  async letGo(path: string): Promise<void> {
    await this.#alone(path, () => this.#closeAppenders(plainPath(path)));
  }

  async makeFolder(path: string): Promise<void> {
    await this.#guard(path, () => folderAt(this.#root, segmentsOf(path), true));
  }

  /** Moves in one step as far as any store sees, crash or not. A folder moves onto a missing or empty place only. */
  async rename(from: string, to: string): Promise<void> {
    const move = { from: plainPath(from), to: plainPath(to) };
    if (move.from === move.to) return;
    const kind = await this.#guard(from, () => this.#mover.kindOf(from));
    if (kind === null) throw await coded(new DOMException("", "NotFoundError"), from);
    await this.#alone(to, async () => {
      await folderAt(this.#root, segmentsOf(to).slice(0, -1));
      const there = await this.#mover.kindOf(to);
      const fits = kind === "file" ? there !== "directory" : there === null || (await this.#isEmptyFolder(to));
      if (!fits || `${move.to}/`.startsWith(`${move.from}/`))
        throw new DOMException("a folder of that name exists already", "InvalidModificationError");
      for (const place of [move.from, move.to]) {
        await this.#closeAppenders(place);
        await this.#detachReaders(place);
      }
      if (kind === "file") await this.#mover.moveFile(move, this.#newName("move"));
      else await this.#mover.moveFolder(move, this.#newName("move"));
    });
  }

  /** Removes a file or a folder with all that is in it; a missing one is fine. */
  async remove(path: string): Promise<void> {
    const segments = segmentsOf(path);
    const name = segments.pop();
    if (name === undefined) throw await coded(new DOMException("", "NotAllowedError"), path);
    await this.#alone(path, async () => {
      await this.#closeAppenders(plainPath(path));
      await this.#detachReaders(plainPath(path));
      try {
        await (await folderAt(this.#root, segments)).removeEntry(encodeName(name), { recursive: true });
      } catch (error) {
        if (!isMissing(error) && !isOtherKind(error)) throw error;
      }
    });
  }

  /** Bytes that the browser says it still gives this page. Chromium always says 10 GiB, so a write may fail all the same. */
  async freeSpace(_path: string): Promise<number | null> {
    const { quota, usage } = await storageEstimate();
    return quota === null || usage === null ? null : Math.max(0, quota - usage);
  }

  /** Flushes and closes all files; the store is not used afterwards. */
  async close(): Promise<void> {
    await this.#changes;
    await this.#closeAppenders("");
    for (const reader of [...this.#readers.keys()]) await reader.close();
    this.#release();
  }

  #newName(kind: "part" | "move" | "kept"): string {
    return `${kind}-${this.#id}-${this.#count++}`;
  }

  async #openAppender(path: string): Promise<OpfsAppender> {
    const segments = segmentsOf(path);
    const name = segments.pop();
    if (name === undefined) throw new DOMException("it is a folder", "TypeMismatchError");
    const folder = await folderAt(this.#root, segments, true);
    const file = await folder.getFileHandle(encodeName(name), { create: true });
    return OpfsAppender.open(file, name.endsWith(".jsonl"));
  }

  async #closeAppenders(path: string): Promise<void> {
    for (const [name, appender] of [...this.#appenders]) {
      if (!isBelow(name, path)) continue;
      this.#appenders.delete(name);
      (await appender.catch(() => null))?.close();
    }
  }

  /** Lets open readers of a file that is about to go read on from a copy, as they could on a disk. */
  async #detachReaders(path: string): Promise<void> {
    for (const [reader, copy] of [...this.#readers]) {
      if (copy !== null || !isBelow(reader.path, path)) continue;
      const name = this.#newName("kept");
      this.#readers.set(reader, name);
      try {
        await reader.detach(await this.#system.getFileHandle(name, { create: true }));
      } catch (error) {
        this.#readers.set(reader, null);
        await this.#system.removeEntry(name).catch(() => {});
        throw error;
      }
    }
  }

  async #isEmptyFolder(path: string): Promise<boolean> {
    try {
      for await (const _ of (await folderAt(this.#root, segmentsOf(path))).keys()) return false;
      return true;
    } catch {
      return false;
    }
  }

  /** Runs a change after all earlier ones. */
  #alone(path: string, work: () => Promise<void>): Promise<void> {
    const done = this.#changes.then(() => this.#guard(path, work));
    this.#changes = done.catch(() => {});
    return done;
  }

  async #guard<T>(path: string, work: () => T | Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw await coded(error, path);
    }
  }
}

const isBelow = (name: string, path: string) => path === "" || name === path || name.startsWith(`${path}/`);

/** Holds a Web Lock until the answer is called, or until the worker is gone. */
function holdLock(name: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    navigator.locks.request(name, () => new Promise<void>((release) => resolve(() => release()))).catch(reject);
  });
}

/** Finishes moves and removes half-written files of stores whose lock nobody holds any more. */
async function clean(system: FileSystemDirectoryHandle, mover: Mover): Promise<void> {
  const held = (await navigator.locks.query()).held?.map(({ name }) => name) ?? [];
  const names: string[] = [];
  for await (const name of system.keys()) names.push(name);
  // Moves first: what they move may be among the files that are removed then.
  for (const kind of ["move", "part", "kept"]) {
    for (const name of names) {
      const [, own, id] = /^(\w+)-([0-9a-f]+)-\d+$/.exec(name) ?? [];
      if (own !== kind || held.includes(LOCK + id)) continue;
      if (kind === "move") await mover.finish(name);
      // One that a finished move has taken away is fine.
      else await system.removeEntry(name).catch(() => {});
    }
  }
}

/** Each call to write costs the browser the better part of a millisecond, so small pieces are written many at a time. */
const GATHER = 1024 * 1024;

/** The same bytes in pieces that are large, or the last; what it gives is good until the next one is asked for. */
async function* gathered(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let room: Uint8Array | null = null;
  let filled = 0;
  for await (const chunk of chunks) {
    const isLarge = chunk.length >= GATHER / 2;
    if (filled > 0 && (isLarge || filled + chunk.length > GATHER)) {
      yield room!.subarray(0, filled);
      filled = 0;
    }
    if (isLarge) yield chunk;
    else {
      room ??= new Uint8Array(GATHER);
      room.set(chunk, filled);
      filled += chunk.length;
    }
  }
  if (filled > 0) yield room!.subarray(0, filled);
}

async function* pieces(chunks: Chunks): AsyncGenerator<Uint8Array> {
  if (typeof chunks === "string") yield new TextEncoder().encode(chunks);
  else if (chunks instanceof Uint8Array) yield chunks;
  else yield* chunks;
}
