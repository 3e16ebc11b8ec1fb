// The pictures of an evaluation with their prompts: of a run or of any folder. A prompt is what the user gives with
// --prompts, else HPS's benchmark list, else a .txt file of the picture's name, else the text inside the PNG.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { folderTree, PICTURE_ENDING } from "../../data/pictures/tree.ts";
import { parseJson } from "../../formats/jsonl.ts";
import { decodePicture, onBackground } from "../../formats/picture.ts";
import { toPlanes } from "../../formats/png.ts";
import { readRecord } from "../../runs/run_folder.ts";

/** Folders of HPS's benchmark; picture 00012 of one has prompt 12 of its list. */
export const HPS_STYLES = ["anime", "concept-art", "paintings", "photo"] as const;

export interface EvalPicture {
  /** Path below the folder, with `/`. */
  name: string;
  /** First folder of the path; the folder of the step in a run. */
  group: string;
  read(): Promise<Uint8Array>;
  /** Null where only the picture itself can tell. */
  prompt: string | null;
}

export interface EvalPictures {
  pictures: EvalPicture[];
  /** Folder that the names are below. */
  folder: string;
  /** Where results go by default. */
  home: string;
}

/** Sheets that commands leave beside their pictures. */
const SHEETS = /(?:^|\/)grid\.png$/;

/**
 * @param place a folder of pictures, or a run by its folder or name
 * @param prompts a folder of benchmark_*.json, or a .json object from picture names to prompts; null to look beside the pictures
 * @throws LongtailError E-FILE-001 nothing is there, E-DATA-072 no pictures, E-DATA-073 a list of prompts that does not fit
 */
export async function findPictures(files: FileStore, place: string, prompts: string | null): Promise<EvalPictures> {
  // A run may be called by its name alone.
  const named = !(await files.exists(place)) && (await readRecord(files, `runs/${place}`)) !== null;
  const where = named ? `runs/${place}` : place;
  const run = (await readRecord(files, where)) !== null;
  const folder = run ? `${where}/samples` : where;
  if (!(await files.exists(where)))
    throw new LongtailError("E-FILE-001", {
      what: "there is no such folder",
      where,
      why: "pictures were expected there",
      fix: "give a folder of pictures, or of a run",
    });
  const tree = await folderTree(files, folder);
  const names = [...tree.files.keys()].filter((name) => PICTURE_ENDING.test(name) && !SHEETS.test(name));
  if (names.length === 0)
    throw new LongtailError("E-DATA-072", {
      what: "there are no pictures",
      where: folder,
      why: run ? "the run has not drawn any yet" : "no file there has the ending of a picture",
      fix: "give a folder with PNG or JPEG files",
    });
  const lists = await benchmarkLists(files, prompts ?? folder);
  const given = prompts !== null && lists.size === 0 ? await namedPrompts(files, prompts) : null;
  const pictures: EvalPicture[] = [];
  for (const name of names) {
    const group = name.includes("/") ? name.slice(0, name.indexOf("/")) : "";
    const text = tree.files.get(name.replace(PICTURE_ENDING, ".txt"));
    const list = lists.get(group);
    let prompt: string | null = null;
    if (list) prompt = benchmarkPrompt(name, group, list, tree.where(name));
    else if (given) prompt = given.get(name) ?? given.get(name.split("/").at(-1)!) ?? null;
    else if (text)
      prompt =
        new TextDecoder()
          .decode(await text())
          .replace(/^\ufeff/, "")
          .trim() || null;
    pictures.push({ name, group, prompt, read: () => tree.files.get(name)!() });
  }
  return { pictures, folder, home: where };
}

/** Prompts of HPS's styles, from `benchmark_<style>.json` or `<style>.json` in `folder` or its folder `benchmark`. */
async function benchmarkLists(files: FileStore, folder: string): Promise<Map<string, string[]>> {
  const lists = new Map<string, string[]>();
  if (folder.endsWith(".json")) return lists;
  for (const style of HPS_STYLES)
    for (const path of [
      `${folder}/benchmark_${style}.json`,
      `${folder}/benchmark/benchmark_${style}.json`,
      `${folder}/${style}.json`,
    ]) {
      if (lists.has(style) || !(await files.exists(path))) continue;
      const list = parseJson(await files.readText(path), path);
      if (!Array.isArray(list) || !list.every((prompt) => typeof prompt === "string"))
        throw wrongPrompts(path, "it is not a list of texts");
      lists.set(style, list);
    }
  return lists;
}

function benchmarkPrompt(name: string, style: string, list: readonly string[], where: string): string {
  const number = /^(\d+)\.[a-z]+$/i.exec(name.split("/").at(-1)!)?.[1];
  const prompt = number === undefined ? undefined : list[Number(number)];
  if (prompt !== undefined) return prompt;
  throw wrongPrompts(
    where,
    number === undefined ? "its name is no number" : `benchmark_${style}.json has ${list.length} prompts, from 0`,
  );
}

async function namedPrompts(files: FileStore, path: string): Promise<Map<string, string>> {
  if (!path.endsWith(".json"))
    throw wrongPrompts(
      path,
      `it is neither a .json file nor a folder with ${HPS_STYLES.map((s) => `benchmark_${s}.json`).join(", ")}`,
    );
  const value = parseJson(await files.readText(path), path);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrongPrompts(path, "it holds no object from picture names to prompts");
  return new Map(Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string"));
}

function wrongPrompts(where: string, why: string): LongtailError {
  return new LongtailError("E-DATA-073", {
    what: "no prompt can be found",
    where,
    why,
    fix: 'use HPS\'s benchmark files, or a .json object such as {"taco_0.png": "icon of taco"}',
  });
}

/** Keywords of PNG texts that hold a prompt: ours, and the first line of the web interfaces' parameters. */
function promptInside(text: Readonly<Record<string, string>>): string | null {
  const own = text["prompt"];
  // ComfyUI stores its whole graph as JSON under the same word.
  if (own && !own.trimStart().startsWith("{")) return own.trim();
  const parameters = text["parameters"] ?? text["Description"];
  return parameters ? parameters.split(/\nNegative prompt:|\nSteps:/)[0]!.trim() || null : null;
}

/** Pixels of a picture as planes, and the prompt: that of the list, else the one inside. */
export async function openPicture(
  picture: EvalPicture,
  bytes: Uint8Array,
): Promise<{ planes: Float32Array; width: number; height: number; prompt: string | null }> {
  const decoded = await decodePicture(bytes, picture.name);
  return {
    planes: toPlanes(onBackground(decoded)),
    width: decoded.width,
    height: decoded.height,
    prompt: picture.prompt ?? promptInside(decoded.text),
  };
}
