// Reads a run's folder in the browser's own storage (OPFS), where the worker writes it in the command line's layout. The main
// thread only reads; a file that is being written is read as far as it is there.

import { parseLog, type RunSource } from "./run_source.ts";

async function fileAt(path: string): Promise<File | null> {
  try {
    const parts = path.split("/");
    let folder = await navigator.storage.getDirectory();
    for (const part of parts.slice(0, -1)) folder = await folder.getDirectoryHandle(part);
    return await (await folder.getFileHandle(parts.at(-1)!)).getFile();
  } catch {
    return null;
  }
}

/** The run `runs/<name>` of this browser. Its log is read once; live events come from the engine. */
export function browserSource(name: string): RunSource {
  const at = (path: string) => fileAt(`runs/${name}/${path}`);
  return {
    name,
    origin: "browser",
    // A file that is written meanwhile can refuse to be read.
    text: async (path) => (await (await at(path))?.text().catch(() => null)) ?? null,
    blob: at,
    follow(take, ended) {
      let stopped = false;
      void at("log.jsonl").then(async (file) => {
        const text = (await file?.text().catch(() => null)) ?? "";
        if (stopped) return;
        take(parseLog(text));
        ended?.();
      });
      return () => {
        stopped = true;
      };
    },
  };
}
