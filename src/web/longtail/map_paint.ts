// What the two renderers of the map have in common: the colours, read from the page's style sheet, and the sheet of pictures.

import type { Viewport } from "./camera.ts";
import type { Disc } from "./scene.ts";

/** 0 to 255. */
export type Rgb = readonly [number, number, number];

export interface Palette {
  background: Rgb;
  ink: Rgb;
  head: Rgb;
  tail: Rgb;
}

export interface MapRenderer {
  readonly kind: "webgpu" | "canvas";
  draw(discs: readonly Disc[], viewport: Viewport, palette: Palette): void;
  close(): void;
}

/** The sheet that the map shows, with each concept's cell in it. */
export interface Sheet {
  bitmap: ImageBitmap;
  /** Width and height of a cell. */
  cell: number;
  /** By index of the concept; concepts without a picture keep cell 0, 0. */
  cells: readonly { column: number; row: number }[];
}

const FALLBACK: Palette = { background: [255, 255, 255], ink: [20, 20, 20], head: [0, 114, 178], tail: [213, 94, 0] };

/** `#rgb`, `#rrggbb`, `rgb(…)`; null for anything else. */
export function parseColour(text: string): Rgb | null {
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text.trim())?.[1];
  if (hex) {
    const wide = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    return [0, 2, 4].map((at) => Number.parseInt(wide.slice(at, at + 2), 16)) as unknown as Rgb;
  }
  const parts = /^rgba?\(([^)]+)\)$/
    .exec(text.trim())?.[1]
    ?.split(/[\s,/]+/)
    .map(Number);
  return parts && parts.length >= 3 && parts.slice(0, 3).every(Number.isFinite)
    ? (parts.slice(0, 3) as unknown as Rgb)
    : null;
}

/** Colours of the element's custom properties `--map-background`, `--map-ink`, `--map-head`, `--map-tail`. */
export function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const read = (name: keyof Palette) => parseColour(style.getPropertyValue(`--map-${name}`)) ?? FALLBACK[name];
  return { background: read("background"), ink: read("ink"), head: read("head"), tail: read("tail") };
}

export const css = ([r, g, b]: Rgb, alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;

/** `colour` with so much of the background that `share` of it is left. */
export const faded = (colour: Rgb, background: Rgb, share: number): Rgb =>
  [0, 1, 2].map((k) => Math.round(background[k]! + (colour[k]! - background[k]!) * share)) as unknown as Rgb;
