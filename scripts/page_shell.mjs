// A Vite plugin for what surrounds the page: the service worker with the list of files that it keeps, and the headers that a
// static host may be given. `weighPage` measures what the first load sends.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";
import { projectRoot } from "./tools.mjs";

const WORKER = "service_worker.js";
const SOURCE = path.join(projectRoot, "src", "web", "service_worker.ts");
/** Not kept for use without a network: weights, which are in the browser's storage, recorded runs, and what is large. */
const LEFT_OUT = /^(data\/|recorded\/|_headers$|service_worker\.js$|\.nojekyll$)/;
const LARGEST_KEPT = 1_000_000;

/** A first load of code and styles may send this much, packed. */
export const FIRST_LOAD_BUDGET = 150_000;

function filesBelow(folder) {
  return fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => name.replaceAll("\\", "/"))
    .filter((name) => fs.statSync(path.join(folder, name)).isFile())
    .sort();
}

/** Paths in a build that the service worker keeps. */
export function shellFiles(folder) {
  return filesBelow(folder).filter(
    (name) => !LEFT_OUT.test(name) && fs.statSync(path.join(folder, name)).size <= LARGEST_KEPT,
  );
}

/** The worker's code with the list of files and a version made of their content. */
export function withShell(code, folder) {
  if (/(^|[;}\s])(import|export)[\s{*"']/.test(code)) throw new Error(`${WORKER} must be one plain script`);
  const files = shellFiles(folder);
  const hash = createHash("sha256").update(code);
  for (const name of files) hash.update(`\n${name}\n`).update(fs.readFileSync(path.join(folder, name)));
  const version = hash.digest("hex").slice(0, 12);
  return `const LONGTAIL_SHELL=${JSON.stringify(files)},LONGTAIL_VERSION=${JSON.stringify(version)};\n${code}`;
}

/** Headers in the form that Netlify and Cloudflare Pages read; other hosts are given the same by hand (docs/page.md). */
function headersFile(html) {
  const policy = /http-equiv="Content-Security-Policy"\s+content="([^"]+)"/i.exec(html)?.[1]?.replace(/\s+/g, " ");
  const lines = [
    "/*",
    "  Cross-Origin-Opener-Policy: same-origin",
    "  Cross-Origin-Embedder-Policy: credentialless",
    "  Referrer-Policy: no-referrer",
    "  X-Content-Type-Options: nosniff",
    // A page cannot forbid being framed by its own <meta>.
    ...(policy ? [`  Content-Security-Policy: ${policy}; frame-ancestors 'none'`] : []),
    "/assets/*",
    "  Cache-Control: public, max-age=31536000, immutable",
    "/data/*",
    "  Cache-Control: public, max-age=31536000, immutable",
    `/${WORKER}`,
    "  Cache-Control: no-cache",
  ];
  return `${lines.join("\n")}\n`;
}

/** @returns {import("vite").Plugin} */
export function pageShell() {
  let outDir = "";
  let isBuild = false;
  return {
    name: "page-shell",
    configResolved(config) {
      outDir = path.resolve(config.root, config.build.outDir);
      isBuild = config.command === "build";
    },
    buildStart() {
      if (isBuild) this.emitFile({ type: "chunk", id: SOURCE, fileName: WORKER });
    },
    closeBundle() {
      const file = path.join(outDir, WORKER);
      if (!isBuild || !fs.existsSync(file)) return;
      const html = fs.readFileSync(path.join(outDir, "index.html"), "utf8");
      fs.writeFileSync(path.join(outDir, "_headers"), headersFile(html));
      // GitHub's pages leave out names that begin with "_" otherwise.
      fs.writeFileSync(path.join(outDir, ".nojekyll"), "");
      fs.writeFileSync(file, withShell(fs.readFileSync(file, "utf8"), outDir));
    },
  };
}

/** Scripts and styles that come with those in `start`: static imports are followed, `import(` waits until it is wanted. */
export function withImports(folder, start) {
  const found = new Set();
  const waiting = [...start];
  while (waiting.length > 0) {
    const name = waiting.pop();
    if (found.has(name) || !fs.existsSync(path.join(folder, name))) continue;
    found.add(name);
    if (!name.endsWith(".js")) continue;
    const code = fs.readFileSync(path.join(folder, name), "utf8");
    for (const [, specifier] of code.matchAll(/(?:\bfrom|\bimport)\s*"(\.{1,2}\/[^"]+\.js)"/g))
      waiting.push(path.posix.join(path.posix.dirname(name), specifier));
  }
  return found;
}

/** What a build's scripts and styles weigh: `{files: {name, bytes, gzip, first}[], first}`, `first` the first load's sum. */
export function weighPage(folder) {
  const gzip = (name) => zlib.gzipSync(fs.readFileSync(path.join(folder, name)), { level: 9 }).length;
  const html = fs.readFileSync(path.join(folder, "index.html"), "utf8");
  const references = [...html.matchAll(/<(?:script|link)\b[^>]*?(?:src|href)="([^"]+)"[^>]*>/g)].map(([, url]) => url);
  const named = references.map((url) => path.posix.normalize(url)).filter((name) => /\.(js|css)$/.test(name));
  const first = withImports(folder, ["index.html", ...named]);
  const files = filesBelow(folder)
    .filter((name) => /\.(js|css|html)$/.test(name) && !name.startsWith("data/"))
    .map((name) => ({
      name,
      bytes: fs.statSync(path.join(folder, name)).size,
      gzip: gzip(name),
      first: first.has(name),
    }))
    .sort((a, b) => Number(b.first) - Number(a.first) || b.gzip - a.gzip);
  return { files, first: files.filter((file) => file.first).reduce((sum, file) => sum + file.gzip, 0) };
}
