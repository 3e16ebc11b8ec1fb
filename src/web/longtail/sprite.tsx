// A real picture of a concept, cut from its sheet by the style sheet's own means: no canvas, no second copy of the bytes.

import type { Style } from "../../data/embedded.ts";
import type { Catalogue, Cell, Concept } from "./catalogue.ts";
import { sheetAddress } from "./load.ts";

export function Sprite({
  concept,
  style,
  size,
  catalogue,
  label,
}: {
  concept: Concept;
  style: Style;
  /** CSS pixels; "fill" takes the width of what it stands in. */
  size: number | "fill";
  catalogue: Catalogue;
  /** Alternative text; a picture beside its own name needs none. */
  label?: string;
}) {
  const cell = concept.cells.get(style);
  const address = cell ? sheetAddress(cell.sheet) : null;
  const box = size === "fill" ? { width: "100%", aspectRatio: "1" } : { width: `${size}px`, height: `${size}px` };
  const look =
    cell && address ? { ...box, backgroundImage: `url("${address}")`, ...placeOf(cell, catalogue, size) } : box;
  const described = label ? { role: "img" as const, "aria-label": label } : { "aria-hidden": true as const };
  return <span class={address ? "lt-sprite" : "lt-sprite lt-sprite-none"} style={look} {...described} />;
}

/** Where the sheet lies behind the picture. In shares, the last column's is 100 %. */
function placeOf(cell: Cell, { columns, rows }: Catalogue, size: number | "fill") {
  const high = rows.get(cell.sheet) ?? 1;
  if (size !== "fill")
    return {
      backgroundPosition: `${-cell.column * size}px ${-cell.row * size}px`,
      backgroundSize: `${columns * size}px auto`,
    };
  const share = (at: number, count: number) => `${(100 * at) / Math.max(1, count - 1)}%`;
  return {
    backgroundPosition: `${share(cell.column, columns)} ${share(cell.row, high)}`,
    backgroundSize: `${100 * columns}% ${100 * high}%`,
  };
}
