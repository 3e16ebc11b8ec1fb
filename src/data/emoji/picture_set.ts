// The picture set of the embedded experiment, made from vector art: items, one cell for every item and style that has art,
// sheets of 25 cells a row, and the two indexes in the format that `EmbeddedData` reads.

import { encodePng, type Picture } from "../../formats/png.ts";
import { caption, GENERATOR_STYLES, STYLES } from "../embedded.ts";
import { type ArtStyle, boxFilter, findIcon, type IconSet, iconSvg, type Raster } from "./artwork.ts";
import { alignedItems, type EmojiItem, type EmojiLists, iconNames, selectItems } from "./selection.ts";
import { pretrainingWeights } from "./weights.ts";

/** Cells in a row of a sheet. */
export const SHEET_COLUMNS = 25;
/** Rendered this many times larger and averaged: a rasteriser's own small pictures have harder edges. */
export const OVERSAMPLING = 4;
/** Tail items that alignment trains on. */
const ALIGNED = 32;

export interface EmojiPicture {
  item: EmojiItem;
  style: string;
  icon: string;
  /** [side, side, 3] */
  pixels: Uint8Array;
}

export interface EmojiSet {
  side: number;
  items: EmojiItem[];
  pictures: EmojiPicture[];
  /** Pictures that were not taken and why, "style icon: reason". */
  leftOut: string[];
}

export interface BuildOptions {
  side: number;
  sets: ReadonlyMap<string, IconSet>;
  /** Draws an SVG at `width` pixels on white; null where the rasteriser fails on it. */
  draw: (svg: string, width: number) => Promise<Raster | null>;
  onDrawn?: (done: number, total: number) => void;
}

/** Selects the items and draws all their pictures. */
export async function buildEmojiSet(lists: EmojiLists, options: BuildOptions): Promise<EmojiSet> {
  const { sets, side, draw } = options;
  const iconOf = (style: string, label: string): string | null => {
    const set = sets.get(style);
    return set ? findIcon(set, iconNames(label, lists.rules)) : null;
  };
  const items = selectItems(lists, (label) => GENERATOR_STYLES.every((style) => iconOf(style, label) !== null));
  const pictures: EmojiPicture[] = [];
  const leftOut: string[] = [];
  const seen = new Set<string>();
  let done = 0;
  for (const item of items) {
    for (const style of sets.keys()) {
      const icon = iconOf(style, item.label);
      if (icon === null) continue;
      const raster = await draw(iconSvg(sets.get(style)!, icon), side * OVERSAMPLING);
      if (!raster) {
        leftOut.push(`${style} ${icon}: the rasteriser fails on it`);
        continue;
      }
      const pixels = boxFilter(raster, side, OVERSAMPLING);
      const key = `${style} ${pixels.join(",")}`;
      if (seen.has(key)) {
        leftOut.push(`${style} ${icon}: the same picture as another item's`);
        continue;
      }
      seen.add(key);
      pictures.push({ item, style, icon, pixels });
    }
    options.onDrawn?.(++done, items.length);
  }
  return { side, items, pictures, leftOut };
}

/** Contents of items.json: names, captions, whether rare and aligned, and the pretraining weight in four digits. */
export function itemsDocument(items: readonly EmojiItem[]): unknown[] {
  const weights = pretrainingWeights(items.map(({ tail }) => tail));
  const aligned = alignedItems(items, ALIGNED);
  return items.map((entry, i) => {
    const { item, category, region, tail } = entry;
    return {
      item,
      category,
      region,
      caption: caption(entry),
      category_prompt: caption(entry, { item: false }),
      tail,
      align: aligned.has(i),
      pretrain_weight: Number(weights[i]!.toPrecision(4)),
    };
  });
}

export const sheetName = (style: string) => `pictures-${style}.png`;

/** Contents of pictures.json. */
export function picturesDocument(set: EmojiSet, art: readonly ArtStyle[]): Record<string, unknown> {
  const next = new Map<string, number>();
  const pictures = set.pictures.map(({ item, style, icon }) => {
    const at = next.get(style) ?? 0;
    next.set(style, at + 1);
    return {
      item: item.item,
      category: item.category,
      region: item.region,
      tail: item.tail,
      style,
      icon,
      sheet: sheetName(style),
      column: at % SHEET_COLUMNS,
      row: Math.floor(at / SHEET_COLUMNS),
    };
  });
  const described = art.map(({ style, package: name, licence, attribution }) => {
    return [style, { package: name, licence, attribution }] as const;
  });
  return {
    cell: set.side,
    columns: SHEET_COLUMNS,
    styles: Object.fromEntries(described),
    used_by: { generator: GENERATOR_STYLES, reward: GENERATOR_STYLES, judge: STYLES },
    pictures,
  };
}

/** The sheet of one style as PNG; cells without a picture are white. */
export function encodeSheet(set: EmojiSet, style: string): Uint8Array {
  const cells = set.pictures.filter((picture) => picture.style === style);
  const { side } = set;
  const width = SHEET_COLUMNS * side;
  const height = Math.ceil(cells.length / SHEET_COLUMNS) * side;
  const data = new Uint8Array(width * height * 3).fill(255);
  cells.forEach(({ pixels }, n) => {
    const left = (n % SHEET_COLUMNS) * side;
    const top = Math.floor(n / SHEET_COLUMNS) * side;
    for (let y = 0; y < side; y++) {
      data.set(pixels.subarray(y * side * 3, (y + 1) * side * 3), ((top + y) * width + left) * 3);
    }
  });
  const picture: Omit<Picture, "text"> = { width, height, channels: 3, depth: 8, data };
  return encodePng(picture);
}

export interface SetComparison {
  /** Pictures that both sets have. */
  common: number;
  equal: number;
  /** Largest difference of a channel, 0 to 255. */
  largest: number;
  /** Pictures that differ, the worst first. */
  different: { style: string; item: string; largest: number }[];
  onlyHere: number;
  onlyThere: number;
}

/** Compares pictures with those of another set, by style and item; `other` gives [side, side, 3] in 8 bits, or null. */
export async function comparePictures(
  set: EmojiSet,
  others: number,
  other: (style: string, item: string) => Promise<ArrayLike<number> | null>,
): Promise<SetComparison> {
  const result: SetComparison = { common: 0, equal: 0, largest: 0, different: [], onlyHere: 0, onlyThere: 0 };
  for (const { item, style, pixels } of set.pictures) {
    const theirs = await other(style, item.item);
    if (!theirs || theirs.length !== pixels.length) {
      result.onlyHere++;
      continue;
    }
    result.common++;
    const largest = pixels.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
    if (largest === 0) result.equal++;
    else result.different.push({ style, item: item.item, largest });
    result.largest = Math.max(result.largest, largest);
  }
  result.onlyThere = others - result.common;
  result.different.sort((a, b) => b.largest - a.largest);
  return result;
}
