// The project's own lint: rooms import downwards only, platform names stay in the rooms that may touch the platform, and
// every source file and kernel says in its first line what it is for. It reads text, not syntax trees, so it needs no
// package; strings and comments are blanked first so that words in them do not count.

import fs from "node:fs";
import path from "node:path";

/** Rooms from the bottom up. A room may import itself and every room before it. */
export const ROOMS = [
  "base",
  "formats",
  "data",
  "gpu",
  "tensor",
  "ops",
  "nn",
  "models",
  "diffusion",
  "rewards",
  "optim",
  "training",
  "evaluation",
  "runs",
  "platform",
  "web",
  "cli",
];

/** Rooms that may import less than everything below them. */
const ONLY = {
  formats: ["base"],
  data: ["base", "formats"],
  evaluation: ["base", "formats", "data"],
  // A page brings its own files and adapter, so what is made for the command line's platform does not get into it.
  web: ROOMS.filter((room) => room !== "platform" && room !== "cli"),
};

const PLATFORM_ROOMS = new Set(["platform", "web", "cli"]);

const PLATFORM_NAMES =
  /(?<![.\w$])(Deno|process|window|document)\s*(?:\?\.|\.)|\bglobalThis\s*\.\s*(Deno|process|window|document)\b/g;

// Home folders and mounts of one machine; system folders like /usr/share are the same everywhere and may be named.
const MACHINE_PATHS = /(?<![\w.$}/])(?:\/(?:home|Users|root|work|mnt)\/[\w.-]+|[A-Za-z]:\\\\?Users\\)/g;

/**
 * The text with comments, and the contents of strings, replaced by spaces; line breaks stay, so positions do too.
 * Code inside `${}` of a template is kept, because it is code.
 */
export function blankText(source) {
  let out = "";
  let i = 0;
  // Each open `${` remembers how many braces it has seen, to know which `}` ends it.
  const templates = [];
  const blank = (text) => text.replace(/[^\n]/g, " ");
  const takeTemplate = () => {
    const start = i;
    while (i < source.length && source[i] !== "`") {
      if (source[i] === "$" && source[i + 1] === "{") {
        out += `${blank(source.slice(start, i))}\${`;
        i += 2;
        templates.push(0);
        return;
      }
      i += source[i] === "\\" ? 2 : 1;
    }
    out += `${blank(source.slice(start, i))}\``;
    i++;
  };
  while (i < source.length) {
    const two = source.slice(i, i + 2);
    const char = source[i];
    if (two === "//" || two === "/*") {
      const end = two === "//" ? source.indexOf("\n", i) : source.indexOf("*/", i + 2) + 2;
      const stop = end <= 1 ? source.length : end;
      out += blank(source.slice(i, stop));
      i = stop;
    } else if (char === '"' || char === "'") {
      let end = i + 1;
      while (end < source.length && source[end] !== char && source[end] !== "\n") end += source[end] === "\\" ? 2 : 1;
      out += char + blank(source.slice(i + 1, end)) + (source[end] ?? "");
      i = end + 1;
    } else if (char === "/" && startsRegExp(out)) {
      const end = endOfRegExp(source, i);
      out += `/${blank(source.slice(i + 1, end))}`;
      i = end;
    } else if (char === "`") {
      out += char;
      i++;
      takeTemplate();
    } else if (char === "}" && templates.at(-1) === 0) {
      out += char;
      i++;
      templates.pop();
      takeTemplate();
    } else {
      if (templates.length > 0 && (char === "{" || char === "}"))
        templates[templates.length - 1] += char === "{" ? 1 : -1;
      out += char;
      i++;
    }
  }
  return out;
}

/** A slash after a value divides; after anything else it opens a regular expression. */
function startsRegExp(before) {
  const code = before.trimEnd();
  if (code === "" || /[([{,;:=!&|?+\-*%<>~^]$/.test(code)) return true;
  return /(?:^|[^\w$.])(?:return|typeof|case|in|of|void|throw|await|yield|else)$/.test(code);
}

function endOfRegExp(source, start) {
  let inClass = false;
  for (let i = start + 1; i < source.length && source[i] !== "\n"; i++) {
    if (source[i] === "\\") i++;
    else if (source[i] === "[") inClass = true;
    else if (source[i] === "]") inClass = false;
    else if (source[i] === "/" && !inClass) return i + 1;
  }
  return start + 1;
}

/** Specifiers of static and dynamic imports and re-exports, as `{specifier, index}`. */
export function importsOf(source) {
  const blanked = blankText(source);
  const found = [];
  // The keyword is looked for where strings are blanked, the specifier is read from the source at the same place.
  for (const match of blanked.matchAll(/\b(?:from|import)\s*\(?\s*(["'])/g)) {
    const open = match.index + match[0].length;
    const close = source.indexOf(match[1], open);
    if (close > 0) found.push({ specifier: source.slice(open, close), index: match.index });
  }
  return found;
}

const lineAt = (source, index) => source.slice(0, index).split("\n").length;

/** The room of a path like `src/ops/matmul.ts`; null outside src or for a file directly in src. */
export function roomOf(file) {
  const parts = file.split("/");
  return parts[0] === "src" && parts.length > 2 ? parts[1] : null;
}

/**
 * What is wrong with one file. `file` is its path in the project with forward slashes, `source` its text.
 * Returns findings `{file, line, message}`.
 */
export function lintFile(file, source) {
  const findings = [];
  const add = (index, message) => findings.push({ file, line: lineAt(source, index), message });

  if ((/^src\/.*\.tsx?$/.test(file) || /^shaders\/.*\.wgsl$/.test(file)) && !/^\s*\/[/*]/.test(source)) {
    add(0, "the file does not start with a comment that says what it is for");
  }
  for (const match of source.matchAll(MACHINE_PATHS)) {
    add(match.index, `"${match[0]}" is a path of one machine`);
  }
  const room = roomOf(file);
  if (!file.startsWith("src/") || !/\.tsx?$/.test(file)) return findings;
  if (room && !ROOMS.includes(room)) {
    add(0, `"${room}" is not a room; the rooms are listed in scripts/lint-rooms.mjs`);
    return findings;
  }
  for (const { specifier, index } of importsOf(source)) {
    if (specifier.startsWith(".")) lintRelativeImport(file, room, specifier, (message) => add(index, message));
    else if (/^(npm|jsr|https?):/.test(specifier))
      add(index, `"${specifier}": packages are imported by their bare name`);
    else if (specifier.startsWith("node:") && room && !PLATFORM_ROOMS.has(room)) {
      add(index, `"${specifier}" may be imported in ${[...PLATFORM_ROOMS].join(", ")} only`);
    }
  }
  if (room && !PLATFORM_ROOMS.has(room)) {
    for (const match of blankText(source).matchAll(PLATFORM_NAMES)) {
      add(match.index, `"${match[1] ?? match[2]}" may be used in ${[...PLATFORM_ROOMS].join(", ")} only`);
    }
  }
  return findings;
}

function lintRelativeImport(file, room, specifier, add) {
  const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier));
  if (target.startsWith("shaders/")) return;
  if (!target.startsWith("src/")) {
    add(`imports "${target}", which is outside src and shaders`);
    return;
  }
  const other = roomOf(target);
  if (!room || !other || room === other) return;
  const allowed = ONLY[room] ?? ROOMS.slice(0, ROOMS.indexOf(room));
  if (!allowed.includes(other)) add(`room "${room}" must not import room "${other}" (${target})`);
}

const FOLDERS = ["src", "shaders", "tests", "scripts", "bench", "docs", ".ci"];
const TEXT = /\.(ts|tsx|mjs|js|wgsl|md|json|jsonc|toml|html|css|sh)$/;

function* textFiles(root, folder) {
  for (const entry of fs.readdirSync(path.join(root, folder), { withFileTypes: true })) {
    if (entry.name === "node_modules") continue;
    const file = folder ? `${folder}/${entry.name}` : entry.name;
    if (entry.isDirectory()) yield* textFiles(root, file);
    else if (TEXT.test(entry.name) || folder === ".ci") yield file;
  }
}

/** Findings of the whole checkout. Files over a megabyte are data and are not read. */
export function lintProject(root) {
  const files = FOLDERS.filter((folder) => fs.existsSync(path.join(root, folder))).flatMap((folder) => [
    ...textFiles(root, folder),
  ]);
  for (const name of fs.readdirSync(root)) {
    if (TEXT.test(name) && name !== "package-lock.json") files.push(name);
  }
  return files
    .filter((file) => fs.statSync(path.join(root, file)).size < 1_000_000)
    .flatMap((file) => lintFile(file, fs.readFileSync(path.join(root, file), "utf8")));
}
