// Runs in a folder that was dropped or picked. Three interfaces lead to a folder's files, and a browser has one, two or all
// of them: handles of the File System Access API (which can be read again while a run goes on), entries of a drop, and
// the flat list of an <input webkitdirectory>.

import type { RunSource } from "../run_source.ts";
import { fileAt } from "./browser.ts";
import { followFile, growingBlob } from "./growing_file.ts";
import { LogParser } from "./log_parser.ts";
import { type LogTaker, recordFacts, type WatchSource } from "./watch_source.ts";

/** A folder as far as the page needs it. */
export interface FileTree {
  readonly name: string;
  /** The file at a path with slashes, or null. */
  file(path: string): Promise<File | null>;
  /** Names of the folders directly in it. */
  folders(): Promise<string[]>;
  /** A folder directly in it. */
  folder(name: string): FileTree;
  /** Whether `file` gives the newest state of a file that is written meanwhile. */
  readonly live: boolean;
}

/** Runs that are looked for in one dropped folder at most. */
const MOST_RUNS = 200;

export class FolderRunSource implements WatchSource {
  readonly origin = "folder";
  readonly name: string;
  private readonly tree: FileTree;
  private readonly parser = new LogParser();

  constructor(tree: FileTree, name = tree.name) {
    this.tree = tree;
    this.name = name;
  }

  get facts() {
    return this.parser.facts;
  }

  /** Whether lines that are written later will be seen. */
  get live(): boolean {
    return this.tree.live;
  }

  blob(path: string): Promise<Blob | null> {
    return this.tree.file(path).catch(() => null);
  }

  async has(path: string): Promise<boolean> {
    return (await this.blob(path)) !== null;
  }

  async text(path: string): Promise<string | null> {
    return (await (await this.blob(path))?.text().catch(() => null)) ?? null;
  }

  watch(taker: LogTaker): () => void {
    const goesOn = async () => this.tree.live && recordFacts(await this.text("run.json"))?.state === "running";
    this.parser.reset();
    return followFile(
      growingBlob(() => this.tree.file("log.jsonl"), goesOn),
      this.parser,
      taker,
    );
  }

  follow: RunSource["follow"] = (take, ended) => this.watch({ lines: take, ...(ended ? { ended } : {}) });
}

/** The run that a folder is, or the runs directly in it; empty where there is none. */
export async function runsIn(tree: FileTree): Promise<FolderRunSource[]> {
  if (await isRun(tree)) return [new FolderRunSource(tree)];
  const runs: FolderRunSource[] = [];
  for (const name of (await tree.folders()).sort()) {
    if (runs.length >= MOST_RUNS) break;
    const inner = tree.folder(name);
    if (await isRun(inner)) runs.push(new FolderRunSource(inner));
    // A project's folder was dropped instead of its runs/.
    else if (name === "runs") runs.push(...(await runsIn(inner)));
  }
  return runs;
}

const isRun = async (tree: FileTree) =>
  (await tree.file("log.jsonl")) !== null || (await tree.file("run.json")) !== null;

/** A folder behind a handle of the File System Access API. */
export function handleTree(handle: FileSystemDirectoryHandle): FileTree {
  return lazyTree(handle.name, () => Promise.resolve(handle));
}

function lazyTree(name: string, handle: () => Promise<FileSystemDirectoryHandle>): FileTree {
  return {
    name,
    live: true,
    file: async (path) => fileAt(await handle(), path),
    async folders() {
      const names: string[] = [];
      for await (const [entry, one] of (await handle()) as unknown as AsyncIterable<[string, FileSystemHandle]>)
        if (one.kind === "directory") names.push(entry);
      return names;
    },
    folder: (inner) => lazyTree(inner, async () => (await handle()).getDirectoryHandle(inner)),
  };
}

/** A folder of a drop, where the browser has no handles. */
export function entryTree(entry: FileSystemDirectoryEntry): FileTree {
  const get = (path: string) =>
    new Promise<FileSystemEntry | null>((resolve) => {
      entry.getFile(
        path,
        {},
        (found) => resolve(found),
        () => resolve(null),
      );
    });
  return {
    name: entry.name,
    live: true,
    async file(path) {
      const found = (await get(path)) as FileSystemFileEntry | null;
      return found ? await new Promise<File | null>((resolve) => found.file(resolve, () => resolve(null))) : null;
    },
    async folders() {
      const reader = entry.createReader();
      const names: string[] = [];
      // One call gives at most a hundred entries.
      for (;;) {
        const some = await new Promise<FileSystemEntry[]>((resolve) => reader.readEntries(resolve, () => resolve([])));
        if (some.length === 0) return names;
        names.push(...some.filter((one) => one.isDirectory).map(({ name }) => name));
      }
    },
    folder: (name) => {
      const inner = new Promise<FileTree | null>((resolve) => {
        entry.getDirectory(
          name,
          {},
          (found) => resolve(entryTree(found as FileSystemDirectoryEntry)),
          () => resolve(null),
        );
      });
      return {
        name,
        live: true,
        file: async (path) => (await inner)?.file(path) ?? null,
        folders: async () => (await inner)?.folders() ?? [],
        folder: (below) => ({ ...emptyTree(below) }),
      };
    },
  };
}

const emptyTree = (name: string): FileTree => ({
  name,
  live: false,
  file: async () => null,
  folders: async () => [],
  folder: emptyTree,
});

/**
 * The files of an <input webkitdirectory>, or single files that were dropped; paths begin with the folder's name. The
 * browser keeps them as they were picked.
 */
export function listTree(files: readonly File[]): FileTree {
  const byPath = new Map<string, File>();
  for (const file of files) byPath.set(file.webkitRelativePath || file.name, file);
  const first = [...byPath.keys()][0] ?? "";
  const top = first.includes("/") ? first.slice(0, first.indexOf("/")) : "";
  return mapTree(byPath, top ? `${top}/` : "", top || nameOfSingle(files));
}

const nameOfSingle = (files: readonly File[]) => (files[0]?.name ?? "run").replace(/\.jsonl$/i, "");

function mapTree(files: ReadonlyMap<string, File>, prefix: string, name: string): FileTree {
  return {
    name,
    live: false,
    async file(path) {
      const found = files.get(prefix + path);
      if (found || path !== "log.jsonl" || prefix !== "") return found ?? null;
      // A log that was dropped alone, under whatever name.
      const logs = [...files.values()].filter((one) => one.name.toLowerCase().endsWith(".jsonl"));
      return logs.length === 1 ? logs[0]! : null;
    },
    async folders() {
      const names = new Set<string>();
      for (const path of files.keys()) {
        const below = path.startsWith(prefix) ? path.slice(prefix.length) : "";
        if (below.includes("/")) names.add(below.slice(0, below.indexOf("/")));
      }
      return [...names];
    },
    folder: (inner) => mapTree(files, `${prefix}${inner}/`, inner),
  };
}

/** What was dropped, as folders; must be called while the drop event is handled, because its items are gone afterwards. */
export function droppedTrees(data: DataTransfer): Promise<FileTree[]> {
  const items = [...data.items].filter(({ kind }) => kind === "file");
  const loose: File[] = [];
  const trees = items.map((item): Promise<FileTree | null> => {
    const entry = item.webkitGetAsEntry?.() ?? null;
    if (!entry?.isDirectory) {
      const file = item.getAsFile();
      if (file) loose.push(file);
      return Promise.resolve(null);
    }
    const handle = (item as { getAsFileSystemHandle?: () => Promise<FileSystemHandle | null> }).getAsFileSystemHandle;
    if (!handle) return Promise.resolve(entryTree(entry as FileSystemDirectoryEntry));
    return handle
      .call(item)
      .then((found) => (found ? handleTree(found as FileSystemDirectoryHandle) : null))
      .catch(() => entryTree(entry as FileSystemDirectoryEntry));
  });
  return Promise.all(trees).then((found) => {
    const folders = found.filter((tree) => tree !== null);
    return loose.length > 0 ? [...folders, listTree(loose)] : folders;
  });
}
