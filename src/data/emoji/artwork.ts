// Vector art of emoji from Iconify's icon sets: finding an icon by its names, the whole SVG text around its body, and the
// way from a large raster picture to a small cell on white.

/** An icon set as its icons.json holds it. */
export interface IconSet {
  width?: number;
  height?: number;
  icons: Record<string, { body: string; left?: number; top?: number; width?: number; height?: number }>;
  aliases?: Record<string, { parent: string; rotate?: number; hFlip?: boolean; vFlip?: boolean }>;
}

/** What the sets are, under the style words of the captions. */
export interface ArtStyle {
  style: string;
  package: string;
  version: string;
  /** SHA-256 of icons.json: captions, items and pictures belong to exactly this art. */
  sha256: string;
  licence: string;
  attribution: string;
}

/** Side of an icon where its set does not say. */
const DEFAULT_SIDE = 16;

/** The first of `names` that the set holds, aliases followed unless they turn or mirror. */
export function findIcon(set: IconSet, names: readonly string[]): string | null {
  for (const name of names) {
    if (Object.hasOwn(set.icons, name)) return name;
    const alias = set.aliases && Object.hasOwn(set.aliases, name) ? set.aliases[name] : undefined;
    if (alias && !alias.rotate && !alias.hFlip && Object.hasOwn(set.icons, alias.parent)) return alias.parent;
  }
  return null;
}

/** A whole SVG document of one icon. */
export function iconSvg(set: IconSet, name: string): string {
  const icon = set.icons[name]!;
  const side = (own: number | undefined, ofSet: number | undefined) => own ?? ofSet ?? DEFAULT_SIDE;
  const box = [icon.left ?? 0, icon.top ?? 0, side(icon.width, set.width), side(icon.height, set.height)].join(" ");
  const spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"';
  return `<svg ${spaces} viewBox="${box}">${icon.body}</svg>`;
}

/** A picture as a rasteriser gives it: RGBA on an opaque background. */
export interface Raster {
  width: number;
  height: number;
  pixels: Uint8Array;
}

/**
 * Averages squares of `factor` × `factor` pixels into a cell [side, side, 3]. A picture that is wide rather than square is
 * put in the middle on white, a taller one is cut at the bottom.
 */
export function boxFilter(raster: Raster, side: number, factor: number): Uint8Array {
  const { width, height, pixels } = raster;
  const out = new Uint8Array(side * side * 3);
  const above = Math.max(0, (side * factor - height) >> 1);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < factor; j++) {
          const row = y * factor + j - above;
          for (let i = 0; i < factor; i++) {
            sum += row < 0 || row >= height ? 255 : pixels[(row * width + x * factor + i) * 4 + c]!;
          }
        }
        out[(y * side + x) * 3 + c] = Math.round(sum / (factor * factor));
      }
    }
  }
  return out;
}
