// The run's samples as one PNG with labels: prompts beside the rows, updates above the columns, the run's name and numbers
// below. Made in the page with a canvas, on white with dark text whatever the page's theme is, because it is shown elsewhere.

import type { RunSource } from "../run_source.ts";
import type { RunView } from "../run_view.ts";
import { chosenSteps, gridLayout, wrapped } from "./grid_layout.ts";

/** Columns that still can be told apart. */
const MOST_COLUMNS = 9;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/** @returns null where the run has no samples that can be read */
export async function pictureGrid(source: RunSource, view: RunView): Promise<Blob | null> {
  const steps = chosenSteps(
    [...view.samples.keys()].sort((a, b) => a - b),
    MOST_COLUMNS,
  );
  const rows = Math.max(0, ...steps.map((step) => view.samples.get(step)!.length));
  if (steps.length === 0 || rows === 0) return null;
  const layout = gridLayout(rows, steps.length);
  const canvas = document.createElement("canvas");
  canvas.width = layout.width;
  canvas.height = layout.height;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, layout.width, layout.height);
  context.imageSmoothingEnabled = false;
  let found = 0;
  for (const { row, column, x, y } of layout.cells) {
    const sample = view.samples.get(steps[column]!)?.[row];
    const blob = sample ? await source.blob(sample.path) : null;
    if (!blob) continue;
    const bitmap = await createImageBitmap(blob);
    context.drawImage(bitmap, x, y, layout.side, layout.side);
    bitmap.close();
    found++;
  }
  if (found === 0) return null;

  context.fillStyle = "#1c1b19";
  context.font = `14px ${FONT}`;
  context.textBaseline = "middle";
  const measure = (text: string) => context.measureText(text).width;
  const names = view.samples.get(steps.at(-1)!) ?? [];
  for (const [row, { x, y, width }] of layout.rowLabels.entries()) {
    const lines = wrapped(names[row]?.item ?? "", width, 4, measure);
    for (const [n, line] of lines.entries()) context.fillText(line, x, y + (n - (lines.length - 1) / 2) * 18);
  }
  context.textAlign = "center";
  for (const [column, { x, y }] of layout.columnLabels.entries())
    context.fillText(column === 0 ? `update ${steps[column]}` : String(steps[column]), x, y);
  context.textAlign = "left";
  context.fillStyle = "#6a6761";
  const { x, y, width } = layout.footer;
  const seed = names[0]?.seed;
  const about = `${view.name} · ${view.step} updates · ${seed === undefined ? "" : `sample seed ${seed} · `}Longtail`;
  context.fillText(wrapped(about, width, 1, measure)[0] ?? "", x, y);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
