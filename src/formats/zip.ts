// Reading zip archives (PKWARE APPNOTE 6.3) from strangers. The directory at the end says what there is; every number in
// it is checked against the file and against the entry's own header before a byte is decompressed, names lead downwards
// only, and an entry never becomes longer than it announces. An entry that fails is refused alone, with a reason.

import { LongtailError } from "../base/errors.ts";
import type { FileHandle, FileStore } from "../base/files.ts";
import { crc32, InflateError, inflate } from "./inflate.ts";
import { safeName } from "./safe_name.ts";

export interface ZipEntry {
  name: string;
  /** Bytes when decompressed, as announced. */
  size: number;
  readonly packed: number;
  readonly method: number;
  readonly crc: number;
  readonly offset: number;
  /** The name as stored, to be compared with the entry's own header. */
  readonly rawName: Uint8Array;
}

export interface RefusedEntry {
  name: string;
  code: string;
  why: string;
}

export interface ZipLimits {
  /** Entries of an archive; 200,000 by default. */
  maxEntries?: number;
  /** Bytes of one entry, decompressed; 256 MB by default. */
  maxBytes?: number;
}

const END = 0x06054b50;
const END_64_LOCATOR = 0x07064b50;
const END_64 = 0x06064b50;
const DIRECTORY = 0x02014b50;
const LOCAL = 0x04034b50;
const LARGEST_DIRECTORY = 64 * 1024 * 1024;
/** Deflate's best ratio; an entry that announces more lies. */
const BEST_RATIO = 1032;

export class ZipArchive {
  readonly entries: readonly ZipEntry[];
  /** Entries that cannot be used: unsafe or double names, links, encryption, impossible sizes. */
  readonly refused: readonly RefusedEntry[];
  readonly #handle: FileHandle;
  readonly #where: string;

  private constructor(handle: FileHandle, where: string, entries: ZipEntry[], refused: RefusedEntry[]) {
    this.#handle = handle;
    this.#where = where;
    this.entries = entries;
    this.refused = refused;
  }

  /**
   * Reads the directory of an archive.
   * @throws E-FILE-080 it is not a whole zip file, E-FILE-081 it holds more entries than allowed
   */
  static async open(files: FileStore, path: string, limits: ZipLimits = {}): Promise<ZipArchive> {
    const handle = await files.open(path);
    try {
      const { entries, refused } = await readDirectory(handle, path, limits);
      return new ZipArchive(handle, path, entries, refused);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * The content of an entry.
   * @throws E-FILE-082 its header contradicts the directory, it is damaged, or its checksum is wrong
   */
  async read(entry: ZipEntry): Promise<Uint8Array> {
    const packed = await this.#handle.read(await this.#dataStart(entry), entry.packed);
    let content: Uint8Array;
    try {
      content = entry.method === 0 ? packed : inflate([packed], entry.size);
    } catch (error) {
      if (error instanceof InflateError) throw this.#unreadable(entry, error.message, error);
      throw error;
    }
    if (crc32(content) !== entry.crc) throw this.#unreadable(entry, "its checksum is wrong");
    return content;
  }

  /**
   * Reads ranges of a stored entry; its checksum is left to the caller.
   * @throws E-FILE-082 its header contradicts the directory, or it is compressed
   */
  async ranges(entry: ZipEntry): Promise<(begin: number, length: number) => Promise<Uint8Array>> {
    if (entry.method !== 0) throw this.#unreadable(entry, "it is compressed");
    const start = await this.#dataStart(entry);
    return (begin, length) => {
      if (begin < 0 || begin + length > entry.size) throw new RangeError(`bytes ${begin} … of ${entry.name}`);
      return this.#handle.read(start + begin, length);
    };
  }

  /** Where the data of an entry begins, which only the entry's own header says. */
  async #dataStart(entry: ZipEntry): Promise<number> {
    const header = await this.#handle.read(entry.offset, 30 + entry.rawName.length);
    const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
    const sameName =
      view.getUint16(26, true) === entry.rawName.length && entry.rawName.every((byte, i) => header[30 + i] === byte);
    if (view.getUint32(0, true) !== LOCAL || view.getUint16(8, true) !== entry.method || !sameName)
      throw this.#unreadable(entry, "its header says something else than the directory");
    const start = entry.offset + 30 + entry.rawName.length + view.getUint16(28, true);
    if (start + entry.packed > this.#handle.size)
      throw this.#unreadable(entry, "its data lies beyond the end of the archive");
    return start;
  }

  #unreadable(entry: ZipEntry, why: string, cause?: unknown): LongtailError {
    return new LongtailError("E-FILE-082", {
      what: "the entry of the archive cannot be read",
      where: `${this.#where}/${entry.name}`,
      why,
      fix: "pack the archive anew, or take the file out of it",
      cause,
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function readDirectory(handle: FileHandle, where: string, limits: ZipLimits) {
  const { offset, length, count } = await findDirectory(handle, where);
  const { maxEntries = 200_000, maxBytes = 256 * 1024 * 1024 } = limits;
  if (count > maxEntries || length > LARGEST_DIRECTORY) {
    throw new LongtailError("E-FILE-081", {
      what: `the archive announces ${count} entries`,
      where,
      why: `at most ${maxEntries} are read`,
      fix: "unpack it and give the folder, or split it",
    });
  }
  const bytes = await handle.read(offset, length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: ZipEntry[] = [];
  const refused: RefusedEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let n = 0; n < count; n++) {
    if (at + 46 > length || view.getUint32(at, true) !== DIRECTORY)
      throw notZip(where, `its directory breaks off after ${n} of ${count} entries`);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((k) => view.getUint16(at + k, true)) as number[];
    const end = at + 46 + nameLength! + extraLength! + commentLength!;
    if (end > length) throw notZip(where, `its directory breaks off after ${n} of ${count} entries`);
    const rawName = bytes.subarray(at + 46, at + 46 + nameLength!);
    const flags = view.getUint16(at + 8, true);
    const stored = decodeName(rawName);
    const sizes = wideSizes(view, at, bytes.subarray(at + 46 + nameLength!, end - commentLength!));
    const mode = view.getUint8(at + 5) === 3 ? view.getUint32(at + 38, true) >>> 16 : 0;
    const entry = { method: view.getUint16(at + 10, true), crc: view.getUint32(at + 16, true), rawName, ...sizes };
    at = end;
    if (stored.endsWith("/") || stored.endsWith("\\")) continue;
    const refuse = (code: string, why: string) => refused.push({ name: printable(stored), code, why });
    const name = safeName(stored);
    const isAlone = name !== null && !names.has(name);
    if (name === null) refuse("E-DATA-046", "its name leads out of the archive or is not a name");
    else if (!isAlone) refuse("E-DATA-047", "the archive holds this name twice; the first is used");
    else if ((mode & 0xf000) === 0xa000) refuse("E-DATA-048", "it is a link");
    else if (flags & 1) refuse("E-FILE-082", "it is encrypted");
    else if (entry.method !== 0 && entry.method !== 8)
      refuse("E-FILE-082", `its compression (method ${entry.method}) is not read, only deflate is`);
    else if (entry.size > maxBytes)
      refuse("E-FILE-081", `it announces ${entry.size} bytes, at most ${maxBytes} are read`);
    else if (entry.method === 0 ? entry.size !== entry.packed : entry.size > entry.packed * BEST_RATIO)
      refuse("E-FILE-081", `${entry.packed} bytes cannot become the ${entry.size} that it announces`);
    else if (entry.offset + 30 + nameLength! + entry.packed > offset)
      refuse("E-FILE-082", "its data lies beyond the end of the archive");
    else entries.push({ name, ...entry });
    if (name !== null) names.add(name);
  }
  return { entries: withoutOverlaps(entries, refused), refused };
}

/** Entries that share data: a known way to make a small archive huge. The earlier one is kept. */
function withoutOverlaps(entries: ZipEntry[], refused: RefusedEntry[]): ZipEntry[] {
  let end = 0;
  const bad = new Set<ZipEntry>();
  for (const entry of [...entries].sort((a, b) => a.offset - b.offset)) {
    if (entry.offset < end) {
      bad.add(entry);
      refused.push({ name: entry.name, code: "E-FILE-082", why: "it shares its data with another entry" });
    } else end = entry.offset + 30 + entry.rawName.length + entry.packed;
  }
  return entries.filter((entry) => !bad.has(entry));
}

/** Sizes and place of an entry, with those of the zip64 field where they do not fit in 32 bits. */
function wideSizes(view: DataView, at: number, extra: Uint8Array) {
  let [packed, size, offset] = [20, 24, 42].map((k) => view.getUint32(at + k, true)) as [number, number, number];
  const fields = new DataView(extra.buffer, extra.byteOffset, extra.byteLength);
  for (let k = 0; k + 4 <= extra.length; ) {
    const [id, length] = [fields.getUint16(k, true), fields.getUint16(k + 2, true)];
    if (id === 1 && k + 4 + length <= extra.length) {
      let from = k + 4;
      const wide = (value: number) => {
        if (value !== 0xffffffff || from + 8 > k + 4 + length) return value;
        from += 8;
        return Number(fields.getBigUint64(from - 8, true));
      };
      size = wide(size);
      packed = wide(packed);
      offset = wide(offset);
    }
    k += 4 + length;
  }
  return { packed, size, offset };
}

/** The end record: 22 bytes, those of zip64 before it (76), and at most 65,535 of comment behind it. */
async function findDirectory(handle: FileHandle, where: string) {
  // Most archives have no comment, and in a checkpoint the bytes before the end are a tensor's.
  const found = (await findEnd(handle, 98)) ?? (await findEnd(handle, 65_557 + 20));
  if (found === null) throw notZip(where, "it has no valid directory at its end; it was perhaps cut off");
  return found;
}

async function findEnd(handle: FileHandle, most: number) {
  const tailLength = Math.min(handle.size, most);
  const tail = await handle.read(handle.size - tailLength, tailLength);
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  for (let at = tailLength - 22; at >= 0; at--) {
    if (tail[at] !== 0x50 || view.getUint32(at, true) !== END) continue;
    if (at + 22 + view.getUint16(at + 20, true) > tailLength) continue;
    let count = view.getUint16(at + 10, true);
    let length = view.getUint32(at + 12, true);
    let offset = view.getUint32(at + 16, true);
    if ((count === 0xffff || length === 0xffffffff || offset === 0xffffffff) && at >= 20) {
      if (view.getUint32(at - 20, true) === END_64_LOCATOR) {
        const place = Number(view.getBigUint64(at - 12, true));
        if (place + 56 > handle.size) break;
        const wide = await handle.read(place, 56);
        const fields = new DataView(wide.buffer, wide.byteOffset, wide.byteLength);
        if (fields.getUint32(0, true) !== END_64) break;
        [count, length, offset] = [32, 40, 48].map((k) => Number(fields.getBigUint64(k, true))) as [
          number,
          number,
          number,
        ];
      }
    }
    if (offset + length > handle.size) break;
    return { offset, length, count };
  }
  return null;
}

function decodeName(raw: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    return new TextDecoder("latin1").decode(raw);
  }
}

/** Names are shown in reports; those of strangers may hold anything. */
export const printable = (name: string) => name.replace(/[\u0000-\u001f\u007f-\u009f]/g, "\ufffd").slice(0, 200);

function notZip(where: string, why: string): LongtailError {
  return new LongtailError("E-FILE-080", {
    what: "is not a whole zip file",
    where,
    why,
    fix: "copy or pack the archive again, or unpack it and give the folder",
  });
}
