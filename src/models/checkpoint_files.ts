// Which file of a place holds the weights that are wanted: a file is taken as it is, a folder may be a part of diffusers'
// layout, a whole pipeline, or a download with one file in it.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { safetensorsSource } from "./mapped_source.ts";
import { type CheckpointPart, recognise } from "./recognise.ts";
import { readJson } from "./weights_file.ts";

export interface FoundWeights {
  /** A file, or the name that shards and their index share. */
  path: string;
  /** The config.json beside it, where there is one. */
  configPath: string | null;
  /** The pipeline's class, where it lies in one. */
  pipeline: string | null;
}

const TORCH = /\.(?:pt|pth|bin|ckpt)$/;
const SAFETENSORS = /\.(?:safetensors|sft)$/;
const SHARD = /-\d{5}-of-\d{5}(?=\.[a-z]+$)/;
const FOLDERS = { transformer: "transformer", autoencoder: "vae" } as const;
/** Names that diffusers writes, before any other. */
const USUAL = ["diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin"];

export const isWeightsFile = (path: string): boolean => SAFETENSORS.test(path) || TORCH.test(path);

/** Opens a weights file: safetensors with or without shards, or a torch archive (whose reader is loaded only then). */
export async function openWeights(files: FileStore, path: string): Promise<RangedSource> {
  if (!TORCH.test(path)) return safetensorsSource(await Safetensors.open(files, path));
  const { TorchArchive } = await import("../formats/torch_archive.ts");
  return TorchArchive.open(files, path);
}

/**
 * @param where a weights file or a folder
 * @throws LongtailError E-FILE-001 nothing is there, E-FILE-122 a format that is not read, E-FILE-123 no weights in the
 * folder, or several between which nothing decides
 */
export async function findWeights(files: FileStore, where: string, part: CheckpointPart): Promise<FoundWeights> {
  const place = where.length > 1 ? where.replace(/\/+$/, "") : where;
  if (place.endsWith(".gguf")) {
    throw new LongtailError("E-FILE-122", {
      what: "GGUF files are not read",
      where: place,
      why: "their blocks need decoders of their own",
      fix: "take the same model as safetensors; frozen weights can be quantised while they are loaded (model.storage)",
    });
  }
  if (isWeightsFile(place)) {
    const whole = place.replace(SHARD, "");
    const path = whole !== place && (await files.exists(`${whole}.index.json`)) ? whole : place;
    const there = (await files.exists(path)) || (await files.exists(`${path}.index.json`));
    if (!there) throw missing(place, "no such file");
    return { path, configPath: await configBeside(files, folderOf(path)), pipeline: null };
  }
  const entries = await files.list(place);
  if (entries.length === 0) throw missing(place, "no such folder, or nothing is in it");
  const index = entries.includes("model_index.json") ? await readJson(files, `${place}/model_index.json`) : null;
  const pipeline = typeof index?.["_class_name"] === "string" ? index["_class_name"] : null;
  const inner = `${place}/${FOLDERS[part]}`;
  const own = await weightsIn(files, place, entries, part);
  if (own && !index) return { path: own, configPath: await configBeside(files, place), pipeline };
  const below = entries.includes(FOLDERS[part]) ? await weightsIn(files, inner, await files.list(inner), part) : null;
  if (below) return { path: below, configPath: await configBeside(files, inner), pipeline };
  if (own) return { path: own, configPath: null, pipeline };
  throw new LongtailError("E-FILE-123", {
    what: `no weights of a ${part} are there`,
    where: place,
    why: `it has ${entries.slice(0, 5).join(", ")}${entries.length > 5 ? ", ..." : ""}`,
    fix: `give a weights file, or a folder in diffusers' layout (${FOLDERS[part]}/diffusion_pytorch_model.safetensors)`,
  });
}

async function weightsIn(
  files: FileStore,
  folder: string,
  entries: readonly string[],
  part: CheckpointPart,
): Promise<string | null> {
  const whole = [...new Set(entries.map((name) => name.replace(/\.index\.json$/, "")))].filter(
    (name) => isWeightsFile(name) && !SHARD.test(name),
  );
  const usual = USUAL.find((name) => whole.includes(name));
  if (usual) return `${folder}/${usual}`;
  // A torch file beside safetensors is the same model again.
  const safe = whole.filter((name) => SAFETENSORS.test(name));
  const candidates = (safe.length > 0 ? safe : whole).map((name) => `${folder}/${name}`);
  if (candidates.length <= 1) return candidates[0] ?? null;
  const fitting: string[] = [];
  for (const path of candidates) if (await holds(files, path, part)) fitting.push(path);
  if (fitting.length <= 1) return fitting[0] ?? null;
  throw new LongtailError("E-FILE-123", {
    what: `${fitting.length} files there hold a ${part}`,
    where: folder,
    why: fitting.map((path) => path.slice(folder.length + 1)).join(", "),
    fix: "name the file itself",
  });
}

async function holds(files: FileStore, path: string, part: CheckpointPart): Promise<boolean> {
  const source = await openWeights(files, path);
  try {
    recognise([...source.names()], path, part);
    return true;
  } catch (error) {
    if (error instanceof LongtailError) return false;
    throw error;
  } finally {
    await source.close();
  }
}

const folderOf = (path: string) => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : ".");

async function configBeside(files: FileStore, folder: string): Promise<string | null> {
  const path = `${folder}/config.json`;
  return (await files.exists(path)) ? path : null;
}

function missing(where: string, what: string): LongtailError {
  return new LongtailError("E-FILE-001", {
    what,
    where,
    why: "a file or folder with a model's weights was expected there",
    fix: "check the path; a model of the hub is named owner/name",
  });
}
