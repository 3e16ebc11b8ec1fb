// A Vite plugin that brings the project's models, presets and tokenizers to the page: packed, under names made of their content,
// and listed with sizes and hashes in `assets.json`. In development they are made when the page first asks for the list.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";
import { cacheFolder, projectRoot } from "./tools.mjs";

/** Files that come with the page, by the path that the command line has them at. */
const INCLUDED = [/^models\/(embedded|taef2|tokenizers|licences|page)\//, /^presets\/[^/]+\.toml$/];

/** Folders in which they are looked for. */
const FOLDERS = ["models", "presets"];

/** What is fetched together. A first picture needs "draw"; the long tail's mode reads the others as well. */
const GROUPS = {
  draw: [
    /^models\/embedded\/(transformer|text_encoder|text_encoder_2)\//,
    /^models\/embedded\/pipeline\.json$/,
    /^models\/taef2\/.*\.safetensors$/,
    /^models\/tokenizers\/.*\.(gz|json)$/,
  ],
  tail: [/^models\/embedded\/(reward|judge)\//, /^models\/embedded\/(items|pictures)\.json$/],
};

/** A first picture may fetch this much. */
export const DRAW_BUDGET = 24_000_000;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** CLIP uses this many merges of the list; the file has five times as many. */
const CLIP_MERGES = 48_894;

/** The heading and the merges in use of CLIP's list, packed anew: the tokenizer that reads it gives the same ids. */
export function compactMerges(packed) {
  const lines = zlib.gunzipSync(packed).toString("utf8").split("\n");
  return zlib.gzipSync(lines.slice(0, CLIP_MERGES + 1).join("\n"), { level: 9 });
}

/** JSON without its spaces; numbers and strings keep their values. */
export const compactJson = (bytes) => Buffer.from(JSON.stringify(JSON.parse(bytes.toString("utf8"))));

/** Files that the page gets in a smaller form. */
const DERIVED = {
  "models/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz": compactMerges,
  "models/tokenizers/t5/tokenizer.json": compactJson,
};

/** Paths below the project, with forward slashes and sorted. */
function includedFiles(root) {
  const names = FOLDERS.flatMap((folder) =>
    fs
      .readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
      .map((name) => `${folder}/${name.replaceAll("\\", "/")}`),
  );
  return names
    .filter((name) => INCLUDED.some((pattern) => pattern.test(name)) && fs.statSync(path.join(root, name)).isFile())
    .sort();
}

/** The packed form, kept between builds because packing takes seconds; null where it would save less than a fiftieth. */
function packed(content, hash) {
  const kept = path.join(cacheFolder(), "page", `${hash}.gz`);
  let small;
  try {
    small = fs.readFileSync(kept);
    if (!zlib.gunzipSync(small).equals(content)) throw new Error("damaged");
  } catch {
    small = zlib.gzipSync(content, { level: 9 });
    try {
      fs.mkdirSync(path.dirname(kept), { recursive: true });
      fs.writeFileSync(`${kept}.${process.pid}`, small);
      fs.renameSync(`${kept}.${process.pid}`, kept);
    } catch {
      // Without a cache the next build packs again.
    }
  }
  return small.length < 0.98 * content.length ? small : null;
}

/**
 * The manifest of the page's files and what is sent for each: `{manifest, contents}`, contents by address.
 * @param {string} root the project's folder
 */
export function collectAssets(root = projectRoot) {
  const files = {};
  const contents = new Map();
  for (const name of includedFiles(root)) {
    const read = fs.readFileSync(path.join(root, name));
    const content = DERIVED[name] ? DERIVED[name](read) : read;
    const hash = sha256(content);
    const small = packed(content, hash);
    const sent = small ?? content;
    // Its own ending: hosts that know .gz declare it as packed, and browsers then unpack it behind the page's back.
    const file = `data/${sha256(sent).slice(0, 20)}.bin`;
    contents.set(file, sent);
    files[name] = { file, bytes: content.length, sha256: hash, transfer: sent.length };
    if (small) files[name].encoding = "gzip";
  }
  const names = Object.keys(files);
  const groups = Object.fromEntries(
    Object.entries(GROUPS).map(([group, patterns]) => [
      group,
      names.filter((name) => patterns.some((pattern) => pattern.test(name))),
    ]),
  );
  return { manifest: { version: 1, files, groups }, contents };
}

/** Bytes sent for the files of a group; a content that several share counts once. */
export function transferOf({ files, groups }, group) {
  const sizes = new Map(groups[group].map((name) => [files[name].file, files[name].transfer]));
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

/** Lines of a table: what a first picture fetches by file, and the rest in sums. */
export function sizeTable(manifest) {
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`.padStart(9);
  const row = (name, bytes, sent) => `  ${name.padEnd(62)} ${megabytes(bytes)} ${megabytes(sent)}`;
  const { files, groups } = manifest;
  const large = groups.draw.filter((name) => files[name].transfer > 50_000);
  const sum = (names, key) => names.reduce((total, name) => total + files[name][key], 0);
  const others = Object.keys(files).filter((name) => !groups.draw.includes(name));
  const small = groups.draw.filter((name) => !large.includes(name));
  return [
    `  ${"for a first picture".padEnd(62)} ${"content".padStart(9)} ${"sent".padStart(9)}`,
    ...large.map((name) => row(name, files[name].bytes, files[name].transfer)),
    row(`${small.length} small files`, sum(small, "bytes"), sum(small, "transfer")),
    row("together", sum(groups.draw, "bytes"), transferOf(manifest, "draw")),
    row(`on demand: ${others.length} files`, sum(others, "bytes"), sum(others, "transfer")),
  ];
}

/** @returns {import("vite").Plugin} */
export function pageAssets() {
  let made = null;
  let outDir = "";
  let isBuild = false;
  const assets = () => {
    made ??= collectAssets();
    return made;
  };
  return {
    name: "page-assets",
    configResolved(config) {
      outDir = path.resolve(config.root, config.build.outDir);
      isBuild = config.command === "build";
    },
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const name = (request.url ?? "").split("?")[0].replace(/^\//, "");
        if (name !== "assets.json" && !name.startsWith("data/")) return next();
        const content = name === "assets.json" ? JSON.stringify(assets().manifest) : assets().contents.get(name);
        if (content === undefined) return next();
        response.setHeader("Content-Type", name === "assets.json" ? "application/json" : "application/octet-stream");
        response.setHeader("Cache-Control", "no-cache");
        response.end(content);
      });
    },
    writeBundle() {
      if (!isBuild) return;
      const { manifest, contents } = assets();
      fs.mkdirSync(path.join(outDir, "data"), { recursive: true });
      for (const [file, content] of contents) fs.writeFileSync(path.join(outDir, file), content);
      fs.writeFileSync(path.join(outDir, "assets.json"), JSON.stringify(manifest));
      const draw = transferOf(manifest, "draw");
      if (draw > DRAW_BUDGET)
        throw new Error(`a first picture fetches ${draw} bytes, and ${DRAW_BUDGET} are the most it may`);
    },
  };
}
