// Makes docs/pictures/before-after.png from the report.json of a run, so that the picture in README.md can be made again
// from any run: `deno run -A --no-check scripts/readme_picture.ts runs/<name> [output.png]`. Items are chosen by a rule
// and not by taste: evenly spaced in the order of the judge's change, from the largest gain to the worst, and of each
// item the first picture. Prints the caption with what was chosen.

import process from "node:process";
import { signed } from "../src/evaluation/format.ts";
import type { ItemPictures, ReportData } from "../src/evaluation/report_data.ts";
import { type Group, type ItemRow, itemChange } from "../src/evaluation/summary.ts";
import { CARD_GAP, Canvas, GAP, INK, readReport, SOFT, TEXT, TILE, tileOf, writeCanvas } from "./picture_canvas.ts";
import { textWidth } from "./stroke_font.ts";

const COLUMNS = 4;
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
  const data = (await readReport(folder)) as ReportData;
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
  await writeCanvas(output, canvas);
  for (const [title, list] of groups) {
    console.log(`${title}: ${list.map((row) => `${row.item} ${signed(itemChange(row))}`).join(", ")}`);
  }
  console.log(`wrote ${output}`);
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv[2], process.argv[3]);
