// Builds the page without a face that the engine's tests drive: the worker as it is, models and presets as the page has them.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "vite";
import { pageAssets } from "../../../scripts/page_assets.mjs";
import { wgslText } from "../../../scripts/wgsl_text.mjs";

/** The folder of the built page, and how to remove it. */
export async function enginePage(): Promise<{ folder: string; remove: () => void }> {
  const folder = mkdtempSync(join(tmpdir(), "longtail-engine-page-"));
  await build({
    configFile: false,
    root: import.meta.dirname,
    base: "./",
    plugins: [wgslText({ bare: true }), pageAssets()],
    worker: { format: "es", plugins: () => [wgslText({ bare: true })] },
    logLevel: "error",
    build: { outDir: folder, emptyOutDir: true, target: "es2022", modulePreload: { polyfill: false } },
  });
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
