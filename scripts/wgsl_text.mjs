// A Vite plugin that turns a `.wgsl` import into its text, as Deno does by itself. Tests and the page's build share it.

import { readFileSync } from "node:fs";

export const wgslText = () => ({
  name: "wgsl-text",
  /** @type {"pre"} */
  enforce: "pre",
  /** @param {string} id */
  load(id) {
    const file = id.split("?")[0] ?? "";
    if (!file.endsWith(".wgsl")) return null;
    return `export default ${JSON.stringify(readFileSync(file, "utf8"))};`;
  },
});
