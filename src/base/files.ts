// How the rooms below the command line reach files. The command line fills this interface with the file system, a page
// fills it with browser storage; nothing else knows where bytes come from.

export interface FileHandle {
  readonly size: number;
  /** Reads exactly `length` bytes from `offset`; throws E-FILE-003 where the file ends earlier. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface FileStore {
  exists(path: string): Promise<boolean>;
  /** Names of the entries of a folder, sorted; empty where the folder does not exist. */
  list(path: string): Promise<string[]>;
  open(path: string): Promise<FileHandle>;
  readBytes(path: string): Promise<Uint8Array>;
  readText(path: string): Promise<string>;
  /** Writes through a temporary file, flushes it and renames it, so that a reader sees the old content or all of the new. */
  writeAtomic(
    path: string,
    chunks: Uint8Array | string | AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void>;
  append(path: string, text: string): Promise<void>;
  makeFolder(path: string): Promise<void>;
  /** Moves a finished folder or file to its final name in one step. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Bytes free where `path` lies, or null where it cannot be known. */
  freeSpace(path: string): Promise<number | null>;
}
