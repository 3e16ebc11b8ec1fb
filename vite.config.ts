// The page: `npm run dev` serves it, `npm run build` leaves it in dist/ for any static host. Models, presets and tokenizers are
// copied from the project, with a manifest of sizes and hashes that the page's files are checked against.

import { defineConfig } from "vite";
import { pageAssets } from "./scripts/page_assets.mjs";
import { pageCsp } from "./scripts/page_csp.mjs";
import { pageShell } from "./scripts/page_shell.mjs";
import { wgslText } from "./scripts/wgsl_text.mjs";

const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "credentialless" };

export default defineConfig(({ command }) => ({
  root: "src/web",
  base: "./",
  plugins: [wgslText({ bare: command === "build" }), pageAssets(), pageCsp(), pageShell()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  worker: { format: "es", plugins: () => [wgslText({ bare: command === "build" })] },
  server: { headers },
  preview: { headers },
  build: {
    outDir: "../../dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: { checks: { pluginTimings: false } },
  },
}));
