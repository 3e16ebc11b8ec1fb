// A Vite plugin that lets test files which were written for Deno run in a page: `node:process` has the variables of the test
// run, `node:path` joins, and the project's files are fetched from the server of the tests.

import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { projectRoot } from "./tools.mjs";

const standIn = (name) => path.join(projectRoot, "tests/helpers/browser", name);

/** What stands in for Node's modules and for files of the project that need Node. */
const STAND_INS = new Map([
  ["node:fs", standIn("fs.ts")],
  ["node:path", standIn("path.ts")],
  ["node:process", standIn("process.ts")],
  [path.join(projectRoot, "tests/helpers/files.ts"), standIn("files.ts")],
  [path.join(projectRoot, "src/platform/files.ts"), standIn("files.ts")],
  [path.join(projectRoot, "src/platform/environment.ts"), standIn("files.ts")],
]);

/** Where the server of the tests gives out files of the project as they are: others it packs, unpacks or turns into code. */
const FILES = "/longtail-files";
const GIVEN_OUT = /^\/(models|presets|tests\/fixtures)\//;

export const nodeInBrowser = () => ({
  name: "node-in-browser",
  /** @type {"pre"} */
  enforce: "pre",
  config: () => ({ define: { LONGTAIL_VARIABLES: JSON.stringify(variables()) } }),
  /** @param {string} id @param {string | undefined} importer */
  resolveId(id, importer) {
    const file = id.startsWith(".") && importer ? path.resolve(path.dirname(importer.split("?")[0] ?? ""), id) : id;
    return STAND_INS.get(file) ?? null;
  },
  /** @param {import("vite").ViteDevServer} server */
  configureServer(server) {
    server.middlewares.use(FILES, (request, response) => {
      const place = path.posix.normalize(decodeURIComponent(new URL(request.url ?? "", "http://x").pathname));
      if (!GIVEN_OUT.test(place)) return void response.writeHead(403).end();
      fs.createReadStream(path.join(projectRoot, place))
        .on("error", () => response.writeHead(404).end())
        .pipe(response.setHeader("Content-Type", "application/octet-stream"));
    });
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
