// The 525 concepts of the long-tail mode: items with category, region and rarity, where their real pictures lie in the
// sheets, and their places on the map. Pure apart from the reader that is handed in.

import { attributeCaption, plainCaption, STYLES, type Style } from "../../data/embedded.ts";
import { type PromptItem, promptItem } from "../../data/prompts.ts";

/** A picture's place in its sheet, in cells. */
export interface Cell {
  sheet: string;
  column: number;
  row: number;
}

export interface Concept {
  readonly index: number;
  readonly name: string;
  readonly category: string;
  /** Empty for most head concepts. */
  readonly region: string;
  readonly tail: boolean;
  /** Belongs to the 32 of the experiment. */
  readonly align: boolean;
  /** How often it was drawn in pretraining, 1 for the average head concept. */
  readonly frequency: number;
  readonly item: PromptItem;
  readonly cells: ReadonlyMap<Style, Cell>;
  /** Place on the map, within radius 1. */
  readonly place: readonly [number, number, number];
  /** Indices of the nearest concepts by what the judge sees, nearest first. */
  readonly neighbours: readonly number[];
}

export interface Catalogue {
  readonly concepts: readonly Concept[];
  /** Width and height of a cell in pixels. */
  readonly cell: number;
  /** Cells in a row of a sheet. */
  readonly columns: number;
  /** Rows of each sheet. */
  readonly rows: ReadonlyMap<string, number>;
  /** Credit of each style's art. */
  readonly attributions: ReadonlyMap<Style, string>;
  /** Share of ten nearest neighbours that the map keeps. */
  readonly kept: number;
}

/** Contents of items.json, pictures.json and map.json, parsed. */
export interface CatalogueFiles {
  items: unknown;
  pictures: unknown;
  map: unknown;
}

interface SheetsFile {
  cell: number;
  columns: number;
  styles: Record<string, { attribution: string }>;
  pictures: { item: string; style: string; sheet: string; column: number; row: number }[];
}

interface MapFile {
  kept: number;
  items: [name: string, x: number, y: number, z: number, neighbours: number[]][];
}

const isStyle = (style: string): style is Style => (STYLES as readonly string[]).includes(style);

/** Puts the files together; a concept without a place on the map lies in its middle. */
export function readCatalogue(files: CatalogueFiles): Catalogue {
  const sheets = files.pictures as SheetsFile;
  const map = files.map as MapFile;
  const items = (files.items as unknown[]).map((value, i) => promptItem(value, i, `items.json[${i}]`));
  const weights = items.map((item) => Number(item.fields["pretrain_weight"]) || 0);
  const headWeights = weights.filter((_, i) => !items[i]!.tail);
  const usual = headWeights.reduce((sum, w) => sum + w, 0) / Math.max(1, headWeights.length);
  const cells = new Map<string, Map<Style, Cell>>();
  const rows = new Map<string, number>();
  for (const { item, style, sheet, column, row } of sheets.pictures) {
    if (!isStyle(style)) continue;
    rows.set(sheet, Math.max(rows.get(sheet) ?? 0, row + 1));
    const own = cells.get(item) ?? new Map<Style, Cell>();
    own.set(style, { sheet, column, row });
    cells.set(item, own);
  }
  const places = new Map(map.items.map(([name, x, y, z, neighbours]) => [name, { place: [x, y, z], neighbours }]));
  const concepts = items.map((item, index): Concept => {
    const at = places.get(item.item);
    return {
      index,
      name: item.item,
      category: item.category,
      region: item.region,
      tail: item.tail,
      align: item.align,
      frequency: usual > 0 ? weights[index]! / usual : 0,
      item,
      cells: cells.get(item.item) ?? new Map(),
      place: (at?.place ?? [0, 0, 0]) as [number, number, number],
      neighbours: at?.neighbours ?? [],
    };
  });
  const attributions = new Map<Style, string>();
  for (const [style, entry] of Object.entries(sheets.styles))
    if (isStyle(style)) attributions.set(style, entry.attribution);
  return { concepts, cell: sheets.cell, columns: sheets.columns, rows, attributions, kept: map.kept };
}

/** The two texts that MIA compares for a concept; they differ in the attributes alone. */
export function pairTexts(concept: Concept, style: string | null = null): { positive: string; negative: string } {
  return { positive: attributeCaption(concept.item, style), negative: plainCaption(concept.item, style) };
}

/** «12 times less often» and the like, for a frequency against the average head concept. */
export function rarityText(frequency: number): string {
  if (!(frequency > 0)) return "not known";
  if (frequency >= 0.8 && frequency <= 1.25) return "about as often as the average head concept";
  const ratio = frequency < 1 ? 1 / frequency : frequency;
  const number = ratio < 3 ? ratio.toFixed(1) : String(Math.round(ratio));
  return `${number} times ${frequency < 1 ? "less" : "more"} often than the average head concept`;
}

/** The folder of the embedded model, among the files that come with the page. */
export const FOLDER = "models/embedded";

/** Reads the catalogue with a reader of text files. */
export async function loadCatalogue(readText: (path: string) => Promise<string>): Promise<Catalogue> {
  const json = async (name: string): Promise<unknown> => JSON.parse(await readText(`${FOLDER}/${name}`));
  const [items, pictures, map] = await Promise.all([json("items.json"), json("pictures.json"), json("map.json")]);
  return readCatalogue({ items, pictures, map });
}
