// Files below a folder or inside a zip archive, seen in one way: names with `/` between folders, each with a reader. What a
// walk leaves out, and why, is told.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { MOST_BYTES, tooManyBytes } from "../../formats/picture.ts";
import { printable, ZipArchive } from "../../formats/zip.ts";

export interface Dropped {
  name: string;
  code: string;
  why: string;
}

export interface FileTree {
  /** Readers by name, sorted by name. */
  readonly files: ReadonlyMap<string, (maxBytes?: number) => Promise<Uint8Array>>;
  readonly dropped: readonly Dropped[];
  /** The path of a file for messages. */
  where(name: string): string;
  close(): Promise<void>;
}

export interface TreeLimits {
  /** Folders in one another, 12 by default. */
  maxDepth?: number;
  /** Files in all, 200,000 by default. */
  maxFiles?: number;
  maxBytes?: number;
}

export const PICTURE_ENDING = /\.(png|jpe?g|jpe|jfif|webp|avif|gif|bmp|tiff?|hei[cf]|jxl|jp2|svg)$/i;
const OTHER_ENDING = /\.(txt|caption|jsonl?|csv|md|parquet|npz|npy|safetensors|zip|html?|toml|ya?ml|py|log)$/i;
/** Left by systems and editors; nobody means them to be pictures. */
const IGNORED = /^(\..*|__MACOSX|@eaDir|Thumbs\.db|desktop\.ini)$/i;
/** More links in one another than any system follows. */
const LINKS_FOLLOWED = 64;

/** The files below a folder. */
export async function folderTree(files: FileStore, folder: string, limits: TreeLimits = {}): Promise<FileTree> {
  const { maxDepth = 12, maxFiles = 200_000, maxBytes = MOST_BYTES } = limits;
  const found = new Map<string, (most?: number) => Promise<Uint8Array>>();
  const dropped: Dropped[] = [];
  const path = (name: string) => (folder === "" ? name : `${folder.replace(/\/+$/, "")}/${name}`);

  const walk = async (inside: string, names: readonly string[], above: readonly Above[]) => {
    for (const entry of names) {
      if (IGNORED.test(entry)) continue;
      const name = inside === "" ? entry : `${inside}/${entry}`;
      if (found.size >= maxFiles) {
        throw new LongtailError("E-DATA-051", {
          what: `the folder holds more than ${maxFiles} files`,
          where: folder,
          fix: "give a folder that holds the pictures alone, or several sets",
        });
      }
      if (PICTURE_ENDING.test(entry) || OTHER_ENDING.test(entry)) {
        found.set(name, (most = maxBytes) => readWhole(files, path(name), most));
        continue;
      }
      const inner = await listed(files, path(name));
      if (typeof inner === "string") dropped.push({ name: printable(name), code: "E-DATA-048", why: inner });
      else if (inner.length === 0) continue;
      else if (await isLoop(files, path(""), name, inner, above))
        dropped.push({ name: printable(name), code: "E-DATA-048", why: "it is a link to a folder above it" });
      else if (above.length >= maxDepth)
        dropped.push({ name: printable(name), code: "E-DATA-048", why: `it lies more than ${maxDepth} folders deep` });
      else await walk(name, inner, [...above, { inside: name, names: inner }]);
    }
  };
  const top = await files.list(folder);
  await walk("", top, [{ inside: "", names: top }]);
  const sorted = new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { files: sorted, dropped, where: path, close: async () => {} };
}

interface Above {
  inside: string;
  names: readonly string[];
}

async function listed(files: FileStore, path: string): Promise<string[] | string> {
  try {
    return await files.list(path);
  } catch (error) {
    if (error instanceof LongtailError) return error.parts.why ?? error.parts.what;
    throw error;
  }
}

/**
 * A folder that holds the same names as one above it may be a link back to it. Then the way from there to here can be gone
 * again and again, until the system gives up; in a real folder it ends.
 */
async function isLoop(
  files: FileStore,
  root: string,
  name: string,
  names: readonly string[],
  above: readonly Above[],
): Promise<boolean> {
  for (const folder of above) {
    if (folder.names.length !== names.length || folder.names.some((other, i) => other !== names[i])) continue;
    const way = folder.inside === "" ? name : name.slice(folder.inside.length + 1);
    try {
      if (await files.exists(`${root}${name}${`/${way}`.repeat(LINKS_FOLLOWED)}`)) return true;
    } catch (error) {
      if (error instanceof LongtailError) return true;
      throw error;
    }
  }
  return false;
}

/** Reads a file whose size is looked at first. */
export async function readWhole(files: FileStore, path: string, most: number): Promise<Uint8Array> {
  const handle = await files.open(path);
  try {
    if (handle.size > most) throw tooManyBytes(path, handle.size, most);
    return await handle.read(0, handle.size);
  } finally {
    await handle.close();
  }
}

/** The files in a zip archive; a single folder around everything is taken away. */
export async function zipTree(files: FileStore, path: string, limits: TreeLimits = {}): Promise<FileTree> {
  const { maxDepth = 12, maxFiles = 200_000, maxBytes = MOST_BYTES } = limits;
  const archive = await ZipArchive.open(files, path, { maxEntries: maxFiles, maxBytes });
  const dropped: Dropped[] = [...archive.refused];
  const entries = archive.entries.filter(({ name }) => {
    const parts = name.split("/");
    if (parts.some((part) => IGNORED.test(part))) return false;
    if (parts.length <= maxDepth + 1) return true;
    dropped.push({ name: printable(name), code: "E-DATA-048", why: `it lies more than ${maxDepth} folders deep` });
    return false;
  });
  const first = entries[0]?.name.split("/")[0] ?? "";
  const isWrapped =
    entries.length > 0 && entries.every(({ name }) => name.startsWith(`${first}/`)) && !/^\d+_/.test(first);
  const found = new Map(
    entries
      .map((entry) => [isWrapped ? entry.name.slice(first.length + 1) : entry.name, entry] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, entry]) => {
        const read = async (most = maxBytes) => {
          if (entry.size > most) throw tooManyBytes(`${path}/${name}`, entry.size, most);
          return archive.read(entry);
        };
        return [name, read] as const;
      }),
  );
  return { files: found, dropped, where: (name) => `${path}/${name}`, close: () => archive.close() };
}
