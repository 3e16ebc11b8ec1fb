// Ways in for the user's own files: a drop of files, folders and archives, a paste, a file or folder input. All end in one
// list of names and blobs, which the worker checks; nothing is read here.

import type { IncomingFile } from "../protocol.ts";

/** A folder tree that is dropped by mistake (a whole disk) must end: files taken, and folders in one another. */
export const MOST_FILES = 5000;
export const MOST_DEPTH = 12;

/** The part of the browser's file entries that is used, so that tests can play them. */
export interface DroppedEntry {
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  readonly name: string;
  file?(found: (file: File) => void, failed: (error: unknown) => void): void;
  createReader?(): { readEntries(found: (entries: DroppedEntry[]) => void, failed: (error: unknown) => void): void };
}

export interface Gathered {
  files: IncomingFile[];
  /** Whether there was more than is taken. */
  cut: boolean;
}

/** Files of what was dropped, folders walked through. Call it in the event itself: the transfer is empty afterwards. */
export async function filesOfDrop(transfer: Pick<DataTransfer, "items" | "files">): Promise<Gathered> {
  const entries: DroppedEntry[] = [];
  const plain: File[] = [];
  for (const item of Array.from(transfer.items ?? [])) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.() as DroppedEntry | null | undefined;
    if (entry) entries.push(entry);
    else {
      const file = item.getAsFile();
      if (file) plain.push(file);
    }
  }
  if (entries.length === 0 && plain.length === 0) return filesOfInput(transfer.files);
  const walked = await filesOfEntries(entries);
  return { files: [...walked.files, ...filesOfInput(plain).files], cut: walked.cut };
}

/** Files below entries, breadth first. An entry that cannot be read becomes an empty file, which is then reported. */
export async function filesOfEntries(entries: readonly DroppedEntry[]): Promise<Gathered> {
  const files: IncomingFile[] = [];
  let level = entries.map((entry) => ({ entry, name: entry.name }));
  for (let depth = 0; level.length > 0; depth++) {
    const next: typeof level = [];
    for (const { entry, name } of level) {
      if (files.length >= MOST_FILES || depth > MOST_DEPTH) return { files, cut: true };
      if (entry.isFile) files.push({ name, blob: await fileOf(entry) });
      else if (entry.isDirectory)
        for (const inner of await childrenOf(entry)) next.push({ entry: inner, name: `${name}/${inner.name}` });
    }
    level = next;
  }
  return { files, cut: false };
}

const fileOf = (entry: DroppedEntry) => new Promise<Blob>((done) => entry.file!(done, () => done(new Blob())));

async function childrenOf(entry: DroppedEntry): Promise<DroppedEntry[]> {
  const reader = entry.createReader!();
  const found: DroppedEntry[] = [];
  // Chromium hands out a hundred at a time, and an empty list at the end.
  while (found.length <= MOST_FILES) {
    const some = await new Promise<DroppedEntry[]>((done) => reader.readEntries(done, () => done([])));
    if (some.length === 0) break;
    found.push(...some);
  }
  return found;
}

/** Files of an input; those of a folder input keep their path inside it. */
export function filesOfInput(list: ArrayLike<File>): Gathered {
  const all = Array.from(list);
  const files = all.slice(0, MOST_FILES).map((file) => ({ name: file.webkitRelativePath || file.name, blob: file }));
  return { files, cut: all.length > MOST_FILES };
}

/** Pictures of a paste, named by their number: the clipboard calls each of them image.png. */
export function filesOfPaste(transfer: Pick<DataTransfer, "files">, first: number): IncomingFile[] {
  return Array.from(transfer.files).map((file, i) => {
    const isUnnamed = /^image\.\w+$/i.test(file.name);
    const ending = file.name.split(".").at(-1) || "png";
    return { name: isUnnamed ? `pasted ${first + i}.${ending}` : file.name, blob: file };
  });
}
