// Where everything lies on the grid of samples that is kept as a PNG: a row for each prompt, a column for each update, labels
// beside and above, one line about the run below. Pure; the drawing is in picture_grid.ts.

export interface GridCell {
  row: number;
  column: number;
  x: number;
  y: number;
}

export interface GridLayout {
  width: number;
  height: number;
  /** Side of a picture. */
  side: number;
  cells: GridCell[];
  /** Baselines and starts of the texts. */
  rowLabels: { x: number; y: number; width: number }[];
  columnLabels: { x: number; y: number }[];
  footer: { x: number; y: number; width: number };
}

export const GRID = { margin: 24, gap: 8, label: 176, heading: 28, footer: 40 } as const;

/** Longest side of a canvas that every browser gives. */
const LONGEST = 8192;

/** @param side of a picture in its own pixels; it is shown at twice that, or less where the canvas would be too large */
export function gridLayout(rows: number, columns: number, side = 64): GridLayout {
  const { margin, gap, label, heading, footer } = GRID;
  const fits = (room: number, count: number) => Math.floor((room - gap * (count - 1)) / count);
  const cell = Math.max(
    8,
    Math.min(
      2 * side,
      fits(LONGEST - 2 * margin - label, Math.max(1, columns)),
      fits(LONGEST - 2 * margin - heading - footer, Math.max(1, rows)),
    ),
  );
  const left = margin + label;
  const top = margin + heading;
  const cells: GridCell[] = [];
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      cells.push({ row, column, x: left + column * (cell + gap), y: top + row * (cell + gap) });
  const width = left + columns * (cell + gap) - gap + margin;
  const bottom = top + rows * (cell + gap) - gap;
  return {
    width,
    height: bottom + footer + margin,
    side: cell,
    cells,
    rowLabels: Array.from({ length: rows }, (_, row) => ({
      x: margin,
      y: top + row * (cell + gap) + cell / 2,
      width: label - 16,
    })),
    columnLabels: Array.from({ length: columns }, (_, column) => ({
      x: left + column * (cell + gap) + cell / 2,
      y: margin + heading / 2,
    })),
    footer: { x: margin, y: bottom + footer / 2 + margin / 2, width: width - 2 * margin },
  };
}

/** At most `most` of the steps, the first and the last among them, evenly chosen. */
export function chosenSteps(steps: readonly number[], most: number): number[] {
  if (steps.length <= most) return [...steps];
  return Array.from({ length: most }, (_, i) => steps[Math.round((i * (steps.length - 1)) / (most - 1))]!);
}

/** A text broken into lines that fit, by words; the last line ends in … where there is more. */
export function wrapped(text: string, width: number, most: number, measure: (text: string) => number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/).filter((part) => part !== "")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line === "" || measure(longer) <= width) line = longer;
    else {
      lines.push(line);
      line = word;
    }
  }
  if (line !== "") lines.push(line);
  if (lines.length <= most) return lines;
  return [...lines.slice(0, most - 1), `${lines[most - 1]} …`];
}
