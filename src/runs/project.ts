// Where the program's own files lie: its presets and the models that come along, whatever folder a command is run in. The
// command line has them in its checkout; a page names its own root.

import type { FileStore } from "../base/files.ts";
import { join } from "../base/paths.ts";
import type { ConfigSources } from "./config/load.ts";

let folder = folderOf(import.meta.url);

/** The checkout that this file lies in, three levels up. */
function folderOf(url: string): string {
  // A bundle in a page has no such place; it says where its files are.
  if (!url.startsWith("file:")) return "";
  const path = decodeURIComponent(new URL("../..", url).pathname).replace(/\/$/, "");
  return /^\/[A-Za-z]:/.test(path) ? path.slice(1) : path;
}

/** The folder of `models` and `presets`. */
export const programFolder = (): string => folder;

/** Says where they are; "" for paths like `models/embedded` themselves. */
export function setProgramFolder(path: string): void {
  folder = path;
}

/** Configuration texts from files: presets/ of the program, other paths as the platform reads them. */
export function projectSources(files: FileStore): ConfigSources {
  const presets = join(folder, "presets");
  return {
    exists: (path) => files.exists(path),
    readText: (path) => files.readText(path),
    presetNames: async () =>
      (await files.list(presets)).filter((name) => name.endsWith(".toml")).map((name) => name.slice(0, -5)),
    readPreset: (name) => files.readText(join(presets, `${name}.toml`)),
  };
}

/** The file that a key of the configuration means: "embedded" is what comes along, other paths are the user's. */
export function embeddedPath(value: string, embedded: string): string {
  return value === "embedded" ? join(folder, "models", embedded) : value;
}
