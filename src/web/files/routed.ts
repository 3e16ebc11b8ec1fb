// One file store of several: paths below `models/` and `presets/` come with the page, everything else lies in the browser's
// storage. So the rooms below find all files where the command line has them.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle, FileStore } from "../../base/files.ts";
import { plainPath } from "./opfs_names.ts";

type Chunks = Parameters<FileStore["writeAtomic"]>[1];

/** Folders that come with the page. */
export const ASSET_FOLDERS: readonly string[] = ["models", "presets"];

export class RoutedFiles implements FileStore {
  readonly #assets: FileStore;
  readonly #own: FileStore;

  /**
   * @param assets what comes with the page
   * @param own where all else is read and written
   */
  constructor(assets: FileStore, own: FileStore) {
    this.#assets = assets;
    this.#own = own;
  }

  exists(path: string): Promise<boolean> {
    return this.#storeOf(path).exists(path);
  }

  async list(path: string): Promise<string[]> {
    if (plainPath(path) !== "") return this.#storeOf(path).list(path);
    return [...new Set([...(await this.#own.list("")), ...(await this.#assets.list(""))])].sort();
  }

  open(path: string): Promise<FileHandle> {
    return this.#storeOf(path).open(path);
  }

  readBytes(path: string): Promise<Uint8Array> {
    return this.#storeOf(path).readBytes(path);
  }

  readText(path: string): Promise<string> {
    return this.#storeOf(path).readText(path);
  }

  writeAtomic(path: string, chunks: Chunks): Promise<void> {
    return this.#storeOf(path).writeAtomic(path, chunks);
  }

  append(path: string, text: string): Promise<void> {
    return this.#storeOf(path).append(path, text);
  }

  makeFolder(path: string): Promise<void> {
    return this.#storeOf(path).makeFolder(path);
  }

  async rename(from: string, to: string): Promise<void> {
    const store = this.#storeOf(from);
    if (store !== this.#storeOf(to)) {
      throw new LongtailError("E-FILE-004", {
        what: "the file cannot be read or written",
        where: to,
        why: "what comes with the page stays as it is",
        fix: "choose a name outside of models and presets",
      });
    }
    await store.rename(from, to);
  }

  remove(path: string): Promise<void> {
    return this.#storeOf(path).remove(path);
  }

  freeSpace(path: string): Promise<number | null> {
    return this.#own.freeSpace(path);
  }

  #storeOf(path: string): FileStore {
    return ASSET_FOLDERS.includes(plainPath(path).split("/")[0] ?? "") ? this.#assets : this.#own;
  }
}
