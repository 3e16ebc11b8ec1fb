// A real picture of a concept, cut from its sheet by the style sheet's own means: no canvas, no second copy of the bytes.

import type { Style } from "../../data/embedded.ts";
import type { Catalogue, Concept } from "./catalogue.ts";
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
  size: number;
  catalogue: Catalogue;
  /** Alternative text; a picture beside its own name needs none. */
  label?: string;
}) {
  const cell = concept.cells.get(style);
  const address = cell ? sheetAddress(cell.sheet) : null;
  const look =
    cell && address
      ? {
          width: `${size}px`,
          height: `${size}px`,
          backgroundImage: `url("${address}")`,
          backgroundPosition: `${-cell.column * size}px ${-cell.row * size}px`,
          backgroundSize: `${catalogue.columns * size}px auto`,
        }
      : { width: `${size}px`, height: `${size}px` };
  const described = label ? { role: "img" as const, "aria-label": label } : { "aria-hidden": true as const };
  return <span class={address ? "lt-sprite" : "lt-sprite lt-sprite-none"} style={look} {...described} />;
}
