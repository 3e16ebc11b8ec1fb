// A canvas for the pictures of README.md: enlarged tiles with thin frames and a stroke font, on white.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Picture } from "../src/evaluation/report_data.ts";
import { decodePng, encodePng } from "../src/formats/png.ts";
import { drawText } from "./stroke_font.ts";

/** Everything is drawn at twice the size at which the page shows it. */
export const TILE = 128;
export const GAP = 8;
export const CARD_GAP = 36;
export const TEXT = 3;
export const INK = [38, 36, 32];
export const SOFT = [110, 106, 98];

export class Canvas {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;

  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height * 3).fill(255);
  }

  blend(x: number, y: number, color: readonly number[], share: number): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const at = (y * this.width + x) * 3;
    for (let c = 0; c < 3; c++) this.data[at + c] = Math.round(this.data[at + c]! * (1 - share) + color[c]! * share);
  }

  text(text: string, x: number, y: number, color: readonly number[], size = TEXT): void {
    drawText(text, x, y, size, (px, py, share) => this.blend(px, py, color, share));
  }

  /** A picture enlarged to a tile by linear interpolation, with a thin frame. */
  tile(
    picture: { width: number; height: number; data: ArrayLike<number>; channels: number },
    left: number,
    top: number,
  ): void {
    const read = (x: number, y: number, c: number) => picture.data[(y * picture.width + x) * picture.channels + c]!;
    for (let y = 0; y < TILE; y++) {
      for (let x = 0; x < TILE; x++) {
        const u = Math.min(picture.width - 1, Math.max(0, ((x + 0.5) * picture.width) / TILE - 0.5));
        const v = Math.min(picture.height - 1, Math.max(0, ((y + 0.5) * picture.height) / TILE - 0.5));
        const [x0, y0] = [Math.floor(u), Math.floor(v)];
        const [x1, y1] = [Math.min(x0 + 1, picture.width - 1), Math.min(y0 + 1, picture.height - 1)];
        const [a, b] = [u - x0, v - y0];
        const color = [0, 1, 2].map(
          (c) =>
            (read(x0, y0, c) * (1 - a) + read(x1, y0, c) * a) * (1 - b) +
            (read(x0, y1, c) * (1 - a) + read(x1, y1, c) * a) * b,
        );
        this.blend(left + x, top + y, color, 1);
        if (x === 0 || y === 0 || x === TILE - 1 || y === TILE - 1) this.blend(left + x, top + y, [205, 202, 195], 0.9);
      }
    }
  }
}

/** The pixels of a picture that report.json holds as a data URI. */
export function tileOf(picture: Picture) {
  return decodePng(
    Uint8Array.from(atob(picture.source.slice(picture.source.indexOf(",") + 1)), (c) => c.charCodeAt(0)),
    "report.json",
  );
}

export async function readReport(folder: string): Promise<unknown> {
  return JSON.parse(await readFile(join(folder, "report.json"), "utf8"));
}

export async function writeCanvas(output: string, canvas: Canvas): Promise<void> {
  const { width, height, data } = canvas;
  await writeFile(output, encodePng({ width, height, channels: 3, depth: 8, data }));
}
