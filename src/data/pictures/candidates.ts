// What could become a picture of a set: its name, how its bytes and captions are read, and what is known about it. The
// kinds of sources (folder, zip, list of items, parquet, the shipped sheets) all end here.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { ParquetPictures, type ParquetRow } from "../../formats/parquet.ts";
import type { Picture } from "../../formats/png.ts";
import { safeName } from "../../formats/safe_name.ts";
import { JsonError, parseStrictJson } from "../../formats/strict_json.ts";
import { printable } from "../../formats/zip.ts";
import { attributeCaption, EmbeddedData, GENERATOR_STYLES, plainCaption, type Style } from "../embedded.ts";
import { type PromptItem, readPrompts } from "../prompts.ts";
import { type CaptionLines, captionsOfBytes, captionsOfText, LONGEST_CAPTION, tooLong } from "./captions.ts";
import { type Dropped, type FileTree, PICTURE_ENDING, readWhole } from "./tree.ts";

export interface Candidate {
  name: string;
  /** For messages. */
  where: string;
  /** Encoded bytes, or the picture itself where a source has no files. */
  read(): Promise<Uint8Array | Picture>;
  /** None where the source has no text for it. */
  captions(): Promise<string[]>;
  weight?: number;
  split?: "train" | "validation";
  repeats?: number;
}

export interface Source {
  candidates: AsyncIterable<Candidate> | Iterable<Candidate>;
  dropped: Dropped[];
  notices: string[];
  /** Lines to be shown wherever the pictures are. */
  attribution?: string[];
  close(): Promise<void>;
}

const TEXTS = [".txt", ".caption"] as const;
const LARGEST_METADATA = 256 * 1024 * 1024;
/** Four digits are a year. */
const REPEATS = /^(\d{1,3})_/;

interface Details {
  captions: string[] | null;
  weight?: number;
  split?: "train" | "validation";
  /** The line cannot be used, and so neither can its picture. */
  problem?: Dropped;
}

/** Pictures of a folder or an archive. @throws E-DATA-010 a line of metadata is not JSON */
export async function treeSource(tree: FileTree, lines: CaptionLines, setRepeats: string): Promise<Source> {
  const dropped = [...tree.dropped];
  const notices: string[] = [];
  const details = await readMetadata(tree, lines, dropped);
  const candidates: Candidate[] = [];
  const folders = new Map<string, number>();
  for (const [name, read] of tree.files) {
    if (!PICTURE_ENDING.test(name)) continue;
    const own = details.get(name);
    if (own?.problem) {
      dropped.push(own.problem);
      continue;
    }
    const folder = name.includes("/") ? name.split("/")[0]! : setRepeats;
    const repeats = Number(REPEATS.exec(folder)?.[1] ?? 1);
    if (REPEATS.test(folder)) folders.set(folder, repeats);
    if (repeats === 0) {
      dropped.push({ name, code: "E-DATA-049", why: `its folder ${folder} asks for 0 repeats` });
      continue;
    }
    candidates.push({
      name,
      where: tree.where(name),
      read: () => read(),
      captions: async () => own?.captions ?? (await textBeside(tree, name, lines)),
      ...(own?.weight !== undefined && { weight: own.weight }),
      ...(own?.split && { split: own.split }),
      repeats,
    });
  }
  for (const [folder, repeats] of folders)
    notices.push(`folder ${printable(folder)}: each picture is shown ${repeats} times a pass, as its name says`);
  return { candidates, dropped, notices, close: () => tree.close() };
}

async function textBeside(tree: FileTree, name: string, lines: CaptionLines): Promise<string[]> {
  const stem = name.replace(PICTURE_ENDING, "");
  for (const ending of TEXTS) {
    const read = tree.files.get(stem + ending);
    if (read === undefined) continue;
    const where = tree.where(stem + ending);
    let bytes: Uint8Array;
    try {
      bytes = await read(4 * LONGEST_CAPTION);
    } catch (error) {
      // The length limit of pictures speaks of pictures.
      if (error instanceof LongtailError && error.code === "E-DATA-023")
        throw tooLong(where, `more than ${4 * LONGEST_CAPTION} bytes`);
      throw error;
    }
    const found = captionsOfBytes(bytes, where, lines);
    if (found.length > 0) return found;
  }
  return [];
}

/** Every `metadata.jsonl` of the tree; its names count from its own folder. */
async function readMetadata(tree: FileTree, lines: CaptionLines, dropped: Dropped[]): Promise<Map<string, Details>> {
  const found = new Map<string, Details>();
  for (const [path, read] of tree.files) {
    if (path !== "metadata.jsonl" && !path.endsWith("/metadata.jsonl")) continue;
    const folder = path.slice(0, -"metadata.jsonl".length);
    const text = new TextDecoder().decode(await read(LARGEST_METADATA)).replace(/^\ufeff/, "");
    for (const [i, line] of text.split("\n").entries()) {
      if (line.trim() === "") continue;
      const where = `${path}:${i + 1}`;
      const value = jsonOf(line, `${tree.where(path)}:${i + 1}`);
      const refuse = (why: string): Dropped => ({ name: where, code: "E-DATA-041", why });
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        dropped.push(refuse("the line is not an object"));
        continue;
      }
      const fields = value as Record<string, unknown>;
      const asked = fields["file_name"] ?? fields["file"] ?? fields["image"];
      const name = safeName(asked);
      const shown = printable(JSON.stringify(asked ?? null));
      if (name === null) dropped.push(refuse(`file_name ${shown} is not a name inside the folder`));
      else if (!tree.files.has(folder + name)) dropped.push(refuse(`there is no picture ${shown}`));
      else if (!PICTURE_ENDING.test(name)) dropped.push(refuse(`${shown} does not end like a picture`));
      else if (found.has(folder + name))
        dropped.push({ name: where, code: "E-DATA-047", why: `${shown} was named before; the first line counts` });
      else found.set(folder + name, detailsOf(fields, folder + name, where, lines));
    }
  }
  return found;
}

/** A line's value; a key that comes twice, a half surrogate or `__proto__` do no harm in `JSON.parse` with these reads. */
function jsonOf(line: string, where: string): unknown {
  try {
    // Depth is limited first: JSON.parse of a million brackets ends the program in some runtimes.
    if (line.length > 100_000 || /[[{]{20}/.test(line)) parseStrictJson(line, 20);
    return JSON.parse(line);
  } catch (error) {
    if (!(error instanceof JsonError) && !(error instanceof SyntaxError)) throw error;
    throw new LongtailError("E-DATA-010", {
      what: "is not JSON",
      where,
      why: printable(error.message),
      fix: "correct the line; each is an object with file_name and text",
      cause: error,
    });
  }
}

function detailsOf(fields: Record<string, unknown>, name: string, where: string, lines: CaptionLines): Details {
  const problem = (code: string, why: string): Details => ({
    captions: null,
    problem: { name, code, why: `${where}: ${why}` },
  });
  const texts = fields["text"] ?? fields["caption"] ?? fields["prompt"] ?? null;
  const list = texts === null ? [] : Array.isArray(texts) ? texts : [texts];
  if (!list.every((text) => typeof text === "string")) return problem("E-DATA-041", "text is not a text");
  const tags = fields["tags"] ?? [];
  const tagList = typeof tags === "string" ? [tags] : tags;
  if (!Array.isArray(tagList) || !tagList.every((tag) => typeof tag === "string"))
    return problem("E-DATA-041", "tags are not texts");
  const { weight, split } = fields;
  if (weight !== undefined && weight !== null && !(typeof weight === "number" && weight > 0 && weight <= 1e4))
    return problem("E-DATA-041", "weight is not a number above 0");
  const sides: Record<string, "train" | "validation"> = {
    train: "train",
    training: "train",
    validation: "validation",
    val: "validation",
    valid: "validation",
    test: "validation",
  };
  const isSplit = typeof split === "string" && Object.hasOwn(sides, split);
  if (split !== undefined && split !== null && !isSplit)
    return problem("E-DATA-041", "split is neither train nor validation");
  let captions: string[];
  try {
    captions = (list as string[]).flatMap((text) => captionsOfText(text, where, lines));
    const tagText = (tagList as string[]).flatMap((tag) => captionsOfText(tag, where, "whole")).join(", ");
    // As kohya joins them: behind the text, or in its place.
    if (tagText !== "") captions = captions.length === 0 ? [tagText] : captions.map((text) => `${text}, ${tagText}`);
  } catch (error) {
    if (error instanceof LongtailError) return problem(error.code, error.parts.why ?? error.parts.what);
    throw error;
  }
  return {
    captions: captions.length > 0 ? captions : null,
    ...(typeof weight === "number" && { weight }),
    ...(isSplit && { split: sides[split as string]! }),
  };
}

/** Items with pictures: a list as `readPrompts` reads it, whose entries name files beside it. */
export async function itemSource(files: FileStore, path: string, lines: CaptionLines): Promise<Source> {
  const items = await readPrompts(files, path);
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/") + 1) : "";
  const dropped: Dropped[] = [];
  const candidates: Candidate[] = [];
  const seen = new Set<string>();
  for (const item of items) {
    const asked = item.fields["pictures"] ?? item.fields["picture"] ?? item.fields["file_name"] ?? item.fields["image"];
    const list = Array.isArray(asked) ? asked : [asked];
    for (const entry of list) {
      const name = safeName(entry);
      if (name === null || seen.has(name)) {
        const shown = printable(String(JSON.stringify(entry ?? null)));
        const why =
          name === null ? `its picture ${shown} is not a name inside the folder` : `${shown} was named before`;
        dropped.push({ name: item.where, code: name === null ? "E-DATA-041" : "E-DATA-047", why });
        continue;
      }
      seen.add(name);
      const weight = item.fields["weight"];
      candidates.push({
        name,
        where: folder + name,
        read: () => readWhole(files, folder + name, Number.POSITIVE_INFINITY),
        captions: async () => captionsOfText(item.caption, item.where, lines),
        ...(typeof weight === "number" && weight > 0 && weight <= 1e4 && { weight }),
      });
    }
  }
  return { candidates, dropped, notices: [], close: async () => {} };
}

export interface EmbeddedChoice {
  styles?: readonly Style[] | undefined;
  /** A part of the items, or their names. */
  items?: "all" | "tail" | "head" | "aligned" | readonly string[] | undefined;
  /** The caption with the item alone (default), with category and region behind it, or both, taken in turn. */
  captionForm?: "plain" | "attributes" | "both" | undefined;
}

/** The shipped sheets: real pictures of the items in several styles. @throws E-DATA-035 an item is not there */
export async function embeddedSource(files: FileStore, folder: string, choice: EmbeddedChoice): Promise<Source> {
  const data = await EmbeddedData.load(files, folder);
  const { items = "all", styles = GENERATOR_STYLES, captionForm = "plain" } = choice;
  const part =
    typeof items !== "string"
      ? items.map((name) => data.item(name))
      : { all: data.items, tail: data.tail, head: data.head, aligned: data.aligned }[items];
  const texts = (item: PromptItem, style: Style) => {
    const both = { plain: [plainCaption(item, style)], attributes: [attributeCaption(item, style)] };
    return captionForm === "both" ? [...both.plain, ...both.attributes] : both[captionForm];
  };
  const candidates = part.flatMap((item) =>
    data
      .stylesOf(item)
      .filter((style) => styles.includes(style))
      .map(
        (style): Candidate => ({
          name: `${style}/${item.item}`,
          where: `${folder}: ${style} ${item.item}`,
          read: async () => (await data.pictureBytes(item, style))!,
          captions: async () => texts(item, style),
        }),
      ),
  );
  return { candidates, dropped: [], notices: [], attribution: data.attribution(styles), close: async () => {} };
}

/** Row groups whose pictures are kept for the next reads, and their most bytes. */
const GROUPS_KEPT = 4;
const BYTES_KEPT = 256 * 1024 * 1024;

/** Rows of parquet files. */
export async function parquetSource(
  files: FileStore,
  paths: readonly string[],
  lines: CaptionLines,
  columns: { image?: string | undefined; caption?: string | undefined },
): Promise<Source> {
  const tables: ParquetPictures[] = [];
  const close = async () => {
    for (const table of tables) await table.close();
  };
  try {
    for (const path of paths) tables.push(await ParquetPictures.open(files, path, columns));
  } catch (error) {
    await close();
    throw error;
  }
  const kept = new Map<string, { rows: Promise<ParquetRow[]>; bytes: number }>();
  const group = (table: number, index: number): Promise<ParquetRow[]> => {
    const key = `${table}/${index}`;
    const known = kept.get(key);
    const entry = known ?? { rows: tables[table]!.readGroup(index), bytes: 0 };
    // The most recently used comes last.
    kept.delete(key);
    kept.set(key, entry);
    if (known !== undefined) return known.rows;
    return entry.rows.then(
      (rows) => {
        entry.bytes = rows.reduce((sum, row) => sum + (row.image?.length ?? 0), 0);
        const held = () => [...kept.values()].reduce((sum, { bytes }) => sum + bytes, 0);
        while (kept.size > 1 && (kept.size > GROUPS_KEPT || held() > BYTES_KEPT))
          kept.delete(kept.keys().next().value!);
        return rows;
      },
      (error) => {
        kept.delete(key);
        throw error;
      },
    );
  };
  const dropped: Dropped[] = [];
  async function* candidates(): AsyncGenerator<Candidate> {
    for (const [t, table] of tables.entries()) {
      let first = 0;
      for (const [g, rows] of table.groups.entries()) {
        const { length } = await group(t, g);
        for (let i = 0; i < Math.min(rows, length); i++) {
          const where = `${paths[t]}[${first + i}]`;
          const caption = (await group(t, g))[i]!.caption;
          const name = `${tables.length > 1 ? `${paths[t]!.split("/").at(-1)}/` : ""}${first + i}`;
          if ((await group(t, g))[i]!.image === null) {
            dropped.push({ name, code: "E-DATA-024", why: "the row has no picture" });
            continue;
          }
          yield {
            name,
            where,
            read: async () => (await group(t, g))[i]!.image!,
            captions: async () => (caption === null ? [] : captionsOfBytes(caption, where, lines)),
          };
        }
        first += rows;
      }
    }
  }
  const { columns: used } = tables[0]!;
  const notices = [`parquet: pictures from column ${used.image}, captions from ${used.caption ?? "no column"}`];
  return { candidates: candidates(), dropped, notices, close };
}
