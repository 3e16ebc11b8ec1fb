// Which file a path of a request means. Whatever is asked for, only regular files inside one folder are found: names are
// checked one by one before the disk is touched, and links that lead out of the folder are followed to where they end.

import * as fs from "node:fs/promises";
import { join, sep } from "node:path";

export interface FoundFile {
  /** Where it lies, all links followed. */
  path: string;
  size: number;
  /** Milliseconds since 1970. */
  modified: number;
}

/** No name of a file or folder in a run is longer. */
const LONGEST_NAME = 255;

/** Names that would leave the folder, are hidden, or mean something else to a system: streams, drives, separators. */
export function isPlainName(name: string): boolean {
  return (
    name.length > 0 && name.length <= LONGEST_NAME && !name.startsWith(".") && !/[\\/:\u0000-\u001f\u007f]/.test(name)
  );
}

/**
 * The parts of a path of a URL, `["samples", "step-000000", "00.png"]`, decoded once; null where one of them is not a plain
 * name or the coding is broken.
 */
export function plainParts(encoded: string): string[] | null {
  try {
    const parts = encoded.split("/").map(decodeURIComponent);
    return parts.every(isPlainName) ? parts : null;
  } catch {
    return null;
  }
}

/** The folder `name` directly in `root`, or null where it is none or a link that leads elsewhere. */
export async function folderInside(root: string, name: string): Promise<string | null> {
  if (!isPlainName(name)) return null;
  try {
    const base = await fs.realpath(root);
    const path = await fs.realpath(join(base, name));
    return path === join(base, name) && (await fs.stat(path)).isDirectory() ? path : null;
  } catch {
    return null;
  }
}

/** The regular file at `parts` inside `folder`, or null where there is none or a link leads out of the folder. */
export async function fileInside(folder: string, parts: readonly string[]): Promise<FoundFile | null> {
  if (parts.length === 0 || !parts.every(isPlainName)) return null;
  try {
    const base = await fs.realpath(folder);
    const path = await fs.realpath(join(base, ...parts));
    if (!path.startsWith(base.endsWith(sep) ? base : base + sep)) return null;
    const facts = await fs.stat(path);
    return facts.isFile() ? { path, size: facts.size, modified: facts.mtimeMs } : null;
  } catch {
    return null;
  }
}
