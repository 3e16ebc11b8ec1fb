// A Vite plugin that turns a `.wgsl` import into its text, as Deno does by itself. Tests and the page's build share it; the build
// sends kernels without their comments and indentation.

import { readFileSync } from "node:fs";

/**
 * The text without comments, blank lines and indentation. Lines `//#…` are the template's own and stay.
 * @param {string} text
 */
export function withoutComments(text) {
  return text
    .split("\n")
    .map((line) => (/^\s*\/\/#/.test(line) ? line : line.replace(/\/\/.*$/, "")).trim())
    .filter((line) => line !== "")
    .join("\n");
}

/** @param {{ bare?: boolean }} [options] `bare` takes comments out */
export const wgslText = ({ bare = false } = {}) => ({
  name: "wgsl-text",
  /** @type {"pre"} */
  enforce: "pre",
  /** @param {string} id */
  load(id) {
    const file = id.split("?")[0] ?? "";
    if (!file.endsWith(".wgsl")) return null;
    const text = readFileSync(file, "utf8");
    return `export default ${JSON.stringify(bare ? withoutComments(text) : text)};`;
  },
});
