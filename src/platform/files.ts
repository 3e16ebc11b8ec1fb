// Files on disk for the command line, in Deno and in Node alike. What is written appears whole or not at all: a run that
// is killed, or a disk that fills up, leaves the old file and no half of a new one.

import { randomUUID } from "node:crypto";
import * as fs from "node:fs/promises";
import { dirname, join } from "node:path";
import { LongtailError } from "../base/errors.ts";
import type { FileHandle, FileStore } from "../base/files.ts";

type Chunks = Uint8Array | string | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** What every temporary file's name contains; such files are not listed, so a reader never meets one. */
const TEMPORARY = ".longtail-tmp-";

/** A temporary file of this age belongs to a writer that died: no chunk of a write takes so long. */
const ABANDONED_HOURS = 24;

/** The few calls of node:fs that a test replaces to play a full disk. */
export type DiskCalls = Pick<typeof fs, "open" | "rename" | "rm" | "statfs">;

/** The file system as a FileStore. Paths are the system's; relative ones start at the working folder. */
export class DiskFiles implements FileStore {
  readonly #disk: DiskCalls;

  constructor(disk: DiskCalls = fs) {
    this.#disk = disk;
  }

  async exists(path: string): Promise<boolean> {
    try {
      await fs.stat(path);
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw coded(error, path);
    }
  }

  async list(path: string): Promise<string[]> {
    try {
      return (await fs.readdir(path)).filter((name) => !name.includes(TEMPORARY)).sort();
    } catch (error) {
      if (isMissing(error)) return [];
      throw coded(error, path);
    }
  }

  /** Opens a file for reading by ranges. Throws E-FILE-001 where it is missing, E-FILE-004 where it cannot be read. */
  async open(path: string): Promise<FileHandle> {
    try {
      const handle = await this.#disk.open(path, "r");
      try {
        const facts = await handle.stat();
        if (!facts.isFile()) throw Object.assign(new Error("it is not a file"), { code: "EISDIR" });
        return new DiskHandle(path, handle, facts.size);
      } catch (error) {
        await handle.close();
        throw error;
      }
    } catch (error) {
      throw coded(error, path);
    }
  }

  async readBytes(path: string): Promise<Uint8Array> {
    try {
      const buffer = await fs.readFile(path);
      // Node hands out a Buffer; its methods differ from a plain array's (slice shares memory), so none leaves here.
      return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    } catch (error) {
      throw coded(error, path);
    }
  }

  async readText(path: string): Promise<string> {
    try {
      return await fs.readFile(path, "utf8");
    } catch (error) {
      throw coded(error, path);
    }
  }

  /**
   * Writes beside the target, flushes to the disk, renames over the target and flushes the folder, so that not even a
   * power cut leaves half a file. Makes missing folders. Throws E-ENV-020 on a full disk; the temporary file is removed
   * on every failure, including one of `chunks` itself, which is passed on as it is.
   */
  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    const folder = dirname(path);
    await this.makeFolder(folder);
    const temporary = `${path}${TEMPORARY}${randomUUID().slice(0, 8)}`;
    let renamed = false;
    try {
      const handle = await this.#disk.open(temporary, "wx");
      try {
        for await (const chunk of pieces(chunks)) await this.#write(handle, chunk, path);
        await this.#guard(handle.sync(), path);
      } finally {
        await handle.close();
      }
      await this.#guard(this.#disk.rename(temporary, path), path);
      renamed = true;
    } catch (error) {
      throw isSystemError(error) ? await this.#writeError(error, path) : error;
    } finally {
      if (!renamed) await this.#disk.rm(temporary, { force: true }).catch(() => {});
    }
    await this.#syncFolder(folder);
  }

  async append(path: string, text: string): Promise<void> {
    await this.makeFolder(dirname(path));
    await this.#guard(fs.appendFile(path, text), path);
  }

  async makeFolder(path: string): Promise<void> {
    await this.#guard(fs.mkdir(path, { recursive: true }), path);
  }

  /** Moves in one step. A folder moves onto a missing or empty place only, so nothing finished is overwritten. */
  async rename(from: string, to: string): Promise<void> {
    try {
      await this.#disk.rename(from, to);
    } catch (error) {
      throw isMissing(error) ? coded(error, from) : await this.#writeError(error, to);
    }
    await this.#syncFolder(dirname(to));
  }

  /** Removes a file or a folder with all that is in it; a missing one is fine. */
  async remove(path: string): Promise<void> {
    await this.#guard(this.#disk.rm(path, { recursive: true, force: true }), path);
  }

  /** Asks about the nearest folder that exists, because the path itself is often about to be made. */
  async freeSpace(path: string): Promise<number | null> {
    for (let place = path; ; place = dirname(place)) {
      try {
        const facts = await this.#disk.statfs(place);
        return Number(facts.bavail) * Number(facts.bsize);
      } catch (error) {
        if (!isMissing(error) || dirname(place) === place) return null;
      }
    }
  }

  /** Removes temporary files in a folder that writers left behind which died more than a day ago; returns their names. */
  async removeAbandoned(folder: string): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await fs.readdir(folder).catch(() => [] as string[])) {
      if (!name.includes(TEMPORARY)) continue;
      const path = join(folder, name);
      const facts = await fs.stat(path).catch(() => null);
      if (!facts || Date.now() - facts.mtimeMs < ABANDONED_HOURS * 3_600_000) continue;
      await fs.rm(path, { force: true });
      removed.push(name);
    }
    return removed;
  }

  async #write(handle: fs.FileHandle, chunk: Uint8Array, path: string): Promise<void> {
    for (let offset = 0; offset < chunk.length; ) {
      const { bytesWritten } = await this.#guard(handle.write(chunk, offset, chunk.length - offset), path);
      offset += bytesWritten;
    }
  }

  async #guard<T>(call: Promise<T>, path: string): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw await this.#writeError(error, path);
    }
  }

  async #writeError(error: unknown, path: string): Promise<unknown> {
    if (!isSystemError(error)) return error;
    if (!["ENOSPC", "EDQUOT", "EFBIG"].includes(error.code)) return coded(error, path);
    const free = await this.freeSpace(path);
    return new LongtailError("E-ENV-020", {
      what: "the disk is full",
      where: path,
      why: free === null ? error.message : `${megabytes(free)} are free there (${error.code})`,
      fix: "free some space, or choose another folder; what was there before is unchanged",
      cause: error,
    });
  }

  /** A rename is on the disk only when its folder is. Windows cannot open folders and needs no flush. */
  async #syncFolder(folder: string): Promise<void> {
    try {
      const handle = await fs.open(folder, "r");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    } catch {
      // Some file systems refuse; the data itself was flushed above.
    }
  }
}

class DiskHandle implements FileHandle {
  readonly size: number;
  readonly #path: string;
  readonly #handle: fs.FileHandle;

  constructor(path: string, handle: fs.FileHandle, size: number) {
    this.#path = path;
    this.#handle = handle;
    this.size = size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    // Checked before the memory is taken: a damaged header can ask for terabytes.
    if (offset + length > this.size) throw this.#tooShort(offset, length);
    const bytes = new Uint8Array(length);
    for (let filled = 0; filled < length; ) {
      let count: number;
      try {
        count = (await this.#handle.read(bytes, filled, length - filled, offset + filled)).bytesRead;
      } catch (error) {
        throw coded(error, this.#path);
      }
      // The file was cut after it was opened.
      if (count === 0) throw this.#tooShort(offset, length);
      filled += count;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  #tooShort(offset: number, length: number): LongtailError {
    return new LongtailError("E-FILE-003", {
      what: `the file ends too early: bytes ${offset} to ${offset + length} are wanted and it has ${this.size}`,
      where: this.#path,
      why: "it was truncated, perhaps by an interrupted download or copy",
      fix: "download or copy it again",
    });
  }
}

async function* pieces(chunks: Chunks): AsyncGenerator<Uint8Array> {
  if (typeof chunks === "string") yield new TextEncoder().encode(chunks);
  else if (chunks instanceof Uint8Array) yield chunks;
  else yield* chunks;
}

interface SystemError extends Error {
  code: string;
}

function isSystemError(error: unknown): error is SystemError {
  return (
    error instanceof Error && !(error instanceof LongtailError) && /^E[A-Z0-9]+$/.test((error as SystemError).code)
  );
}

function isMissing(error: unknown): boolean {
  return isSystemError(error) && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

/** The coded form of what the system said about a path that could not be read or changed. */
function coded(error: unknown, path: string): unknown {
  if (!isSystemError(error)) return error;
  if (isMissing(error)) {
    return new LongtailError("E-FILE-001", {
      what: "there is no such file",
      where: path,
      fix: "check the path; relative paths start at the folder in which the command runs",
      cause: error,
    });
  }
  const reasons: Record<string, string> = {
    EISDIR: "it is a folder",
    EACCES: "permission is denied",
    EPERM: "permission is denied",
    EROFS: "the file system is read-only",
    ENOTEMPTY: "a folder of that name exists already",
    EEXIST: "a file of that name is in the way",
  };
  return new LongtailError("E-FILE-004", {
    what: "the file cannot be read or written",
    where: path,
    why: reasons[error.code] ?? error.message,
    fix: "check the path and its permissions",
    cause: error,
  });
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
