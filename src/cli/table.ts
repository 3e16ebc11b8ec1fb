// Tables at the end of a run: aligned columns, numbers to the right, intervals in brackets.

import { cutTo, displayWidth } from "./terminal.ts";

export interface Column {
  title: string;
  /** Numbers stand to the right. */
  align?: "left" | "right";
}

/**
 * A table of texts. Columns are as wide as their longest cell; where the whole is wider than `width`, the widest column
 * of text is cut.
 */
export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[], width = 80): string {
  const widths = columns.map((column, i) =>
    Math.max(displayWidth(column.title), ...rows.map((row) => displayWidth(row[i] ?? ""))),
  );
  const total = () => widths.reduce((sum, one) => sum + one, 0) + 2 * (columns.length - 1);
  while (total() > width) {
    const texts = columns.map((_, i) => i).filter((i) => columns[i]!.align !== "right" && widths[i]! > 8);
    const widest = texts.sort((a, b) => widths[b]! - widths[a]!)[0];
    if (widest === undefined) break;
    widths[widest]! -= Math.min(widths[widest]! - 8, total() - width);
  }
  const line = (cells: readonly string[]) =>
    columns
      .map((column, i) => {
        const cell = cutTo(cells[i] ?? "", widths[i]!);
        const pad = " ".repeat(Math.max(0, widths[i]! - displayWidth(cell)));
        return column.align === "right" ? pad + cell : cell + pad;
      })
      .join("  ")
      .trimEnd();
  const rule = widths.map((one) => "─".repeat(one)).join("  ");
  return `${[line(columns.map(({ title }) => title)), rule, ...rows.map(line)].join("\n")}\n`;
}
