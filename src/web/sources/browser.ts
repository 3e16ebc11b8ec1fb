// A run in the browser's own storage, where the worker writes it in the command line's layout. Read on the main thread,
// only read; what another tab writes is followed as it grows.

import type { RunSource } from "../run_source.ts";
import { followFile, growingBlob } from "./growing_file.ts";
import { LogParser } from "./log_parser.ts";
import { type LogTaker, recordFacts, type WatchSource } from "./watch_source.ts";

/** Where the storage begins; tests give their own. */
export type StorageRoot = () => Promise<FileSystemDirectoryHandle>;

const browserRoot: StorageRoot = () => navigator.storage.getDirectory();

/** The file at `path` below a folder, or null. */
export async function fileAt(root: FileSystemDirectoryHandle, path: string): Promise<File | null> {
  try {
    const parts = path.split("/");
    let folder = root;
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
    return await (await folder.getFileHandle(parts.at(-1)!)).getFile();
  } catch {
    return null;
  }
}

export class BrowserRunSource implements WatchSource {
  readonly origin = "browser";
  readonly name: string;
  private readonly root: StorageRoot;
  private readonly parser = new LogParser();
  private readonly isWritten: (name: string) => Promise<boolean>;

  /** `isWritten` says whether some tab works on the run; a run whose tab crashed is "running" for ever otherwise. */
  constructor(name: string, root: StorageRoot = browserRoot, isWritten = isLocked) {
    this.name = name;
    this.root = root;
    this.isWritten = isWritten;
  }

  get facts() {
    return this.parser.facts;
  }

  async blob(path: string): Promise<Blob | null> {
    try {
      return await fileAt(await this.root(), `runs/${this.name}/${path}`);
    } catch {
      return null;
    }
  }

  async has(path: string): Promise<boolean> {
    return (await this.blob(path)) !== null;
  }

  async text(path: string): Promise<string | null> {
    return (await (await this.blob(path))?.text().catch(() => null)) ?? null;
  }

  watch(taker: LogTaker): () => void {
    const goesOn = async () =>
      recordFacts(await this.text("run.json"))?.state === "running" && (await this.isWritten(this.name));
    this.parser.reset();
    return followFile(
      growingBlob(() => this.blob("log.jsonl"), goesOn),
      this.parser,
      taker,
    );
  }

  follow: RunSource["follow"] = (take, ended) => this.watch({ lines: take, ...(ended ? { ended } : {}) });
}

/** Whether a tab holds the Web Lock of the run; true where the browser does not say. */
async function isLocked(name: string): Promise<boolean> {
  const held = (await navigator.locks?.query?.())?.held;
  return held?.some((lock) => lock.name === `longtail/runs/${name}`) ?? true;
}

/** Names of the runs in the browser's storage, sorted. */
export async function browserRunNames(root: StorageRoot = browserRoot): Promise<string[]> {
  try {
    const folder = await (await root()).getDirectoryHandle("runs");
    const names: string[] = [];
    for await (const [name, handle] of folder as unknown as AsyncIterable<[string, FileSystemHandle]>)
      if (handle.kind === "directory") names.push(name);
    return names.sort();
  } catch {
    return [];
  }
}
