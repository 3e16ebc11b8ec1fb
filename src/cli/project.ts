// Where the program's own files lie: its presets and the models that come along, whatever folder a command is run in.

import { join } from "node:path";
import type { FileStore } from "../base/files.ts";
import { projectFolder } from "../platform/environment.ts";
import type { ConfigSources } from "./config/load.ts";

/** The folder of package.json. */
export const PROJECT_ROOT = projectFolder;

/** Configuration texts from the file system: presets/ of the project, files relative to the current folder. */
export function projectSources(files: FileStore): ConfigSources {
  const presets = join(PROJECT_ROOT, "presets");
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
  return value === "embedded" ? join(PROJECT_ROOT, "models", embedded) : value;
}
