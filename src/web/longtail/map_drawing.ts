// Draws the map when it was asked to, at most once a frame: chooses WebGPU or the 2-D canvas, keeps the canvases as sharp as
// the screen, and writes the names of categories over them.

import { type Camera, START, type Viewport } from "./camera.ts";
import type { Concept } from "./catalogue.ts";
import { openCanvasMap } from "./map_canvas.ts";
import { openGpuMap } from "./map_gpu.ts";
import { css, faded, type MapRenderer, type Palette, paletteOf, type Sheet } from "./map_paint.ts";
import { type Disc, EMPTY_STATE, labelsOf, pick, type SceneState, sceneOf } from "./scene.ts";

/** Pixels of a canvas cost a software adapter time; beyond two a CSS pixel nobody sees them. */
const SHARPEST = 2;

export class MapDrawing {
  camera: Camera = START;
  state: SceneState = EMPTY_STATE;
  viewport: Viewport = { width: 1, height: 1 };
  private readonly box: HTMLElement;
  private readonly concepts: readonly Concept[];
  private readonly onRenderer: (kind: string) => void;
  private readonly words: HTMLCanvasElement;
  private readonly watching: ResizeObserver;
  private readonly undo: (() => void)[] = [];
  private canvas: HTMLCanvasElement | null = null;
  private renderer: MapRenderer | null = null;
  private sheet: Sheet | null = null;
  private discs: Disc[] = [];
  private frame = 0;
  private closed = false;

  constructor(box: HTMLElement, concepts: readonly Concept[], onRenderer: (kind: string) => void) {
    this.box = box;
    this.concepts = concepts;
    this.onRenderer = onRenderer;
    this.words = document.createElement("canvas");
    this.words.className = "lt-map-words";
    this.words.setAttribute("aria-hidden", "true");
    box.append(this.words);
    this.watching = new ResizeObserver(() => this.resize());
    this.watching.observe(box);
    // Colours come from the style sheet: a change of the theme is a drawing.
    const theme = new MutationObserver(() => this.request());
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => this.request();
    scheme.addEventListener("change", redraw);
    this.undo.push(
      () => theme.disconnect(),
      () => scheme.removeEventListener("change", redraw),
    );
  }

  /** Takes the sheet of pictures and opens a renderer for it; a second sheet is not needed. */
  async useSheet(sheet: Sheet): Promise<void> {
    if (this.sheet) return;
    this.sheet = sheet;
    const wantsCanvas = new URLSearchParams(location.search).get("map") === "canvas";
    const canvas = this.newCanvas();
    const renderer = wantsCanvas ? null : await openGpuMap(canvas, sheet, () => this.useCanvas());
    if (this.closed) renderer?.close();
    else if (renderer) this.show(canvas, renderer);
    else this.useCanvas();
  }

  /** The concept at a place in CSS pixels, or null. */
  pick(x: number, y: number, slack: number): number | null {
    return pick(this.discs, x, y, slack);
  }

  /** Draws before the next frame. */
  request(): void {
    if (this.frame !== 0 || this.closed) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  close(): void {
    this.closed = true;
    cancelAnimationFrame(this.frame);
    this.watching.disconnect();
    for (const undo of this.undo) undo();
    this.renderer?.close();
    this.canvas?.remove();
    this.words.remove();
  }

  private newCanvas(): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    return canvas;
  }

  private useCanvas(): void {
    if (this.closed || !this.sheet) return;
    const canvas = this.newCanvas();
    const renderer = openCanvasMap(canvas, this.sheet);
    if (renderer) this.show(canvas, renderer);
  }

  private show(canvas: HTMLCanvasElement, renderer: MapRenderer): void {
    this.canvas?.remove();
    this.canvas = canvas;
    this.renderer = renderer;
    this.box.prepend(canvas);
    this.onRenderer(renderer.kind);
    this.resize();
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (width === 0 || height === 0) return;
    this.viewport = { width, height };
    const sharp = Math.min(SHARPEST, devicePixelRatio || 1);
    for (const canvas of [this.canvas, this.words]) {
      if (!canvas) continue;
      canvas.width = Math.round(width * sharp);
      canvas.height = Math.round(height * sharp);
    }
    // A resized canvas is empty until it is drawn: at once, so that it does not flash.
    this.draw();
  }

  private draw(): void {
    if (!this.renderer || this.viewport.width <= 1) return;
    const palette = paletteOf(this.box);
    this.discs = sceneOf(this.concepts, this.camera, this.viewport, this.state);
    this.renderer.draw(this.discs, this.viewport, palette);
    this.write(palette);
  }

  /** Names of categories, and of what is pointed at or picked nearby. */
  private write(palette: Palette): void {
    const context = this.words.getContext("2d");
    if (!context) return;
    const { width, height } = this.viewport;
    context.setTransform(this.words.width / width, 0, 0, this.words.height / height, 0, 0);
    context.clearRect(0, 0, width, height);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const put = (text: string, x: number, y: number, colour: string, halo: number) => {
      context.lineWidth = halo;
      context.strokeStyle = css(palette.background, 0.85);
      context.strokeText(text, x, y);
      context.fillStyle = colour;
      context.fillText(text, x, y);
    };
    context.font = "600 12px system-ui, sans-serif";
    if (this.state.shown === null) {
      for (const { text, x, y, strength } of labelsOf(this.concepts, this.camera, this.viewport))
        put(text, x, y, css(faded(palette.ink, palette.background, strength)), 4);
    }
    context.font = "600 13px system-ui, sans-serif";
    for (const disc of this.discs.filter((d) => d.lit)) {
      const { name } = this.concepts[disc.index]!;
      const half = context.measureText(name).width / 2 + 6;
      const x = Math.min(width - half, Math.max(half, disc.x));
      const below = disc.y + disc.radius + 16;
      put(name, x, below > height - 10 ? disc.y - disc.radius - 16 : below, css(palette.ink), 5);
    }
  }
}
