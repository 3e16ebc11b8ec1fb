// Sets of pictures with captions, as training takes them: from folders, zip archives, parquet files, lists of items and the
// shipped sheets. Every file that is left out is reported with its reason, and a picture never trains with a text that
// nobody gave it.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { sha256 } from "../../base/hash.ts";
import { RandomStream } from "../../base/random.ts";
import { decodePicture, inspectPicture, onBackground, type PictureLimits } from "../../formats/picture.ts";
import type { Picture } from "../../formats/png.ts";
import {
  type Candidate,
  type EmbeddedChoice,
  embeddedSource,
  itemSource,
  parquetSource,
  type Source,
  treeSource,
} from "./candidates.ts";
import { type CaptionLines, captionsOfText } from "./captions.ts";
import { folderTree, type TreeLimits, zipTree } from "./tree.ts";

export type SetKind = "folder" | "zip" | "parquet" | "items" | "embedded";

export interface PictureSetOptions extends EmbeddedChoice {
  path: string;
  /** The last part of the path by default. */
  name?: string | undefined;
  /** Guessed from the path by default. */
  kind?: SetKind | undefined;
  /** Text of pictures that have none of their own. */
  caption?: string | undefined;
  captionLines?: CaptionLines | undefined;
  /** How often each picture comes in a pass, times what a folder's name says. */
  repeats?: number | undefined;
  /** Factor on the loss of these pictures. */
  weight?: number | undefined;
  /** Pictures of the class in general, for prior preservation. */
  prior?: boolean | undefined;
  /** Puts the whole set on one side; else the metadata or the share decides. */
  split?: "train" | "validation" | undefined;
  imageColumn?: string | undefined;
  captionColumn?: string | undefined;
}

export interface PictureRecord {
  /** Set and name: unique, and the same in every run. */
  id: string;
  set: number;
  name: string;
  captions: string[];
  /** Upright. */
  width: number;
  height: number;
  /** SHA-256 of the file's bytes; of the pixels where there is no file. */
  hash: string;
  repeats: number;
  weight: number;
  split: "train" | "validation";
  prior: boolean;
  /** The picture, RGB, upright, on the background. @throws E-DATA-020 it does not decode */
  load(): Promise<Picture>;
}

export interface DroppedFile {
  name: string;
  set: number;
  code: string;
  why: string;
}

export interface PictureCollection {
  pictures: PictureRecord[];
  dropped: DroppedFile[];
  /** What a user should know and need not act on. */
  notices: string[];
  attribution: string[];
  close(): Promise<void>;
}

export interface CollectionOptions extends PictureLimits, TreeLimits {
  /** Share of the training pictures that is held out, chosen by `seed` and the picture's content. */
  validationShare?: number;
  seed?: number;
  /** Colour behind transparent pictures, red, green, blue in [0, 1]; white by default. */
  background?: readonly [number, number, number];
  /** Called after each file. */
  onProgress?: (seen: number, name: string) => void;
}

/** Files that are read and hashed at one time. */
const AT_ONCE = 4;

/**
 * Opens sets of pictures. Files are read once, checked and hashed; pixels are decoded by `load`.
 * @throws E-DATA-042 no picture is left, E-DATA-010 metadata is not JSON, E-DATA-030 an item cannot be used, E-FILE-001 a
 *   path does not exist, E-FILE-080 … 086 an archive or table cannot be read
 */
export async function openPictureSets(
  files: FileStore,
  sets: readonly PictureSetOptions[],
  options: CollectionOptions = {},
): Promise<PictureCollection> {
  const found: PictureCollection = { pictures: [], dropped: [], notices: [], attribution: [], close: async () => {} };
  const sources: Source[] = [];
  found.close = async () => {
    for (const source of sources) await source.close();
  };
  try {
    for (const [number, set] of sets.entries()) {
      const source = await openSource(files, set, options);
      sources.push(source);
      const before = found.pictures.length;
      await admitAll(source, number, nameOf(sets, number), set, options, found);
      found.dropped.push(...source.dropped.map((file) => ({ set: number, ...file })));
      found.notices.push(...source.notices);
      found.attribution.push(...(source.attribution ?? []));
      if (found.pictures.length === before) found.notices.push(`set ${nameOf(sets, number)}: no picture of it is used`);
    }
    if (found.pictures.length === 0) throw nothingLeft(sets, found.dropped);
  } catch (error) {
    await found.close();
    throw error;
  }
  holdOut(found.pictures, sets, options);
  return found;
}

/** A set's name; a second set of one name gets a number. */
function nameOf(sets: readonly PictureSetOptions[], number: number): string {
  const plain = (set: PictureSetOptions) =>
    set.name ??
    set.path
      .replace(/[/\\]+$/, "")
      .split(/[/\\]/)
      .at(-1) ??
    "set";
  const name = plain(sets[number]!);
  const earlier = sets.slice(0, number).filter((set) => plain(set) === name).length;
  return earlier === 0 ? name : `${name}#${earlier + 1}`;
}

async function openSource(files: FileStore, set: PictureSetOptions, options: CollectionOptions): Promise<Source> {
  const { path, captionLines: lines = "first" } = set;
  const columns = { image: set.imageColumn, caption: set.captionColumn };
  const kind = set.kind ?? (await guessKind(files, path));
  if (kind === "parquet") return parquetSource(files, [path], lines, columns);
  if (kind === "items") return itemSource(files, path, lines);
  if (kind === "embedded") return embeddedSource(files, path, set);
  const tree = await (kind === "zip" ? zipTree(files, path, options) : folderTree(files, path, options));
  try {
    const ownName =
      path
        .replace(/[/\\]+$/, "")
        .split(/[/\\]/)
        .at(-1) ?? "";
    const source = await treeSource(tree, lines, kind === "folder" ? ownName : "");
    const tables = [...tree.files.keys()].filter((name) => name.endsWith(".parquet"));
    if (kind !== "folder" || tables.length === 0 || [...(source.candidates as Candidate[])].length > 0) return source;
    return await parquetSource(
      files,
      tables.map((name) => tree.where(name)),
      lines,
      columns,
    );
  } catch (error) {
    await tree.close();
    throw error;
  }
}

async function guessKind(files: FileStore, path: string): Promise<SetKind> {
  const isFile = (await files.list(path)).length === 0;
  if (isFile && /\.zip$/i.test(path)) return "zip";
  if (isFile && /\.parquet$/i.test(path)) return "parquet";
  if (isFile && /\.jsonl?$/i.test(path)) return "items";
  if (isFile && !(await files.exists(path))) {
    throw new LongtailError("E-FILE-001", {
      what: "there is no such file or folder",
      where: path,
      fix: "check the path of the set; relative paths start at the folder in which the command runs",
    });
  }
  const names = await files.list(path);
  return names.includes("pictures.json") && names.includes("items.json") ? "embedded" : "folder";
}

async function admitAll(
  source: Source,
  number: number,
  setName: string,
  set: PictureSetOptions,
  options: CollectionOptions,
  found: PictureCollection,
): Promise<void> {
  let seen = found.pictures.length + found.dropped.length;
  let waiting: { candidate: Candidate; result: Promise<PictureRecord | LongtailError> }[] = [];
  const settle = async () => {
    for (const { candidate, result } of waiting) {
      const outcome = await result;
      options.onProgress?.(++seen, candidate.name);
      if (!(outcome instanceof LongtailError)) found.pictures.push(outcome);
      else {
        const { what, why } = outcome.parts;
        found.dropped.push({
          name: candidate.name,
          set: number,
          code: outcome.code,
          why: why ? `${what}: ${why}` : what,
        });
      }
    }
    waiting = [];
  };
  for await (const candidate of source.candidates) {
    const id = `${setName}/${candidate.name}`;
    const result = admit(candidate, id, number, set, options).catch((error) => {
      if (error instanceof LongtailError) return error;
      throw error;
    });
    waiting.push({ candidate, result });
    if (waiting.length === AT_ONCE) await settle();
  }
  await settle();
}

async function admit(
  candidate: Candidate,
  id: string,
  number: number,
  set: PictureSetOptions,
  options: CollectionOptions,
): Promise<PictureRecord> {
  const { name, where } = candidate;
  let captions = await candidate.captions();
  if (captions.length === 0 && set.caption !== undefined)
    captions = captionsOfText(set.caption, where, set.captionLines ?? "first");
  if (captions.length === 0) {
    throw new LongtailError("E-DATA-040", {
      what: "the picture has no caption",
      where,
      why: "no metadata, .txt or .caption file gives one, and the set has no default",
      fix: "write its caption into a .txt file of its name, or set a default caption",
    });
  }
  const content = await candidate.read();
  const isFile = content instanceof Uint8Array;
  const { width, height } = isFile ? await inspectPicture(content, where, options) : content;
  const hash = await sha256(isFile ? content : (content.data as Uint8Array));
  return {
    id,
    set: number,
    name,
    captions,
    width,
    height,
    hash,
    repeats: (candidate.repeats ?? 1) * (set.repeats ?? 1),
    weight: (candidate.weight ?? 1) * (set.weight ?? 1),
    split: set.split ?? candidate.split ?? "train",
    prior: set.prior ?? false,
    load: async () => {
      const again = await candidate.read();
      const picture = again instanceof Uint8Array ? await decodePicture(again, where, options) : again;
      return onBackground(picture, options.background);
    },
  };
}

/**
 * Moves a share of the training pictures to validation: those whose content draws the smallest numbers, so that one
 * picture keeps its side when others come or go, and copies of it stay on one side.
 */
function holdOut(pictures: PictureRecord[], sets: readonly PictureSetOptions[], options: CollectionOptions): void {
  const { validationShare = 0, seed = 0 } = options;
  const free = pictures.filter((picture) => !picture.prior && !sets[picture.set]!.split && picture.split === "train");
  const contents = [...new Set(free.map((picture) => picture.hash))];
  if (validationShare <= 0 || contents.length < 2) return;
  const draw = new Map(contents.map((hash) => [hash, new RandomStream(seed, `held out/${hash}`).uniform(0)]));
  const count = Math.min(contents.length - 1, Math.max(1, Math.round(validationShare * contents.length)));
  const chosen = new Set(contents.sort((a, b) => draw.get(a)! - draw.get(b)! || (a < b ? -1 : 1)).slice(0, count));
  for (const picture of free) if (chosen.has(picture.hash)) picture.split = "validation";
}

/** How many files were dropped for each reason, most first, with up to three names each. */
export function droppedTable(
  dropped: readonly DroppedFile[],
): { code: string; count: number; names: string[]; why: string }[] {
  const groups = new Map<string, DroppedFile[]>();
  for (const file of dropped) {
    const group = groups.get(file.code) ?? [];
    group.push(file);
    groups.set(file.code, group);
  }
  return [...groups]
    .map(([code, group]) => ({
      code,
      count: group.length,
      names: group.slice(0, 3).map((file) => file.name),
      why: group[0]!.why,
    }))
    .sort((a, b) => b.count - a.count);
}

function nothingLeft(sets: readonly PictureSetOptions[], dropped: readonly DroppedFile[]): LongtailError {
  const reasons = droppedTable(dropped)
    .slice(0, 5)
    .map(({ code, count, names, why }) => `${count} × ${code} (${names[0]}: ${why})`);
  return new LongtailError("E-DATA-042", {
    what: "no picture is left",
    where: sets.map((set) => set.path).join(", "),
    why: reasons.length > 0 ? reasons.join("; ") : "there are no files that end like pictures",
    fix: "check the path; pictures are PNG or JPEG, each with a caption or under a default caption",
  });
}
