// Names of models on a hub, `owner/name[@revision][:path]`, and which of a repository's files a model needs. Downloading is
// the platform's affair (src/platform/hub.ts); this knows names alone.

import { LongtailError } from "../base/errors.ts";
import type { EventSink } from "../base/events.ts";

export interface HubId {
  /** owner/name. */
  repository: string;
  /** Branch, tag or commit. */
  revision: string;
  /** A folder or file inside; "" for the whole repository. */
  path: string;
}

export interface HubFile {
  path: string;
  size: number;
  /** What the bytes are checked by: SHA-256 of large files, git's SHA-1 of small ones; null where it is not known. */
  hash: { kind: "sha256" | "git"; hex: string } | null;
}

/** A model's files on this machine. */
export interface HubSnapshot {
  /** The folder, or the file where the id's path names one. */
  path: string;
  commit: string;
  /** Bytes that were downloaded now; 0 where everything was there. */
  fetched: number;
}

/** Picks the files that are needed out of a repository's. @throws LongtailError where they are not there or not clear */
export type ChooseFiles = (paths: readonly string[], id: HubId) => string[];

/** Where models are fetched from. */
export interface ModelHub {
  /** Brings the chosen files of a model here, or finds them here, and says where they are. */
  fetch(id: HubId, choose: ChooseFiles, events?: EventSink): Promise<HubSnapshot>;
}

const WORD = "[A-Za-z0-9][A-Za-z0-9._-]*";
const ID = new RegExp(`^(${WORD}/${WORD})(?:@([^:@\\s\\\\]+))?(?::([^:\\\\]+))?$`);
const LONGEST_NAME = 96;

/** The parts of a hub id, or null for a text that is none (an absolute path, `./folder`, `embedded`). */
export function parseHubId(text: string): HubId | null {
  const [, repository, revision = "main", inner = ""] = ID.exec(text) ?? [];
  if (repository === undefined || repository.split("/").some((word) => word.length > LONGEST_NAME)) return null;
  if (/\.\.|--/.test(repository) || /(^|\/)\.{1,2}(\/|$)|^\/|\/\/|\/$/.test(revision)) return null;
  const path = inner.replace(/\/+$/, "");
  if (
    path.startsWith("/") ||
    path.split("/").some((part) => part === ".." || part === "." || (part === "" && path !== ""))
  )
    return null;
  return { repository, revision, path };
}

/** An id as it is written. */
export function hubIdText({ repository, revision, path }: HubId): string {
  return `${repository}${revision === "main" ? "" : `@${revision}`}${path === "" ? "" : `:${path}`}`;
}

const WEIGHTS = /\.(?:safetensors|sft|pt|pth|bin|ckpt)$/;
const SAFETENSORS = /\.(?:safetensors|sft)(?:\.index\.json)?$/;
const SHARD = /-\d{5}-of-\d{5}(?=\.[a-z]+$)/;
/** Weights in another type beside the usual ones: `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`. */
const VARIANT = /\.(?:fp16|bf16|fp32|fp8|non_ema|ema)(?=[.-])/;
const SMALL = /\.(?:json|txt|model|jinja)$/;

/**
 * Files of a diffusers pipeline (its parts in folders of their own), or of a single model: configurations, tokenizers and
 * one set of weights for each folder, as safetensors where there are such.
 * @param parts folders of the pipeline that are wanted; all by default
 * @param withoutWeights folders of which only the small files are wanted, because the weights come from elsewhere
 */
export function chooseModelFiles(
  parts: readonly string[] | null = null,
  withoutWeights: readonly string[] = [],
): ChooseFiles {
  return (paths, id) => {
    if (id.path !== "" && paths.includes(id.path)) return singleFile(paths, id.path);
    const root = id.path === "" ? "" : `${id.path}/`;
    const inside = paths.filter((path) => path.startsWith(root)).map((path) => path.slice(root.length));
    if (inside.length === 0) throw notThere(id, `it has nothing under ${id.path || "its root"}`);
    const folders = [...new Set(inside.flatMap((path) => (path.split("/").length === 2 ? [path.split("/")[0]!] : [])))];
    const chosen = new Set<string>();
    const pipeline = inside.includes("model_index.json");
    if (pipeline) {
      for (const file of ["model_index.json", "pipeline.json"]) if (inside.includes(file)) chosen.add(file);
    }
    const weightsAtRoot = inside.some((path) => !path.includes("/") && WEIGHTS.test(path));
    if (!pipeline && weightsAtRoot) {
      for (const path of oneFolder(
        inside.filter((path) => !path.includes("/")),
        id,
      ))
        chosen.add(path);
    } else {
      for (const folder of parts ?? folders) {
        const within = inside.filter((path) => path.startsWith(`${folder}/`) && path.split("/").length === 2);
        const taken = withoutWeights.includes(folder)
          ? within.filter((path) => SMALL.test(path))
          : oneFolder(within, id);
        for (const path of taken) chosen.add(path);
      }
    }
    if (![...chosen].some((path) => WEIGHTS.test(path))) {
      throw notThere(
        id,
        `there are no weights${parts ? ` in ${parts.join(", ")}` : ""} among its ${inside.length} files`,
      );
    }
    return [...chosen].sort().map((path) => root + path);
  };
}

/** What may lie beside weights and describe them: a model of diffusers or transformers, of open_clip, a CLIP's statistics. */
const DESCRIPTIONS = ["config.json", "open_clip_config.json", "preprocessor_config.json"];

/** One file, its shards where it is an index or the name that shards share, and the configurations beside it. */
function singleFile(paths: readonly string[], path: string): string[] {
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/") + 1) : "";
  const stem = path.replace(/\.index\.json$/, "").replace(SHARD, "");
  const shards = paths.filter((other) => SHARD.test(other) && other.replace(SHARD, "") === stem);
  const sharded = path !== stem ? [...shards, `${stem}.index.json`] : [];
  const beside = DESCRIPTIONS.map((name) => folder + name);
  return [...new Set([path, ...sharded, ...beside])].filter((name) => paths.includes(name)).sort();
}

/** The small files of a folder and one set of its weights. */
function oneFolder(paths: readonly string[], id: HubId): string[] {
  const small = paths.filter((path) => SMALL.test(path) && !path.endsWith(".index.json"));
  const weights = paths.filter((path) => WEIGHTS.test(path) || path.endsWith(".index.json"));
  const plain = weights.filter((path) => !VARIANT.test(path));
  const kept = plain.length > 0 ? plain : weights;
  const safe = kept.filter((path) => SAFETENSORS.test(path));
  const taken = safe.length > 0 ? safe : kept;
  const sets = new Map<string, string[]>();
  for (const path of taken) {
    const stem = path.replace(/\.index\.json$/, "").replace(SHARD, "");
    sets.set(stem, [...(sets.get(stem) ?? []), path]);
  }
  if (sets.size <= 1) return [...small, ...taken];
  const usual = [...sets.keys()].find((stem) =>
    /(?:^|\/)(?:diffusion_pytorch_)?model\.(?:safetensors|bin)$/.test(stem),
  );
  if (usual !== undefined) return [...small, ...sets.get(usual)!];
  throw new LongtailError("E-FILE-123", {
    what: `the repository has ${sets.size} sets of weights`,
    where: hubIdText(id),
    why: [...sets.keys()].join(", "),
    fix: `name one of them: ${id.repository}:${[...sets.keys()][0]}`,
  });
}

/** E-FILE-132: the repository is there, and what is asked for is not in it. */
export function notThere(id: HubId, why: string): LongtailError {
  return new LongtailError("E-FILE-132", {
    what: "the repository does not have what is asked for",
    where: hubIdText(id),
    why,
    fix: "look at its files on the hub; a folder or file inside is named owner/name:path",
  });
}
