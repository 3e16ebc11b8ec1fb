// Open files of the browser's storage. Reading goes through a synchronous access handle where the browser has read-only ones,
// which several readers may hold, else through slices of the file; writing always through a synchronous access handle.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle } from "../../base/files.ts";
import { coded, isHeld, storageFull } from "./opfs_names.ts";

/** What TypeScript's types of a page lack because workers alone have it: synchronous access to a file. */
export interface SyncHandle {
  /** "read-only" where the browser knows modes and was asked for that. */
  readonly mode?: string;
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  getSize(): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

interface StoredFile extends FileSystemFileHandle {
  createSyncAccessHandle?(options?: { mode: "read-only" }): Promise<SyncHandle>;
  move?(folder: FileSystemDirectoryHandle, name: string): Promise<void>;
}

/** Opens a file for synchronous access. */
export function syncHandle(file: StoredFile, options?: { mode: "read-only" }): Promise<SyncHandle> {
  if (file.createSyncAccessHandle) return file.createSyncAccessHandle(options);
  return Promise.reject(new DOMException("synchronous access is for workers", "NotAllowedError"));
}

/** Moves a file onto a missing or another one; false where the browser cannot. */
export async function moved(file: StoredFile, folder: FileSystemDirectoryHandle, name: string): Promise<boolean> {
  if (!file.move) return false;
  await file.move(folder, name);
  return true;
}

const PIECE = 4 * 1024 * 1024;

type Source =
  | { kind: "handle"; handle: SyncHandle; size: number }
  | { kind: "file"; file: FileSystemFileHandle; size: number };

async function sourceOf(file: FileSystemFileHandle): Promise<Source> {
  try {
    const handle = await syncHandle(file, { mode: "read-only" });
    if (handle.mode === "read-only") return { kind: "handle", handle, size: handle.getSize() };
    // A browser without modes gave an exclusive one, which would keep every other reader out.
    handle.close();
  } catch (error) {
    if (!isHeld(error)) throw error;
  }
  return { kind: "file", file, size: (await file.getFile()).size };
}

const ATTEMPTS = 5;

/**
 * Bytes of a file that may be growing: what the browser hands out as a File is good until the next write, so it is asked for
 * anew where one came in between.
 */
export async function bytesOf(file: FileSystemFileHandle, offset = 0, length?: number): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    const now = await file.getFile();
    try {
      return new Uint8Array(await now.slice(offset, length === undefined ? undefined : offset + length).arrayBuffer());
    } catch (error) {
      const isChanged = error instanceof DOMException && error.name === "NotReadableError";
      if (!isChanged || attempt === ATTEMPTS) throw error;
    }
  }
}

type Closed = (reader: OpfsReader) => Promise<void>;

/** A file that is read by ranges. */
export class OpfsReader implements FileHandle {
  readonly size: number;
  readonly path: string;
  #source: Source;
  #detached: Promise<void> = Promise.resolve();
  readonly #closed: Closed;
  #open = true;

  private constructor(path: string, source: Source, closed: Closed) {
    this.path = path;
    this.size = source.size;
    this.#source = source;
    this.#closed = closed;
  }

  /** @param closed called when the reader is closed */
  static async open(file: FileSystemFileHandle, path: string, closed: Closed): Promise<OpfsReader> {
    return new OpfsReader(path, await sourceOf(file), closed);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    await this.#detached;
    // Checked before the memory is taken: a damaged header can ask for terabytes.
    if (offset + length > this.size) throw this.#tooShort(offset, length);
    try {
      const source = this.#source;
      if (source.kind === "file") {
        const found = await bytesOf(source.file, offset, length);
        // Another tab has put a shorter file in its place.
        if (found.length < length) throw this.#tooShort(offset, length);
        return found;
      }
      const bytes = new Uint8Array(length);
      for (let filled = 0; filled < length; ) {
        const count = source.handle.read(bytes.subarray(filled), { at: offset + filled });
        if (!(count > 0 && count <= length - filled)) throw this.#tooShort(offset, length);
        filled += count;
      }
      return bytes;
    } catch (error) {
      throw await coded(error, this.path);
    }
  }

  async close(): Promise<void> {
    await this.#detached;
    if (!this.#open) return;
    this.#open = false;
    if (this.#source.kind === "handle") this.#source.handle.close();
    await this.#closed(this);
  }

  /**
   * Goes on reading from a copy of the content, so that the file itself can be replaced or removed: the browser refuses to
   * move a file onto one that is open.
   */
  detach(copy: FileSystemFileHandle): Promise<void> {
    const work = async () => {
      const before = this.#source;
      await copyInto(copy, this.size, async (offset, length) => {
        if (before.kind === "file") return bytesOf(before.file, offset, length);
        const bytes = new Uint8Array(length);
        before.handle.read(bytes, { at: offset });
        return bytes;
      });
      this.#source = await sourceOf(copy);
      if (before.kind === "handle") before.handle.close();
    };
    const done = work();
    this.#detached = done.catch(() => {});
    return done;
  }

  #tooShort(offset: number, length: number): LongtailError {
    return new LongtailError("E-FILE-003", {
      what: `the file ends too early: bytes ${offset} to ${offset + length} are wanted and it has ${this.size}`,
      where: this.path,
      why: "it was truncated, perhaps by an interrupted download or copy",
      fix: "download or copy it again",
    });
  }
}

/** Writes all of `bytes`; throws the browser's QuotaExceededError where the storage is full. */
export function writeAll(handle: SyncHandle, bytes: Uint8Array, at: number): void {
  for (let offset = 0; offset < bytes.length; ) {
    const rest = bytes.subarray(offset);
    const count = handle.write(rest, { at: at + offset });
    // Chromium answers a full storage with a negative error number, read as unsigned: 4294967288 of 1000000 bytes.
    if (!(count > 0 && count <= rest.length)) throw storageFull();
    offset += count;
  }
}

/**
 * Replaces the content of `file` by pieces that `read` gives, and flushes it. The space is taken first: on a full storage
 * the file keeps what it had.
 */
export async function copyInto(
  file: FileSystemFileHandle,
  size: number,
  read: (offset: number, length: number) => Promise<Uint8Array>,
): Promise<void> {
  const handle = await syncHandle(file);
  try {
    const before = handle.getSize();
    if (size > before) {
      try {
        handle.truncate(size);
      } catch (error) {
        handle.truncate(before);
        throw error;
      }
    }
    for (let at = 0; at < size; at += PIECE) writeAll(handle, await read(at, Math.min(PIECE, size - at)), at);
    handle.truncate(size);
    handle.flush();
  } finally {
    handle.close();
  }
}

const FLUSH_EVERY_MS = 2000;

/** A file kept open at its end. What is written is seen by readers at once and flushed to the disk within two seconds. */
export class OpfsAppender {
  readonly #handle: SyncHandle;
  #size: number;
  #timer: ReturnType<typeof setTimeout> | null = null;

  private constructor(handle: SyncHandle) {
    this.#handle = handle;
    this.#size = handle.getSize();
  }

  /** @param endLine close a last line that was cut off, so that the next one does not continue it */
  static async open(file: FileSystemFileHandle, endLine: boolean): Promise<OpfsAppender> {
    const appender = new OpfsAppender(await syncHandle(file));
    const last = new Uint8Array(1);
    try {
      if (endLine && appender.#size > 0) {
        appender.#handle.read(last, { at: appender.#size - 1 });
        if (last[0] !== 10) appender.write("\n");
      }
    } catch (error) {
      appender.close();
      throw error;
    }
    return appender;
  }

  write(text: string): void {
    const bytes = new TextEncoder().encode(text);
    try {
      writeAll(this.#handle, bytes, this.#size);
    } catch (error) {
      // No half of a line stays.
      this.#handle.truncate(this.#size);
      throw error;
    }
    this.#size += bytes.length;
    this.#timer ??= setTimeout(() => this.flush(), FLUSH_EVERY_MS);
  }

  flush(): void {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#handle.flush();
  }

  close(): void {
    try {
      this.flush();
    } finally {
      this.#handle.close();
    }
  }
}
