// resvg as WebAssembly, from the package cache. A drawing that it fails on ends in a trap, which leaves the module in an
// unknown state: the next drawing gets a fresh one.

import type { FileStore } from "../../base/files.ts";
import type { Raster } from "../../data/emoji/artwork.ts";
import { RASTERISER } from "../../data/emoji/sources.ts";
import { packagePath } from "./packages.ts";

interface Drawing {
  render(): { width: number; height: number; pixels: Uint8Array; free?(): void };
  free?(): void;
}

interface ResvgModule {
  initWasm(bytes: Uint8Array): Promise<void>;
  Resvg: new (svg: string, options: Record<string, unknown>) => Drawing;
}

export class Rasteriser {
  readonly #script: string;
  readonly #bytes: Uint8Array;
  #module: ResvgModule | null = null;
  #started = 0;

  private constructor(script: string, bytes: Uint8Array) {
    this.#script = script;
    this.#bytes = bytes;
  }

  static async open(files: FileStore, cache: string): Promise<Rasteriser> {
    const script = await files.readText(packagePath(cache, RASTERISER.package, "index.mjs"));
    return new Rasteriser(script, await files.readBytes(packagePath(cache, RASTERISER.package, RASTERISER.file)));
  }

  async #load(): Promise<ResvgModule> {
    if (this.#module) return this.#module;
    // The package keeps its instance in the module, and a module is loaded once for an address: each gets its own.
    const source = `${this.#script}\n// ${++this.#started}\n`;
    const module = (await import(`data:text/javascript,${encodeURIComponent(source)}`)) as ResvgModule;
    await module.initWasm(this.#bytes);
    this.#module = module;
    return module;
  }

  /** The drawing at `width` pixels on white, or null where the rasteriser fails on it. */
  async draw(svg: string, width: number): Promise<Raster | null> {
    const { Resvg } = await this.#load();
    try {
      const drawing = new Resvg(svg, {
        fitTo: { mode: "width", value: width },
        background: "white",
        font: { loadSystemFonts: false },
      });
      const image = drawing.render();
      const raster = { width: image.width, height: image.height, pixels: image.pixels };
      image.free?.();
      drawing.free?.();
      return raster;
    } catch {
      this.#module = null;
      return null;
    }
  }
}
