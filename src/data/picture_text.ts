// Folders of pictures with their texts, for SRPO's offline mode, which starts from real pictures in place of rollouts.
// The text of a picture is looked for in `metadata.jsonl`, then in a file of the same name ending in `.txt`, then in
// `.caption`, then in the folder's default; a picture without any text is an error, never an empty prompt.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { parseJsonLines } from "../formats/jsonl.ts";
import { decodePng, type Picture } from "../formats/png.ts";

export interface PictureText {
  /** Path of the picture in the file store. */
  readonly path: string;
  readonly text: string;
  /** Where the text was found. */
  readonly source: "metadata.jsonl" | ".txt" | ".caption" | "default";
}

const PICTURES = /\.(png|jpe?g|webp|avif|gif|bmp|tiff?)$/i;

/**
 * Lists the pictures of a folder with their texts, in the order of their names.
 * @param defaultText the text of pictures that have none of their own
 * @throws E-DATA-010 metadata is not JSON, E-DATA-021 a picture is not a PNG, E-DATA-040 a picture has no text,
 *   E-DATA-041 metadata names a missing picture or no name at all, E-DATA-042 the folder has no pictures
 */
export async function readPictureFolder(
  files: FileStore,
  folder: string,
  defaultText?: string,
): Promise<PictureText[]> {
  const names = await files.list(folder);
  const metadata = new Map<string, string | null>();
  const metadataPath = `${folder}/metadata.jsonl`;
  if (names.includes("metadata.jsonl")) {
    for (const { line, value } of parseJsonLines(await files.readText(metadataPath), metadataPath)) {
      const { file_name: name, text } = (value ?? {}) as Record<string, unknown>;
      const where = `${metadataPath}:${line}`;
      // A name stays inside its folder.
      if (typeof name !== "string" || name === "" || /^[/\\]|\\|(^|\/)\.\.(\/|$)|^[a-z]:/i.test(name)) {
        throw badMetadata(where, `file_name ${JSON.stringify(name ?? null)} is not a name inside the folder`);
      }
      if (text !== undefined && text !== null && typeof text !== "string")
        throw badMetadata(where, "text is not a text");
      if (!(await files.exists(`${folder}/${name}`))) throw badMetadata(where, `there is no picture ${name}`);
      metadata.set(name, typeof text === "string" && text.trim() !== "" ? text.trim() : null);
    }
  }

  const pictures = [...new Set([...names.filter((name) => PICTURES.test(name)), ...metadata.keys()])].sort();
  if (pictures.length === 0) {
    throw new LongtailError("E-DATA-042", {
      what: "there are no pictures",
      where: folder,
      why: "no file there ends in .png",
      fix: "check the path; pictures lie directly in the folder or are named by its metadata.jsonl",
    });
  }
  const others = pictures.filter((name) => !/\.png$/i.test(name));
  if (others.length > 0)
    throw notPng(`${folder}/${others[0]}`, `${others.length} of ${pictures.length} pictures are not PNG files`);

  const found: PictureText[] = [];
  for (const name of pictures) {
    const path = `${folder}/${name}`;
    const own = metadata.get(name);
    if (own) {
      found.push({ path, text: own, source: "metadata.jsonl" });
      continue;
    }
    found.push({ path, ...(await textBeside(files, path, defaultText)) });
  }
  return found;
}

async function textBeside(
  files: FileStore,
  path: string,
  defaultText: string | undefined,
): Promise<Pick<PictureText, "text" | "source">> {
  const stem = path.replace(/\.png$/i, "");
  for (const source of [".txt", ".caption"] as const) {
    if (!(await files.exists(stem + source))) continue;
    const text = (await files.readText(stem + source)).replace(/^\ufeff/, "").trim();
    if (text !== "") return { text, source };
  }
  if (defaultText !== undefined && defaultText.trim() !== "") return { text: defaultText.trim(), source: "default" };
  throw new LongtailError("E-DATA-040", {
    what: "the picture has no text",
    where: path,
    why: "neither metadata.jsonl nor a .txt or .caption file of its name gives one",
    fix: `write its text into ${stem}.txt, or set a default text`,
  });
}

/**
 * Reads one picture of such a folder.
 * @throws E-DATA-020 it does not decode, E-DATA-021 it is not a PNG
 */
export async function readPicture(files: FileStore, path: string): Promise<Picture> {
  if (!/\.png$/i.test(path)) throw notPng(path, "only PNG pictures are read");
  return decodePng(await files.readBytes(path), path);
}

function notPng(where: string, why: string): LongtailError {
  return new LongtailError("E-DATA-021", {
    what: "the picture is not a PNG",
    where,
    why,
    fix: "convert the pictures, for example with: magick mogrify -format png *.jpg",
  });
}

function badMetadata(where: string, why: string): LongtailError {
  return new LongtailError("E-DATA-041", {
    what: "the line cannot be used",
    where,
    why,
    fix: "each line is an object with file_name (inside the folder) and text",
  });
}
