// A Vite plugin that lets test files which were written for Deno run in a page: `node:process` has the variables of the test
// run, `node:path` joins, and the project's files are fetched from the server of the tests.

import path from "node:path";
import process from "node:process";
import { projectRoot } from "./tools.mjs";

/** What is asked for, as it ends, and the file of tests/helpers/browser that is taken instead. */
const STAND_INS = [
  ["node:fs", "fs.ts"],
  ["node:path", "path.ts"],
  ["node:process", "process.ts"],
  ["helpers/files.ts", "files.ts"],
  ["platform/files.ts", "files.ts"],
  ["platform/environment.ts", "files.ts"],
];

export const nodeInBrowser = () => ({
  name: "node-in-browser",
  /** @type {"pre"} */
  enforce: "pre",
  config: () => ({ define: { LONGTAIL_VARIABLES: JSON.stringify(variables()) } }),
  /** @param {string} id */
  resolveId(id) {
    const found = STAND_INS.find(([asked]) => id === asked || id.endsWith(`/${asked}`));
    return found ? path.join(projectRoot, "tests/helpers/browser", found[1]) : null;
  },
  /** @param {string} code @param {string} id */
  transform(code, id) {
    const file = id.split("?")[0] ?? "";
    if (!file.startsWith(path.join(projectRoot, "tests")) || !code.includes("import.meta.dirname")) return null;
    const folder = `/${path.relative(projectRoot, path.dirname(file)).split(path.sep).join("/")}`;
    return code.replaceAll("import.meta.dirname", JSON.stringify(folder));
  },
});

/** Variables that tests look at. */
function variables() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("LONGTAIL_")));
}
