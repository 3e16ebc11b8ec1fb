// The user's own pictures in the browser's storage: what is dropped, pasted or photographed is checked by the readers that
// the command line uses, converted where only the browser can decode it, and kept in `pictures/<set>/` as picture and .txt,
// the layout that `longtail train --data=` reads. Every file that is left out comes back with a code and a reason.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle, FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import { type Candidate, type Source, treeSource } from "../../data/pictures/candidates.ts";
import { captionsOfText } from "../../data/pictures/captions.ts";
import { type Dropped, type FileTree, folderTree, PICTURE_ENDING, zipTree } from "../../data/pictures/tree.ts";
import {
  decodePicture,
  type ForeignDecoder,
  inspectPicture,
  type PictureKind,
  type PictureLimits,
  pictureKind,
  tooManyBytes,
} from "../../formats/picture.ts";
import { encodePng } from "../../formats/png.ts";
import { safeName } from "../../formats/safe_name.ts";
import { printable } from "../../formats/zip.ts";
import type { IncomingFile, PictureSetFacts, SetPicture } from "../protocol.ts";
import { admitForeign } from "./foreign_pictures.ts";
import { captionFromName, setFolder, storedStem, uniqueStem } from "./picture_names.ts";

export interface PictureShelfOptions {
  /** Decodes WebP, AVIF and BMP; without one they are refused. */
  decoder?: ForeignDecoder;
  /** Pixels of the largest picture; 50 million, as `data.max_megapixels` has it. */
  maxPixels?: number;
}

/** Bytes of one file, and of everything that one call unpacks from archives. */
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_UNPACKED = 512 * 1024 * 1024;
const MOST_ENTRIES = 20_000;
const MOST_METADATA = 8 * 1024 * 1024;
const MOST_PICTURES = 1000;
/** Files that are named one by one in the answer. */
const MOST_NAMED = 200;
/** Files that belong to pictures or are left by systems: nobody expects them to be shown. */
const BESIDE = /(^|\/)(\..*|__MACOSX\/.*|Thumbs\.db|desktop\.ini|metadata\.jsonl|[^/]+\.(txt|caption))$/i;
const ENDINGS: Partial<Record<PictureKind, string>> = { PNG: "png", JPEG: "jpg" };

/** What is told of each call; files beyond the named ones are counted. */
class Report {
  readonly dropped: Dropped[] = [];
  #more = 0;
  drop(name: string, code: string, why: string): void {
    if (this.dropped.length < MOST_NAMED) this.dropped.push({ name: printable(name), code, why: printable(why) });
    else this.#more++;
  }
  refuse(name: string, error: unknown): void {
    if (!(error instanceof LongtailError)) throw error;
    const { what, why } = error.parts;
    this.drop(name, error.code, why ? `${what}: ${why}` : what);
  }
  all(): Dropped[] {
    const rest = {
      name: `${this.#more} more files`,
      code: "E-DATA-051",
      why: "left out as well; they are not named one by one",
    };
    return this.#more > 0 ? [...this.dropped, rest] : this.dropped;
  }
}

/** The sets below `pictures/` of a file store. Calls wait for one another, so that two drops do not take one name. */
export class PictureShelf {
  readonly #files: FileStore;
  readonly #limits: PictureLimits;
  /** Width and height of pictures that were read, by path and bytes; forgotten when anything is removed. */
  readonly #sides = new Map<string, { width: number; height: number }>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(files: FileStore, { decoder, maxPixels = 50_000_000 }: PictureShelfOptions = {}) {
    this.#files = files;
    const admitted: ForeignDecoder | undefined =
      decoder &&
      (async (bytes, kind, where) => {
        admitForeign(bytes, kind, where, maxPixels);
        return decoder(bytes, kind, where);
      });
    this.#limits = { maxPixels, maxBytes: MOST_BYTES, decoder: admitted };
  }

  /**
   * Adds pictures, folders and zip archives to a set; captions come from metadata.jsonl, a .txt or .caption file of the
   * same name, else the words of the file's name. Files that cannot be used are in `dropped`.
   * @throws E-DATA-057 the set cannot have this name; errors of the storage
   */
  add(set: string, files: readonly IncomingFile[]): Promise<PictureSetFacts> {
    return this.#inTurn(async () => {
      const folder = setFolder(set);
      const report = new Report();
      const shelf = await this.#shelf(folder);
      const budget = { unpacked: 0 };
      const loose = await looseTree(files, report);
      await this.#admitTree(loose, shelf, report);
      for (const { name, blob } of files) {
        if (!(await isZip(blob))) continue;
        try {
          const tree = budgeted(
            await zipTree(new BlobFile(blob), name, { maxFiles: MOST_ENTRIES, maxBytes: MOST_BYTES }),
            name,
            budget,
          );
          await this.#admitTree(tree, shelf, report).finally(() => tree.close());
        } catch (error) {
          report.refuse(name, error);
        }
      }
      const facts = await this.#facts(set);
      return { ...facts, dropped: [...report.all(), ...facts.dropped] };
    });
  }

  /** Pictures and captions of a set as the command line would read them; empty where there is none. */
  facts(set: string): Promise<PictureSetFacts> {
    return this.#inTurn(() => this.#facts(set));
  }

  /** @throws E-FILE-001 there is no such picture, E-DATA-043 the caption is too long */
  setCaption(path: string, caption: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#known(path);
      const [text = ""] = captionsOfText(caption, path, "whole");
      const stem = path.replace(PICTURE_ENDING, "");
      await this.#files.writeAtomic(`${stem}.txt`, text);
    });
  }

  /** @throws E-FILE-001 there is no such picture */
  removePicture(path: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#known(path);
      this.#sides.clear();
      const stem = path.replace(PICTURE_ENDING, "");
      for (const file of [path, `${stem}.txt`, `${stem}.caption`])
        if (await this.#files.exists(file)) await this.#files.remove(file);
    });
  }

  removeSet(set: string): Promise<void> {
    return this.#inTurn(async () => {
      const folder = setFolder(set);
      this.#sides.clear();
      if (await this.#files.exists(folder)) await this.#files.remove(folder);
    });
  }

  /** Names, pictures and bytes of every set. */
  sets(): Promise<{ name: string; pictures: number; bytes: number }[]> {
    return this.#inTurn(async () => {
      const found = [];
      for (const name of await this.#files.list("pictures")) {
        let [pictures, bytes] = [0, 0];
        for (const file of await this.#files.list(`pictures/${name}`)) {
          if (PICTURE_ENDING.test(file)) pictures++;
          bytes += await sizeOf(this.#files, `pictures/${name}/${file}`);
        }
        found.push({ name, pictures, bytes });
      }
      return found;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #shelf(folder: string): Promise<Shelf> {
    const names = await this.#files.list(folder);
    const stems = new Set(names.map((name) => name.replace(/\.[^.]*$/, "").toLowerCase()));
    const pictures = names.filter((name) => PICTURE_ENDING.test(name));
    const bySize = new Map<number, string[]>();
    for (const name of pictures) {
      const size = await sizeOf(this.#files, `${folder}/${name}`);
      bySize.set(size, [...(bySize.get(size) ?? []), `${folder}/${name}`]);
    }
    return { folder, stems, bySize, count: pictures.length };
  }

  async #admitTree(tree: FileTree, shelf: Shelf, report: Report): Promise<void> {
    for (const name of tree.files.keys())
      if (!PICTURE_ENDING.test(name) && !BESIDE.test(name))
        report.drop(
          name,
          "E-DATA-021",
          /\.zip$/i.test(name) ? "an archive inside an archive is not opened" : "the file is not a picture",
        );
    let source: Source;
    try {
      source = await treeSource(tree, "first", "");
    } catch (error) {
      return report.refuse(error instanceof LongtailError ? (error.parts.where ?? "metadata.jsonl") : "", error);
    }
    for (const { name, code, why } of source.dropped) report.drop(name, code, why);
    for (const candidate of source.candidates as Candidate[]) {
      try {
        await this.#admit(candidate, shelf, report);
      } catch (error) {
        if (isOfStorage(error)) throw error;
        report.refuse(candidate.name, error);
      }
    }
  }

  async #admit(candidate: Candidate, shelf: Shelf, report: Report): Promise<void> {
    const { name, where } = candidate;
    if (shelf.count >= MOST_PICTURES)
      return report.drop(name, "E-DATA-051", `the set holds ${MOST_PICTURES} pictures already`);
    const [caption = captionFromName(name)] = await candidate.captions();
    let bytes = (await candidate.read()) as Uint8Array;
    let kind = pictureKind(bytes);
    if (kind === "PNG" || kind === "JPEG") await inspectPicture(bytes, where, this.#limits);
    else {
      bytes = encodePng(await decodePicture(bytes, where, this.#limits));
      kind = "PNG";
    }
    const twin = await this.#twin(bytes, shelf);
    if (twin !== null) return report.drop(name, "E-DATA-047", `the set holds this very picture already, as ${twin}`);
    const stem = `${shelf.folder}/${uniqueStem(storedStem(name), shelf.stems)}`;
    const path = `${stem}.${ENDINGS[kind]}`;
    // The caption comes first: a picture never stands there without one.
    await stored(async () => {
      await this.#files.makeFolder(shelf.folder);
      await this.#files.writeAtomic(`${stem}.txt`, caption);
      await this.#files.writeAtomic(path, bytes);
    });
    shelf.bySize.set(bytes.length, [...(shelf.bySize.get(bytes.length) ?? []), path]);
    shelf.count++;
  }

  /** The stored picture with the same bytes, or null. */
  async #twin(bytes: Uint8Array, shelf: Shelf): Promise<string | null> {
    const candidates = shelf.bySize.get(bytes.length) ?? [];
    if (candidates.length === 0) return null;
    const hash = await sha256(bytes);
    for (const path of candidates)
      if ((await sha256(await this.#files.readBytes(path))) === hash) return path.slice(shelf.folder.length + 1);
    return null;
  }

  async #facts(set: string): Promise<PictureSetFacts> {
    const path = setFolder(set);
    const tree = await folderTree(this.#files, path, { maxFiles: 3 * MOST_PICTURES, maxBytes: MOST_BYTES });
    const report = new Report();
    const source = await treeSource(tree, "first", "");
    for (const { name, code, why } of source.dropped) report.drop(name, code, why);
    const pictures: SetPicture[] = [];
    for (const candidate of source.candidates as Candidate[]) {
      try {
        const [caption = ""] = await candidate.captions();
        const path = candidate.where;
        const key = `${path} ${await sizeOf(this.#files, path)}`;
        const known = this.#sides.get(key);
        const sides = known ?? (await inspectPicture((await candidate.read()) as Uint8Array, path, this.#limits));
        this.#sides.set(key, sides);
        pictures.push({ path, width: sides.width, height: sides.height, caption });
      } catch (error) {
        report.refuse(candidate.name, error);
      }
    }
    return { name: set, path, pictures, dropped: report.all() };
  }

  /** Only a picture of a set is ever changed, whatever path the page sends. */
  async #known(path: string): Promise<void> {
    const [root, set, name, ...more] = (safeName(path) ?? "").split("/");
    const isPicture = root === "pictures" && more.length === 0 && PICTURE_ENDING.test(name ?? "");
    if (isPicture && setFolder(set!) && (await this.#files.exists(path))) return;
    throw new LongtailError("E-FILE-001", { what: "there is no such picture", where: path, fix: "reload the page" });
  }
}

interface Shelf {
  folder: string;
  /** Lower case. */
  stems: Set<string>;
  bySize: Map<number, string[]>;
  count: number;
}

/** Marks what the storage throws, which is no fault of the file that was being read. */
const OF_STORAGE = new WeakSet<object>();
const isOfStorage = (error: unknown) => typeof error === "object" && error !== null && OF_STORAGE.has(error);

async function stored<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (typeof error === "object" && error !== null) OF_STORAGE.add(error);
    throw error;
  }
}

async function sizeOf(files: FileStore, path: string): Promise<number> {
  const handle = await files.open(path);
  await handle.close();
  return handle.size;
}

async function headOf(blob: Blob, length = 512): Promise<Uint8Array> {
  return new Uint8Array(await blob.slice(0, length).arrayBuffer());
}

async function isZip(blob: Blob): Promise<boolean> {
  const head = await headOf(blob, 4);
  return head[0] === 0x50 && head[1] === 0x4b && (head[2] === 3 || head[2] === 5);
}

/** Single files as a tree. What has no picture's ending and begins like one gets an ending; archives are left out. */
async function looseTree(files: readonly IncomingFile[], report: Report): Promise<FileTree> {
  const found = new Map<string, (most?: number) => Promise<Uint8Array>>();
  for (const { name: given, blob } of files) {
    if (await isZip(blob)) continue;
    const name = safeName(given);
    if (name === null) {
      report.drop(given, "E-DATA-046", "its name is none, or leads out of the folder");
      continue;
    }
    if (BESIDE.test(name) && !/\.(txt|caption|jsonl)$/i.test(name)) continue;
    const kind = PICTURE_ENDING.test(name) || BESIDE.test(name) ? "unknown" : pictureKind(await headOf(blob));
    const whole = kind === "unknown" ? name : `${name}.${kind.toLowerCase().replace(/[^a-z]/g, "")}`;
    if (blob.size === 0 && !BESIDE.test(name)) {
      report.drop(name, "E-DATA-024", "the file is empty: it has 0 bytes, perhaps of a copy that was interrupted");
      continue;
    }
    let free = whole;
    for (let n = 2; found.has(free); n++) free = whole.replace(/(\.[^.]*)?$/, (ending) => `-${n}${ending}`);
    found.set(free, async (asked = MOST_BYTES) => {
      const most = Math.min(asked, /metadata\.jsonl$/.test(name) ? MOST_METADATA : MOST_BYTES);
      if (blob.size > most) throw tooManyBytes(name, blob.size, most);
      return new Uint8Array(await blob.arrayBuffer());
    });
  }
  const sorted = new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
  return { files: sorted, dropped: [], where: (name) => name, close: async () => {} };
}

/** The tree of an archive, which may unpack no more than `MOST_UNPACKED` bytes in all. */
function budgeted(tree: FileTree, where: string, budget: { unpacked: number }): FileTree {
  const files = new Map(
    [...tree.files].map(([name, read]) => {
      const guarded = async (asked = MOST_BYTES) => {
        if (budget.unpacked >= MOST_UNPACKED) {
          throw new LongtailError("E-FILE-156", {
            what: "the archive unpacks to too much",
            where,
            why: `at most ${MOST_UNPACKED / 1024 / 1024} MB are unpacked in one go`,
            fix: "unpack it and give the pictures that you mean",
          });
        }
        const bytes = await read(Math.min(asked, /metadata\.jsonl$/.test(name) ? MOST_METADATA : MOST_BYTES));
        budget.unpacked += bytes.length;
        return bytes;
      };
      return [name, guarded] as const;
    }),
  );
  return { files, dropped: tree.dropped, where: (name) => tree.where(name), close: () => tree.close() };
}

/** One blob as a file store, for readers that take a path. */
class BlobFile implements FileStore {
  readonly #blob: Blob;
  constructor(blob: Blob) {
    this.#blob = blob;
  }
  async open(path: string): Promise<FileHandle> {
    const blob = this.#blob;
    return {
      size: blob.size,
      read: async (offset, length) => {
        if (offset < 0 || offset + length > blob.size)
          throw new LongtailError("E-FILE-003", { what: "the file ends too early", where: path, fix: "copy it again" });
        return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      },
      close: async () => {},
    };
  }
  exists = async () => true;
  list = async () => [];
  readBytes = async () => new Uint8Array(await this.#blob.arrayBuffer());
  readText = () => this.#blob.text();
  writeAtomic = readOnly;
  append = readOnly;
  makeFolder = readOnly;
  rename = readOnly;
  remove = readOnly;
  freeSpace = async () => null;
}

async function readOnly(): Promise<never> {
  throw new RangeError("a dropped file is not written");
}
