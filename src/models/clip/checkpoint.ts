// Opens a CLIP model wherever it lies: open_clip's folder, a folder of transformers' CLIPModel (PickScore, LAION's and
// OpenAI's), or weights alone, as HPS v2.1 is published. Only headers are read here.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import type { RangedSource } from "../../base/tensor_source.ts";
import { isWeightsFile, openWeights } from "../checkpoint_files.ts";
import { readJson } from "../weights_file.ts";
import { type ClipLayout, clipTensors } from "./layouts.ts";
import { type OpenClipConfig, openClipConfig } from "./open_clip.ts";
import { inferClip, type Json } from "./sizes.ts";

export interface ClipCheckpoint {
  layout: ClipLayout;
  /** Tensors under open_clip's names. The caller closes it. */
  source: RangedSource;
  config: OpenClipConfig;
  /** The weights file, and the token table's name in it. */
  path: string;
  table: string;
  configPath: string | null;
  /** What was assumed because nothing says it. */
  notes: readonly string[];
}

const OPEN_CLIP = "open_clip_config.json";
/** Weights by what describes them, in the order in which they are taken. */
const OPEN_CLIP_WEIGHTS = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
const TRANSFORMERS_WEIGHTS = ["model.safetensors", "pytorch_model.bin"];
const SHARD = /-\d{5}-of-\d{5}(?=\.[a-z]+$)/;

/**
 * @param where a folder or a weights file
 * @throws LongtailError E-FILE-001 nothing is there, E-FILE-123 no weights or several, E-FILE-140 … 142 no CLIP model that
 * is computed here, E-FILE-041 a configuration of another model
 */
export async function openClipCheckpoint(files: FileStore, where: string): Promise<ClipCheckpoint> {
  const { path, configPath } = await findClip(files, where);
  const file = await openWeights(files, path);
  try {
    const { layout, source, table } = clipTensors(file);
    const json = configPath ? ((await readJson(files, configPath)) as Json) : null;
    const common = { layout, source, path, table, configPath };
    if (json && configPath!.endsWith(OPEN_CLIP)) {
      const rows = source.has("token_embedding.weight") ? source.shape("token_embedding.weight")[0]! : undefined;
      return { ...common, config: openClipConfig({ ...json }, configPath!, rows), notes: [] };
    }
    const { config, notes } = inferClip(source, isClipJson(json) ? json : null, configPath ?? "");
    return { ...common, config: { ...config, ...(await pictureStatistics(files, path)) }, notes };
  } catch (error) {
    await file.close();
    throw error;
  }
}

const isClipJson = (json: Json | null) => json !== null && ("vision_config" in json || "text_config" in json);

async function findClip(files: FileStore, where: string): Promise<{ path: string; configPath: string | null }> {
  const place = where.length > 1 ? where.replace(/\/+$/, "") : where;
  if (isWeightsFile(place)) {
    const whole = place.replace(SHARD, "");
    const path = whole !== place && (await files.exists(`${whole}.index.json`)) ? whole : place;
    if (!(await files.exists(path)) && !(await files.exists(`${path}.index.json`)))
      throw missing(place, "no such file", "a CLIP model's weights were expected there");
    const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : ".";
    const beside = (name: string) => `${folder}/${name}`;
    const own = OPEN_CLIP_WEIGHTS.some((name) => path.endsWith(name)) ? OPEN_CLIP : "config.json";
    for (const name of new Set([own, OPEN_CLIP, "config.json"]))
      if (await files.exists(beside(name))) return { path, configPath: beside(name) };
    return { path, configPath: null };
  }
  const entries = new Set(await files.list(place));
  if (entries.size === 0)
    throw missing(place, "no such folder, or nothing is in it", "a CLIP model was expected there");
  const there = (name: string) => entries.has(name) || entries.has(`${name}.index.json`);
  const open = OPEN_CLIP_WEIGHTS.find(there);
  if (open && entries.has(OPEN_CLIP)) return { path: `${place}/${open}`, configPath: `${place}/${OPEN_CLIP}` };
  const plain = TRANSFORMERS_WEIGHTS.find(there);
  const configPath = entries.has("config.json") ? `${place}/config.json` : null;
  if (plain) return { path: `${place}/${plain}`, configPath };
  const single = open ? [open] : [...entries].filter((name) => isWeightsFile(name) && !SHARD.test(name));
  if (single.length === 1) return { path: `${place}/${single[0]}`, configPath };
  if (entries.has(OPEN_CLIP))
    throw missing(`${place}/${OPEN_CLIP_WEIGHTS[0]}`, "no such file", "a weights file was expected there");
  throw new LongtailError("E-FILE-123", {
    what: single.length === 0 ? "no weights of a CLIP model are there" : `${single.length} weights files are there`,
    where: place,
    why: `it has ${[...entries].slice(0, 5).join(", ")}${entries.size > 5 ? ", ..." : ""}`,
    fix: "name the weights file itself, or a folder of open_clip or of transformers' CLIPModel",
  });
}

/** Mean and standard deviation of transformers' preprocessor_config.json, where it lies beside the weights. */
async function pictureStatistics(
  files: FileStore,
  path: string,
): Promise<Partial<Pick<OpenClipConfig, "mean" | "std">>> {
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : ".";
  const beside = `${folder}/preprocessor_config.json`;
  if (!(await files.exists(beside))) return {};
  const json = await readJson(files, beside);
  const triple = (value: unknown): [number, number, number] | null =>
    Array.isArray(value) && value.length === 3 && value.every((v) => typeof v === "number")
      ? (value as [number, number, number])
      : null;
  const [mean, std] = [triple(json["image_mean"]), triple(json["image_std"])];
  return { ...(mean ? { mean } : {}), ...(std ? { std } : {}) };
}

const missing = (where: string, what: string, why: string) =>
  new LongtailError("E-FILE-001", { what, where, why, fix: "check the path" });
