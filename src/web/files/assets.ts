// What comes with the page (models, tokenizers, presets) as a read-only FileStore. `assets.json` names every file with size and
// SHA-256; a file is fetched when it is first asked for, checked while it streams in, and kept in the browser's storage by its
// hash, from where it is read by ranges afterwards, also without a network. Where nothing can be stored it stays in memory.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle, FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import { type AssetEntry, type AssetManifest, Broken, readManifest, streamAsset } from "./asset_stream.ts";
import { MemoryFiles } from "./memory.ts";
import { megabytes, plainPath } from "./opfs_names.ts";

/** Where checked files lie, by SHA-256, in the store given. */
export const ASSET_CACHE = "cache/assets";
/** The last manifest seen, for a start without a network. */
const KEPT_MANIFEST = `${ASSET_CACHE}/assets.json`;
/** Left free when a file is stored, for what the page itself still has to write. */
const RESERVE = 4_000_000;

/** Bytes as they come over the network; `cached` where none do. */
export interface DownloadProgress {
  name: string;
  received: number;
  total: number;
  cached: boolean;
}

export interface AssetOptions {
  /** Address of the folder with `assets.json`, ending in "/": the page's own. */
  base: string;
  /** The browser's storage; null keeps everything in memory. */
  store: FileStore | null;
  onDownload?: (progress: DownloadProgress) => void;
  /** For the user, once a session. */
  onWarning?: (warning: { code: string; text: string }) => void;
  /** Runs work that other tabs must not do at the same time; `alone` of locks.ts in the page. */
  alone?: <T>(name: string, work: () => Promise<T>) => Promise<T>;
  fetch?: typeof fetch;
}

interface Place {
  files: FileStore;
  path: string;
}

export class AssetFiles implements FileStore {
  readonly #options: Required<AssetOptions>;
  readonly #memory = new MemoryFiles();
  readonly #places = new Map<string, Promise<Place>>();
  #manifest: Promise<AssetManifest> | null = null;
  #warned = false;

  constructor(options: AssetOptions) {
    this.#options = {
      onDownload: () => {},
      onWarning: () => {},
      alone: (_, work) => work(),
      fetch: (input, init) => fetch(input, init),
      ...options,
    };
  }

  /** Fetches the files of a group of the manifest that are not here yet: "draw" is what a first picture needs. */
  async warm(group: string): Promise<void> {
    const { groups } = await this.manifest();
    for (const path of groups[group] ?? []) await this.#place(path);
  }

  /** Removes stored files that no entry of the manifest names any more, and returns how many. */
  async prune(): Promise<number> {
    const { store } = this.#options;
    if (!store) return 0;
    const { files } = await this.manifest();
    const wanted = new Set(Object.values(files).map((entry) => entry.sha256));
    let removed = 0;
    for (const name of await store.list(ASSET_CACHE)) {
      if (!/^[0-9a-f]{64}$/.test(name) || wanted.has(name)) continue;
      // Another tab of an older version may be reading it; then it goes next time.
      await store.remove(`${ASSET_CACHE}/${name}`).then(
        () => removed++,
        () => {},
      );
    }
    return removed;
  }

  /** Removes all that is stored; it is fetched again when it is needed. */
  async clear(): Promise<void> {
    this.#places.clear();
    await this.#options.store?.remove(ASSET_CACHE);
  }

  /** @throws E-FILE-150 there is neither a network nor a stored manifest */
  manifest(): Promise<AssetManifest> {
    this.#manifest ??= this.#loadManifest().catch((error) => {
      this.#manifest = null;
      throw error;
    });
    return this.#manifest;
  }

  async exists(path: string): Promise<boolean> {
    const name = plainPath(path);
    const { files } = await this.manifest();
    return Object.hasOwn(files, name) || Object.keys(files).some((file) => file.startsWith(`${name}/`));
  }

  async list(path: string): Promise<string[]> {
    const name = plainPath(path);
    const prefix = name === "" ? "" : `${name}/`;
    const files = Object.keys((await this.manifest()).files).filter((file) => file.startsWith(prefix));
    return [...new Set(files.map((file) => file.slice(prefix.length).split("/")[0]!))].sort();
  }

  async open(path: string): Promise<FileHandle> {
    const place = await this.#place(path);
    return place.files.open(place.path);
  }

  async readBytes(path: string): Promise<Uint8Array> {
    const place = await this.#place(path);
    return place.files.readBytes(place.path);
  }

  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }

  writeAtomic(path: string): Promise<void> {
    return refuse(path);
  }
  append(path: string): Promise<void> {
    return refuse(path);
  }
  makeFolder(path: string): Promise<void> {
    return refuse(path);
  }
  rename(from: string): Promise<void> {
    return refuse(from);
  }
  remove(path: string): Promise<void> {
    return refuse(path);
  }
  async freeSpace(): Promise<number | null> {
    return null;
  }

  /** Where a file can be read, fetched if need be; everybody who asks meanwhile waits for the same download. */
  async #place(path: string): Promise<Place> {
    const name = plainPath(path);
    const { files } = await this.manifest();
    const entry = Object.hasOwn(files, name) ? files[name]! : null;
    if (!entry) {
      throw new LongtailError("E-FILE-001", {
        what: "there is no such file",
        where: path,
        why: "it does not come with the page",
        fix: "use the embedded model and the presets that come with the page",
      });
    }
    let place = this.#places.get(name);
    if (!place) {
      place = this.#options.alone(`asset-${entry.sha256}`, () => this.#bring(name, entry));
      this.#places.set(name, place);
      // A failure is not kept: the next who asks tries again.
      place.catch(() => this.#places.delete(name));
    }
    return place;
  }

  async #bring(name: string, entry: AssetEntry): Promise<Place> {
    const { store, onDownload } = this.#options;
    const kept = `${ASSET_CACHE}/${entry.sha256}`;
    if (store && (await isWhole(store, kept, entry))) {
      onDownload({ name, received: entry.transfer, total: entry.transfer, cached: true });
      return { files: store, path: kept };
    }
    if (store && (await this.#hasRoom(store, entry))) {
      try {
        await this.#fetchInto(store, kept, name, entry);
        return { files: store, path: kept };
      } catch (error) {
        if (!isStorageError(error)) throw error;
        this.#warn((error as LongtailError).parts.why ?? (error as LongtailError).parts.what);
      }
    } else if (!store) this.#warn("the browser gives this page no storage");
    await this.#fetchInto(this.#memory, name, name, entry);
    return { files: this.#memory, path: name };
  }

  /** A damaged or torn answer is asked for once more, past the browser's own cache. */
  async #fetchInto(files: FileStore, path: string, name: string, entry: AssetEntry): Promise<void> {
    const { base, onDownload } = this.#options;
    for (let attempt = 0; ; attempt++) {
      try {
        const url = new URL(entry.file, base).href;
        const response = await this.#get(url, name, attempt === 0 ? "default" : "reload");
        const progress = (received: number) =>
          onDownload({ name, received: Math.min(received, entry.transfer), total: entry.transfer, cached: false });
        await files.writeAtomic(path, streamAsset(response, entry, progress));
        return;
      } catch (error) {
        if (!(error instanceof Broken)) throw error;
        if (attempt === 0) continue;
        throw new LongtailError("E-FILE-151", {
          what: "the file that arrived is not the one that belongs to the page",
          where: name,
          why: error.message,
          fix: "reload the page; if it stays, the page's host or something on the way changes files",
        });
      }
    }
  }

  async #get(url: string, name: string, cache: RequestCache): Promise<Response> {
    let response: Response;
    try {
      response = await this.#options.fetch(url, { cache });
    } catch (error) {
      throw new LongtailError("E-FILE-150", {
        what: "the file is not on this machine yet and cannot be fetched",
        where: name,
        why: (error as Error).message,
        fix: "connect to the network and try again; once fetched, it is kept for use without one",
        cause: error,
      });
    }
    if (response.ok) return response;
    throw new LongtailError("E-FILE-152", {
      what: `the page's host does not give the file (${response.status})`,
      where: name,
      fix: "reload the page: a newer version may have taken its place; if it stays, put up the whole build again",
    });
  }

  async #hasRoom(store: FileStore, entry: AssetEntry): Promise<boolean> {
    const free = await store.freeSpace(ASSET_CACHE);
    if (free === null || free >= entry.bytes + RESERVE) return true;
    this.#warn(`${megabytes(entry.bytes)} are wanted and ${megabytes(free)} are free`);
    return false;
  }

  #warn(why: string): void {
    if (this.#warned) return;
    this.#warned = true;
    const text = `weights stay in memory and will be fetched again after a reload: ${why}`;
    this.#options.onWarning({ code: "E-ENV-024", text });
  }

  async #loadManifest(): Promise<AssetManifest> {
    const { base, store } = this.#options;
    try {
      const response = await this.#get(new URL("assets.json", base).href, "assets.json", "no-cache");
      const text = await response.text();
      const manifest = readManifest(text);
      // Kept for a start without a network; a full storage is no reason to stop here.
      await store?.writeAtomic(KEPT_MANIFEST, text).catch(() => {});
      return manifest;
    } catch (error) {
      const text = await store?.readText(KEPT_MANIFEST).catch(() => null);
      if (!text) throw error;
      return readManifest(text);
    }
  }
}

async function isWhole(store: FileStore, path: string, entry: AssetEntry): Promise<boolean> {
  try {
    const bytes = await store.readBytes(path);
    return bytes.length === entry.bytes && (await sha256(bytes)) === entry.sha256;
  } catch {
    return false;
  }
}

/** The store's own failures, after which memory may still do. */
function isStorageError(error: unknown): boolean {
  return error instanceof LongtailError && ["E-ENV-020", "E-FILE-001", "E-FILE-004"].includes(error.code);
}

function refuse(path: string): Promise<never> {
  return Promise.reject(
    new LongtailError("E-FILE-004", {
      what: "the file cannot be written",
      where: path,
      why: "what comes with the page stays as it is",
      fix: "choose a name outside of models and presets",
    }),
  );
}
