// The 300 items of the CuRe benchmark (Rege et al., ICCV 2025, arXiv 2506.08071) from its six CSV files. The columns stand
// in another order in each file, so they are found by their names.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { type PromptItem, promptItem, spaced } from "./prompts.ts";

export const CURE_SETS = ["architecture", "art", "celebrations", "fashion", "food", "people"] as const;
export type CureSet = (typeof CURE_SETS)[number];

export interface CureItem extends PromptItem {
  readonly superCategory: CureSet;
  readonly continent: string;
  /** Century of the artefact; empty for celebrations, fashion and food. */
  readonly time: string;
  readonly globalSouth: boolean;
  /** Names of Wikimedia Commons categories with reference pictures. */
  readonly wikimedia: readonly string[];
}

/**
 * Rows of a CSV text (RFC 4180: quotes around fields with commas or line breaks, doubled quotes inside).
 * @throws E-DATA-033 a quote that is never closed
 */
export function parseCsv(text: string, where: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let at = text.startsWith("\ufeff") ? 1 : 0;
  const endRow = () => {
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  };
  while (at < text.length) {
    let field = "";
    if (text[at] === '"') {
      const opened = at;
      for (at++; ; at++) {
        if (at >= text.length)
          throw badTable(`${where}:${text.slice(0, opened).split("\n").length}`, "a quote is never closed");
        if (text[at] !== '"') field += text[at];
        else if (text[at + 1] === '"') {
          field += '"';
          at++;
        } else break;
      }
      at++;
    } else {
      const end = text.slice(at).search(/[,\r\n]/);
      field = end < 0 ? text.slice(at) : text.slice(at, at + end);
      at += field.length;
    }
    row.push(field);
    if (text[at] === ",") {
      at++;
      if (at === text.length) row.push("");
      continue;
    }
    if (at < text.length && text[at] !== "\r" && text[at] !== "\n") {
      throw badTable(`${where}:${text.slice(0, at).split("\n").length}`, "text follows a closing quote");
    }
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
    endRow();
  }
  if (row.length > 0) endRow();
  return rows;
}

/**
 * Reads CuRe's items from a folder with its CSV files. `people` names real persons and is left out unless asked for.
 * The caption is the benchmark's plain prompt, «An image of <item>».
 * @throws E-DATA-033 a column is missing or a row is short, and what the file store throws
 */
export async function readCure(
  files: FileStore,
  folder: string,
  sets: readonly CureSet[] = CURE_SETS.filter((set) => set !== "people"),
): Promise<CureItem[]> {
  const items: CureItem[] = [];
  for (const set of sets) {
    const path = `${folder}/${set}.csv`;
    const [heading, ...rows] = parseCsv(await files.readText(path), path);
    const columns = new Map((heading ?? []).map((name, i) => [name.trim(), i]));
    for (const name of ["Category", "Region", "Item", "Continent", "Wikimedia_Category", "Global North/South"]) {
      if (!columns.has(name)) throw badTable(path, `column ${name} is missing`);
    }
    for (const [i, row] of rows.entries()) {
      const where = `${path}[${i}]`;
      if (row.length !== columns.size)
        throw badTable(where, `the row has ${row.length} fields, the heading ${columns.size}`);
      const field = (name: string) => (columns.has(name) ? row[columns.get(name)!]!.trim() : "");
      const [item, category, region] = [field("Item"), field("Category"), field("Region")];
      if (item === "") throw badTable(where, "the item has no name");
      items.push({
        ...promptItem({ item, caption: `An image of ${item}`, category, region }, items.length, where),
        superCategory: set,
        continent: spaced(field("Continent")),
        time: field("Time"),
        globalSouth: field("Global North/South") === "Global South",
        // Parentheses are escaped for a tool of the authors.
        wikimedia: field("Wikimedia_Category")
          .split(";")
          .map((name) => name.replace(/\\([()])/g, "$1").trim())
          .filter((name) => name !== ""),
      });
    }
  }
  return items;
}

function badTable(where: string, why: string): LongtailError {
  return new LongtailError("E-DATA-033", {
    what: "the table cannot be read",
    where,
    why,
    fix: "restore the file from models/cure, or correct it there",
  });
}
