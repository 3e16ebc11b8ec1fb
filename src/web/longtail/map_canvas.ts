// The map on a 2-D canvas, for browsers without WebGPU: the same discs in the same order, drawn one by one.

import type { Viewport } from "./camera.ts";
import { css, faded, type MapRenderer, type Palette, type Sheet } from "./map_paint.ts";
import type { Disc } from "./scene.ts";

/** Null where the canvas has given out a context of another kind before. */
export function openCanvasMap(canvas: HTMLCanvasElement, sheet: Sheet): MapRenderer | null {
  const context = canvas.getContext("2d");
  if (!context) return null;
  return {
    kind: "canvas",
    draw(discs: readonly Disc[], viewport: Viewport, palette: Palette) {
      context.setTransform(canvas.width / viewport.width, 0, 0, canvas.height / viewport.height, 0, 0);
      context.clearRect(0, 0, viewport.width, viewport.height);
      context.imageSmoothingQuality = "medium";
      for (const disc of discs) drawDisc(context, disc, sheet, palette);
    },
    close() {},
  };
}

function drawDisc(context: CanvasRenderingContext2D, disc: Disc, sheet: Sheet, palette: Palette): void {
  const { x, y, radius, picture, strength } = disc;
  const circle = (r: number) => {
    context.beginPath();
    context.arc(x, y, r, 0, 2 * Math.PI);
  };
  if (disc.picked || disc.lit) {
    circle(radius + 4.5);
    context.fillStyle = css(disc.lit ? palette.ink : palette.tail);
    context.fill();
    circle(radius + 2);
    context.fillStyle = css(palette.background);
    context.fill();
  }
  circle(radius);
  context.fillStyle = css(faded(disc.tail ? palette.tail : palette.head, palette.background, strength));
  context.fill();
  if (picture <= 0) return;
  const inner = radius - picture * (disc.tail ? 2 : 1.2);
  context.save();
  circle(inner);
  context.clip();
  context.globalAlpha = picture * strength;
  context.fillStyle = "#fff";
  context.fillRect(x - inner, y - inner, 2 * inner, 2 * inner);
  const { cell } = sheet;
  const { column, row } = sheet.cells[disc.index] ?? { column: 0, row: 0 };
  const half = 0.9 * inner;
  context.drawImage(sheet.bitmap, column * cell, row * cell, cell, cell, x - half, y - half, 2 * half, 2 * half);
  context.restore();
}
