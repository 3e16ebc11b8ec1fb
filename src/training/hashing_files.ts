// A file store that notes size and SHA-256 of what is written through it, from the bytes as they were meant, so that a
// disk or a cable that changes them is found when the file is read.

import type { FileHandle, FileStore } from "../base/files.ts";
import { Sha256, sha256, sha256File } from "../base/hash.ts";

/** Up to this size a file is hashed at once by the platform, seven times as fast as piece by piece here. */
const AT_ONCE = 128 * 1024 * 1024;

type Chunks = Parameters<FileStore["writeAtomic"]>[1];

/** SHA-256 of an open file. */
export async function hashOf(file: FileHandle): Promise<string> {
  return file.size <= AT_ONCE ? await sha256(await file.read(0, file.size)) : await sha256File(file);
}

/** Writes through to another store; `written` has the facts of every finished file by path. */
export class HashingFiles implements FileStore {
  readonly written = new Map<string, { bytes: number; sha256: string }>();
  readonly #files: FileStore;

  constructor(files: FileStore) {
    this.#files = files;
  }

  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    let bytes = 0;
    // Pieces are kept while they are few; a large file is hashed as it passes.
    let kept: Uint8Array[] | null = [];
    const hash = new Sha256();
    async function* noted(): AsyncGenerator<Uint8Array> {
      const whole = typeof chunks === "string" ? new TextEncoder().encode(chunks) : chunks;
      for await (const piece of whole instanceof Uint8Array ? [whole] : whole) {
        bytes += piece.length;
        // Copied: whoever makes the pieces may use one buffer for all of them.
        if (kept && bytes <= AT_ONCE) kept.push(piece.slice());
        else {
          for (const earlier of kept ?? []) hash.update(earlier);
          kept = null;
          hash.update(piece);
        }
        yield piece;
      }
    }
    await this.#files.writeAtomic(path, noted());
    this.written.set(path, { bytes, sha256: kept ? await sha256(joined(kept, bytes)) : hash.hex() });
  }

  exists(path: string): Promise<boolean> {
    return this.#files.exists(path);
  }
  list(path: string): Promise<string[]> {
    return this.#files.list(path);
  }
  open(path: string): Promise<FileHandle> {
    return this.#files.open(path);
  }
  readBytes(path: string): Promise<Uint8Array> {
    return this.#files.readBytes(path);
  }
  readText(path: string): Promise<string> {
    return this.#files.readText(path);
  }
  append(path: string, text: string): Promise<void> {
    return this.#files.append(path, text);
  }
  makeFolder(path: string): Promise<void> {
    return this.#files.makeFolder(path);
  }
  rename(from: string, to: string): Promise<void> {
    return this.#files.rename(from, to);
  }
  remove(path: string): Promise<void> {
    return this.#files.remove(path);
  }
  freeSpace(path: string): Promise<number | null> {
    return this.#files.freeSpace(path);
  }
}

function joined(pieces: readonly Uint8Array[], bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
