// Makes docs/pictures/before-after.png from the report.json of a run, so that the picture in README.md can be made again
// from any run: `deno run -A --no-check scripts/readme_picture.ts runs/<name> [output.png]`. Items are chosen by a rule
// and not by taste: evenly spaced in the order of the judge's change, from the largest gain to the worst, and of each
// item the first picture. Prints the caption with what was chosen.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { signed } from "../src/evaluation/format.ts";
import type { ItemPictures, Picture, ReportData } from "../src/evaluation/report_data.ts";
import { type Group, type ItemRow, itemChange } from "../src/evaluation/summary.ts";
import { decodePng, encodePng } from "../src/formats/png.ts";
import { drawText, textWidth } from "./stroke_font.ts";

/** Everything is drawn at twice the size at which the page shows it. */
const TILE = 128;
const GAP = 8;
const CARD_GAP = 36;
const COLUMNS = 4;
const TEXT = 3;
const INK = [38, 36, 32];
const SOFT = [110, 106, 98];
const GAIN = [31, 95, 168];
const LOSS = [168, 76, 5];

/** Rows at `count` evenly spaced ranks of the judge's change, first and last included. */
export function spread(rows: readonly ItemRow[], group: Group, count: number): ItemRow[] {
  const sorted = rows.filter((row) => row.group === group).sort((a, b) => itemChange(b) - itemChange(a));
  const picked = Math.min(count, sorted.length);
  return Array.from(
    { length: picked },
    (_, i) => sorted[Math.round((i * (sorted.length - 1)) / Math.max(1, picked - 1))]!,
  );
}

class Canvas {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;

  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height * 3).fill(255);
  }

  blend(x: number, y: number, color: readonly number[], share: number): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const at = (y * this.width + x) * 3;
    for (let c = 0; c < 3; c++) this.data[at + c] = Math.round(this.data[at + c]! * (1 - share) + color[c]! * share);
  }

  text(text: string, x: number, y: number, color: readonly number[], size = TEXT): void {
    drawText(text, x, y, size, (px, py, share) => this.blend(px, py, color, share));
  }

  /** A picture enlarged to a tile by linear interpolation, with a thin frame. */
  tile(
    picture: { width: number; height: number; data: ArrayLike<number>; channels: number },
    left: number,
    top: number,
  ): void {
    const read = (x: number, y: number, c: number) => picture.data[(y * picture.width + x) * picture.channels + c]!;
    for (let y = 0; y < TILE; y++) {
      for (let x = 0; x < TILE; x++) {
        const u = Math.min(picture.width - 1, Math.max(0, ((x + 0.5) * picture.width) / TILE - 0.5));
        const v = Math.min(picture.height - 1, Math.max(0, ((y + 0.5) * picture.height) / TILE - 0.5));
        const [x0, y0] = [Math.floor(u), Math.floor(v)];
        const [x1, y1] = [Math.min(x0 + 1, picture.width - 1), Math.min(y0 + 1, picture.height - 1)];
        const [a, b] = [u - x0, v - y0];
        const color = [0, 1, 2].map(
          (c) =>
            (read(x0, y0, c) * (1 - a) + read(x1, y0, c) * a) * (1 - b) +
            (read(x0, y1, c) * (1 - a) + read(x1, y1, c) * a) * b,
        );
        this.blend(left + x, top + y, color, 1);
        if (x === 0 || y === 0 || x === TILE - 1 || y === TILE - 1) this.blend(left + x, top + y, [205, 202, 195], 0.9);
      }
    }
  }
}

function tileOf(picture: Picture) {
  return decodePng(
    Uint8Array.from(atob(picture.source.slice(picture.source.indexOf(",") + 1)), (c) => c.charCodeAt(0)),
    "report.json",
  );
}

function card(canvas: Canvas, item: ItemPictures, row: ItemRow, left: number, top: number): void {
  const change = signed(itemChange(row));
  const width = 3 * TILE + 2 * GAP;
  canvas.text(item.item, left, top, INK);
  canvas.text(change, left + width - textWidth(change, TEXT), top, itemChange(row) < 0 ? LOSS : GAIN);
  for (const [i, [name, pictures]] of Object.entries({
    real: item.real,
    before: item.before,
    after: item.after,
  }).entries()) {
    const x = left + i * (TILE + GAP);
    canvas.text(name, x, top + 38, SOFT, 2.4);
    if (pictures[0]) canvas.tile(tileOf(pictures[0]), x, top + 66);
  }
}

async function main(folder: string | undefined, output = "docs/pictures/before-after.png"): Promise<number> {
  if (!folder) {
    console.error("usage: deno run -A --no-check scripts/readme_picture.ts runs/<name> [output.png]");
    return 2;
  }
  const data = JSON.parse(await readFile(join(folder, "report.json"), "utf8")) as ReportData;
  const rows = data.evaluation?.rows ?? [];
  const groups: [string, ItemRow[]][] = [
    ["aligned tail items", spread(rows, "aligned", 8)],
    ["head items", spread(rows, "head", 4)],
  ];
  const cardHeight = 66 + TILE;
  const cardWidth = 3 * TILE + 2 * GAP;
  const margin = 24;
  const height = groups.reduce(
    (sum, [, list]) => sum + 58 + Math.ceil(list.length / COLUMNS) * (cardHeight + 30),
    margin,
  );
  const canvas = new Canvas(2 * margin + COLUMNS * cardWidth + (COLUMNS - 1) * CARD_GAP, height);
  let top = margin;
  for (const [title, list] of groups) {
    canvas.text(title, margin, top, SOFT, 3.4);
    top += 58;
    for (const [i, row] of list.entries()) {
      const item = data.pictures?.find((p) => p.item === row.item && p.group === row.group);
      const x = margin + (i % COLUMNS) * (cardWidth + CARD_GAP);
      if (item) card(canvas, item, row, x, top + Math.floor(i / COLUMNS) * (cardHeight + 30));
    }
    top += Math.ceil(list.length / COLUMNS) * (cardHeight + 30);
  }
  await writeFile(
    output,
    encodePng({ width: canvas.width, height: canvas.height, channels: 3, depth: 8, data: canvas.data }),
  );
  for (const [title, list] of groups) {
    console.log(`${title}: ${list.map((row) => `${row.item} ${signed(itemChange(row))}`).join(", ")}`);
  }
  console.log(`wrote ${output}`);
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv[2], process.argv[3]);
