// Makes docs/pictures/lora.png from the report.json of a training run: each sample prompt with the picture that it belongs
// to, the first sample and the last. `deno run -A --no-check scripts/readme_lora_picture.ts runs/<name> [output.png]`.
// All prompts of the run are shown, in its order.

import process from "node:process";
import type { TrainReportData } from "../src/evaluation/train_report_data.ts";
import { CARD_GAP, Canvas, GAP, INK, readReport, SOFT, TEXT, TILE, tileOf, writeCanvas } from "./picture_canvas.ts";
import { textWidth } from "./stroke_font.ts";

const COLUMNS = 5;
const MARGIN = 24;
const HEAD = 66;

async function main(folder: string | undefined, output = "docs/pictures/lora.png"): Promise<number> {
  if (!folder) {
    console.error("usage: deno run -A --no-check scripts/readme_lora_picture.ts runs/<name> [output.png]");
    return 2;
  }
  const data = (await readReport(folder)) as TrainReportData;
  const { prompts = [], columns = [] } = data.samples ?? {};
  const [first, last] = [columns[0], columns.at(-1)];
  if (!first || !last) {
    console.error(`${folder} has no samples`);
    return 4;
  }
  const cardWidth = 3 * TILE + 2 * GAP;
  const cardHeight = HEAD + TILE + 30;
  const rows = Math.ceil(prompts.length / COLUMNS);
  const canvas = new Canvas(2 * MARGIN + COLUMNS * cardWidth + (COLUMNS - 1) * CARD_GAP, MARGIN + rows * cardHeight);
  prompts.forEach(({ prompt, real }, i) => {
    const left = MARGIN + (i % COLUMNS) * (cardWidth + CARD_GAP);
    const top = MARGIN + Math.floor(i / COLUMNS) * cardHeight;
    const size = Math.min(TEXT, (TEXT * cardWidth) / textWidth(prompt, TEXT));
    canvas.text(prompt, left, top, INK, size);
    const tiles = [
      ["picture", real],
      ["before", first.pictures[i]],
      [`after ${last.step}`, last.pictures[i]],
    ] as const;
    for (const [t, [name, picture]] of tiles.entries()) {
      const x = left + t * (TILE + GAP);
      canvas.text(name, x, top + 38, SOFT, 2.2);
      if (picture) canvas.tile(tileOf(picture), x, top + HEAD);
    }
  });
  await writeCanvas(output, canvas);
  console.log(`${prompts.length} prompts, updates ${first.step} and ${last.step}; wrote ${output}`);
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv[2], process.argv[3]);
