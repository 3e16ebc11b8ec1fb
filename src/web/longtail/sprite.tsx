// A real picture of a concept, cut from its sheet by the style sheet's own means: no canvas, no second copy of the bytes.

import type { Style } from "../../data/embedded.ts";
import { type Catalogue, type Concept, FOLDER } from "./catalogue.ts";

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
  const scale = size / catalogue.cell;
  const look = cell
    ? {
        width: `${size}px`,
        height: `${size}px`,
        backgroundImage: `url("${new URL(`${FOLDER}/${cell.sheet}`, document.baseURI).href}")`,
        backgroundPosition: `${-cell.column * size}px ${-cell.row * size}px`,
        backgroundSize: `${catalogue.columns * catalogue.cell * scale}px auto`,
      }
    : { width: `${size}px`, height: `${size}px` };
  const described = label ? { role: "img", "aria-label": label } : { "aria-hidden": true as const };
  return <span class={cell ? "lt-sprite" : "lt-sprite lt-sprite-none"} style={look} {...described} />;
}
