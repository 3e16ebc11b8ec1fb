// The files of a run that are worth keeping, what each is for, and the whole folder as one zip.

import type { RunSource } from "../run_source.ts";
import type { RunView } from "../run_view.ts";
import type { ZipFile } from "./zip.ts";

export interface KeptFile {
  path: string;
  title: string;
  /** One sentence: which program it is for. */
  about: string;
}

/** Files of a training run in the order in which people want them. */
export function keptFiles(name: string): KeptFile[] {
  return [
    {
      path: `${name}.safetensors`,
      title: "LoRA, diffusers' keys",
      about: "For diffusers' load_lora_weights, ComfyUI and longtail sample.",
    },
    {
      path: `${name}.kohya.safetensors`,
      title: "LoRA, kohya's keys",
      about: "For kohya's sd-scripts and programs that read its keys.",
    },
    {
      path: "report.html",
      title: "Report",
      about: "One self-contained page for any browser: curves, samples, settings.",
    },
    { path: "log.jsonl", title: "Log", about: "Every number of the run, one JSON object a line, for pandas or jq." },
    { path: "config.toml", title: "Configuration", about: "What the command below reads to repeat the run." },
  ];
}

/** Files at the top of a run folder, for sources that cannot be listed. */
const TOP = ["run.json", "config.resolved.toml", "env.json", "kernels.json", "report.json", "README.md"];

/** Every file of a run of this browser's storage; of another source those that are known to be there. */
export async function* wholeRun(source: RunSource, view: RunView): AsyncGenerator<ZipFile> {
  const folder = source.origin === "browser" ? await storedFolder(source.name) : null;
  if (folder) {
    yield* walk(folder, source.name);
    return;
  }
  const samples = [...view.samples.values()].flat().map(({ path }) => path);
  for (const path of new Set([...keptFiles(source.name).map((file) => file.path), ...TOP, ...samples])) {
    const blob = await source.blob(path);
    if (blob) yield { name: `${source.name}/${path}`, blob };
  }
}

async function storedFolder(name: string): Promise<FileSystemDirectoryHandle | null> {
  try {
    const root = await navigator.storage.getDirectory();
    return await (await root.getDirectoryHandle("runs")).getDirectoryHandle(name);
  } catch {
    return null;
  }
}

async function* walk(folder: FileSystemDirectoryHandle, inside: string): AsyncGenerator<ZipFile> {
  for await (const [name, handle] of folder.entries()) {
    // Locks and half-written files are of no use elsewhere.
    if (name.startsWith(".") || name.includes(".longtail-tmp-")) continue;
    if (handle.kind === "directory") yield* walk(handle as FileSystemDirectoryHandle, `${inside}/${name}`);
    else {
      const file = await (handle as FileSystemFileHandle).getFile();
      yield { name: `${inside}/${name}`, blob: file, time: new Date(file.lastModified) };
    }
  }
}

/** The command that repeats a run from its configuration file, which lies in the folder where it is given. */
export const repeatCommand = (name: string): string => `npx longtail train config.toml --name=${name}-again`;

/** The set of own pictures that a configuration names, or null. */
export const ownSetOf = (toml: string): string | null => /^path = "(pictures\/[^"]+)"$/m.exec(toml)?.[1] ?? null;
