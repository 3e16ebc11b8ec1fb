// Paths of the command line ("runs/mine/log.jsonl") in the browser's storage: which folder and name they mean there, and what the
// browser's failures are called here. The page's main thread reads with the same names.

import { LongtailError } from "../../base/errors.ts";

/** Folder of the storage that holds what is being written; it is never listed. */
export const SYSTEM_FOLDER = ".longtail";

/** Segments of a path with "." and ".." resolved; a path cannot leave the storage. */
export function segmentsOf(path: string): string[] {
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "" || segment === ".") continue;
    if (segment === "..") segments.pop();
    else segments.push(segment);
  }
  return segments;
}

/** The one way of writing a path: "./runs//a/../b" is "runs/b". */
export const plainPath = (path: string): string => segmentsOf(path).join("/");

/** A name as the browser takes it: separators of any system and control characters as %XX, and so a "%" before two digits. */
export function encodeName(name: string): string {
  return name.replace(
    /[\\/\u0000-\u001f\u007f]|%(?=[0-9A-Fa-f]{2})/g,
    (c) => `%${c.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** The name that was encoded. */
export function decodeName(name: string): string {
  return name.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
}

/** The folder that `segments` name below `root`; missing ones are made with `create`. Throws the browser's errors. */
export async function folderAt(
  root: FileSystemDirectoryHandle,
  segments: readonly string[],
  create = false,
): Promise<FileSystemDirectoryHandle> {
  let folder = root;
  for (const segment of segments) folder = await folder.getDirectoryHandle(encodeName(segment), { create });
  return folder;
}

/** The file at a path. Throws the browser's errors. */
export async function fileAt(root: FileSystemDirectoryHandle, path: string): Promise<FileSystemFileHandle> {
  const segments = segmentsOf(path);
  const name = segments.pop();
  // The storage's own folder is no file.
  if (name === undefined) throw new DOMException("it is a folder", "TypeMismatchError");
  return (await folderAt(root, segments)).getFileHandle(encodeName(name));
}

const nameOf = (error: unknown): string | null => (error instanceof DOMException ? error.name : null);

/** Nothing is there, or a file stands where a folder of the path should be. */
export function isMissing(error: unknown): boolean {
  return nameOf(error) === "NotFoundError";
}

export const isOtherKind = (error: unknown): boolean => nameOf(error) === "TypeMismatchError";

/** Somebody holds the file: another tab, or an access handle of this one. */
export const isHeld = (error: unknown): boolean => nameOf(error) === "NoModificationAllowedError";

/** Thrown where the browser reports a full storage by the count of bytes written instead of an exception. */
export const storageFull = (): DOMException => new DOMException("the storage's quota is used up", "QuotaExceededError");

const isFull = (error: unknown): boolean =>
  // The newest browsers make a class of it, which is no longer below DOMException everywhere.
  nameOf(error) === "QuotaExceededError" || (error as Error | null)?.name === "QuotaExceededError";

export interface StorageEstimate {
  quota: number | null;
  usage: number | null;
}

/** What the browser says of the storage's size, in bytes; the quota may be far from what it gives in truth. */
export async function storageEstimate(): Promise<StorageEstimate> {
  try {
    const { quota, usage } = await navigator.storage.estimate();
    return { quota: quota ?? null, usage: usage ?? null };
  } catch {
    return { quota: null, usage: null };
  }
}

/** The coded form of what the browser said about a path; errors that are not the browser's come back as they are. */
export async function coded(error: unknown, path: string): Promise<unknown> {
  if (error instanceof LongtailError) return error;
  if (isFull(error)) {
    const { quota, usage } = await storageEstimate();
    // Browsers that keep the true size to themselves say "10 GiB more than is in use", however little is left.
    const of = quota !== null && usage !== null && usage > 0.8 * quota ? ` of ${megabytes(quota)}` : "";
    return new LongtailError("E-ENV-020", {
      what: "the browser's storage for this page is full",
      where: path,
      ...(usage === null ? {} : { why: `${megabytes(usage)}${of} are in use` }),
      fix: "remove runs, picture sets or weights under Storage, or free space on the disk; what was there before is unchanged",
      cause: error,
    });
  }
  if (isMissing(error)) {
    return new LongtailError("E-FILE-001", {
      what: "there is no such file",
      where: path,
      fix: "it may have been removed in another tab, or by the browser; start again",
      cause: error,
    });
  }
  const reasons: Record<string, string> = {
    TypeMismatchError: "a file stands where a folder is expected, or a folder where a file is",
    NoModificationAllowedError: "another tab of this page is using it",
    NotAllowedError: "the browser does not permit it",
    SecurityError: "the browser does not permit it",
    InvalidModificationError: "a folder of that name exists already",
    NotReadableError: "it was changed while it was read, or the disk failed",
  };
  const name = nameOf(error);
  if (name === null) return error;
  return new LongtailError("E-FILE-004", {
    what: "the file cannot be read or written",
    where: path,
    why: reasons[name] ?? (error as Error).message,
    fix: "close other tabs of this page and try again",
    cause: error,
  });
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
