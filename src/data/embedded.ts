// The data of the embedded experiment: 525 concepts with pictures in five styles, of which 94 are rare in what the
// generator was pretrained on (the tail). Captions follow one small grammar that the generator, the reward and the judge
// were trained with:
//   ["<Quality>. "] ["<style> "] "icon of " (<item> ["." …attributes] | <category> [", " <region>])

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { parseJson } from "../formats/jsonl.ts";
import { decodePng, type Picture, toPlanes } from "../formats/png.ts";
import { type PromptItem, readPrompts } from "./prompts.ts";

/** The first three are the generator's and the reward's; the judge was shown all five, without style words. */
export const STYLES = ["noto", "twitter", "fluent", "gloss", "older"] as const;
export type Style = (typeof STYLES)[number];
export const GENERATOR_STYLES: readonly Style[] = STYLES.slice(0, 3);
/** Quality words that the reward learnt; the first is the good one. */
export const QUALITIES = ["Detailed", "Blurry", "Distorted", "Noisy"] as const;
export type Quality = (typeof QUALITIES)[number];

export interface CaptionForm {
  style?: string | null;
  quality?: Quality | null;
  /** Name the item (default), or its category in the item's place. */
  item?: boolean;
  category?: boolean;
  region?: boolean;
}

/** A caption of the grammar above. */
export function caption(
  { item, category, region }: Pick<PromptItem, "item" | "category" | "region">,
  form: CaptionForm = {},
): string {
  const start = `${form.quality ? `${form.quality}. ` : ""}${form.style ? `${form.style} ` : ""}icon of `;
  const place = form.region && region !== "" ? [region] : [];
  if (form.item === false) return start + [category, ...place].join(", ");
  const attributes = [...(form.category ? [category] : []), ...place];
  return start + item + (attributes.length > 0 ? `. ${attributes.join(", ")}` : "");
}

/** `<style> icon of <item>`: the generation prompt and MIA's negative text; without a style the judge's caption. */
export const plainCaption = (item: PromptItem, style: string | null = null) => caption(item, { style });
/** `<style> icon of <item>. <category>, <region>`: MIA's positive text. */
export const attributeCaption = (item: PromptItem, style: string | null = null) =>
  caption(item, { style, category: true, region: true });
/** `<style> icon of <category>, <region>`: the form without the item. */
export const categoryCaption = (item: PromptItem, style: string | null = null) =>
  caption(item, { style, item: false, region: true });

/** Head items of the short evaluation: every 18th of the head in the list's order, 24 of them. */
export function headProtocol<T extends PromptItem>(items: readonly T[]): T[] {
  return items
    .filter((item) => !item.tail)
    .filter((_, i) => i % 18 === 0)
    .slice(0, 24);
}

interface Cell {
  sheet: string;
  column: number;
  row: number;
}

interface Sheets {
  cell: number;
  cells: ReadonlyMap<string, Cell>;
  attributions: ReadonlyMap<string, string>;
}

const keyOf = (item: string, style: string) => `${style}\n${item}`;

/** Items and pictures of the folder `models/embedded`. A sheet is decoded when its first picture is asked for. */
export class EmbeddedData {
  readonly items: readonly PromptItem[];
  /** Width and height of a picture, in pixels. */
  readonly size: number;
  readonly #files: FileStore;
  readonly #folder: string;
  readonly #sheets: Sheets;
  readonly #decoded = new Map<string, Promise<Picture>>();

  private constructor(files: FileStore, folder: string, items: readonly PromptItem[], sheets: Sheets) {
    this.items = items;
    this.size = sheets.cell;
    this.#files = files;
    this.#folder = folder;
    this.#sheets = sheets;
  }

  /** @throws E-DATA-030 an item cannot be used, E-DATA-034 the index of pictures is not valid */
  static async load(files: FileStore, folder: string): Promise<EmbeddedData> {
    const items = await readPrompts(files, `${folder}/items.json`);
    const path = `${folder}/pictures.json`;
    return new EmbeddedData(files, folder, items, readSheets(parseJson(await files.readText(path), path), path));
  }

  get tail(): PromptItem[] {
    return this.items.filter((item) => item.tail);
  }

  get head(): PromptItem[] {
    return this.items.filter((item) => !item.tail);
  }

  /** The 32 tail items that are trained on. */
  get aligned(): PromptItem[] {
    return this.items.filter((item) => item.align);
  }

  get headProtocol(): PromptItem[] {
    return headProtocol(this.items);
  }

  /** @throws E-DATA-035 where there is no such item */
  item(name: string): PromptItem {
    const found = this.items.find((item) => item.item === name);
    if (found) return found;
    throw new LongtailError("E-DATA-035", {
      what: `there is no item ${JSON.stringify(name)}`,
      where: `${this.#folder}/items.json`,
      fix: "take a name from that list",
    });
  }

  /** Styles in which there is a picture of the item. */
  stylesOf(item: PromptItem): Style[] {
    return STYLES.filter((style) => this.#sheets.cells.has(keyOf(item.item, style)));
  }

  /**
   * The real picture of an item in a style, float32 [3, size, size] in [0, 1]; null where the art does not exist.
   * @throws E-DATA-020 the sheet does not decode, E-DATA-034 the cell lies outside it
   */
  async picture(item: PromptItem, style: Style): Promise<Float32Array | null> {
    const cut = await this.pictureBytes(item, style);
    return cut === null ? null : toPlanes(cut);
  }

  /** The same as 8-bit RGB, [size, size, 3]. */
  async pictureBytes(item: PromptItem, style: Style): Promise<Picture | null> {
    const cell = this.#sheets.cells.get(keyOf(item.item, style));
    if (cell === undefined) return null;
    const path = `${this.#folder}/${cell.sheet}`;
    let decoding = this.#decoded.get(path);
    if (decoding === undefined) {
      decoding = this.#files.readBytes(path).then((bytes) => decodePng(bytes, path));
      this.#decoded.set(path, decoding);
    }
    const sheet = await decoding;
    const { size } = this;
    if (
      sheet.channels !== 3 ||
      sheet.depth !== 8 ||
      (cell.column + 1) * size > sheet.width ||
      (cell.row + 1) * size > sheet.height
    ) {
      throw badSheets(path, `the cell in column ${cell.column}, row ${cell.row} is not in the sheet`);
    }
    const data = new Uint8Array(size * size * 3);
    for (let y = 0; y < size; y++) {
      const from = ((cell.row * size + y) * sheet.width + cell.column * size) * 3;
      data.set(sheet.data.subarray(from, from + size * 3), y * size * 3);
    }
    return { width: size, height: size, channels: 3, depth: 8, data, text: {} };
  }

  /** One line for each source of pictures in these styles, to be shown wherever the pictures are. */
  attribution(styles: readonly Style[] = STYLES): string[] {
    return [
      ...new Set(styles.map((style) => this.#sheets.attributions.get(style)).filter((line) => line !== undefined)),
    ];
  }
}

function readSheets(value: unknown, path: string): Sheets {
  const root = value as { cell?: unknown; styles?: unknown; pictures?: unknown } | null;
  const isCount = (n: unknown): n is number => Number.isInteger(n) && (n as number) >= 0 && (n as number) < 65536;
  if (!isCount(root?.cell) || root.cell === 0 || !Array.isArray(root.pictures))
    throw badSheets(path, "cell or pictures is missing");
  const attributions = new Map<string, string>();
  for (const [style, entry] of Object.entries(root.styles ?? {})) {
    const line = (entry as { attribution?: unknown } | null)?.attribution;
    if (typeof line !== "string") throw badSheets(path, `style ${style} has no attribution`);
    attributions.set(style, line);
  }
  const cells = new Map<string, Cell>();
  for (const [i, entry] of root.pictures.entries()) {
    const { item, style, sheet, column, row } = (entry ?? {}) as Record<string, unknown>;
    const isName = typeof sheet === "string" && /^[\w.-]+\.png$/.test(sheet);
    if (typeof item !== "string" || typeof style !== "string" || !isName || !isCount(column) || !isCount(row)) {
      throw badSheets(`${path}.pictures[${i}]`, "item, style, sheet, column or row is missing or of another type");
    }
    if (!attributions.has(style))
      throw badSheets(`${path}.pictures[${i}]`, `style ${style} is not described in styles`);
    cells.set(keyOf(item, style), { sheet, column, row });
  }
  return { cell: root.cell, cells, attributions };
}

function badSheets(where: string, why: string): LongtailError {
  return new LongtailError("E-DATA-034", {
    what: "the index of pictures is not valid",
    where,
    why,
    fix: "restore models/embedded, or correct the index",
  });
}
