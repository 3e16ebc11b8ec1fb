// Text embeddings of prompts in a folder, in the layout of SRPO's reference scripts: one file a prompt in `prompt_embed`
// (states), `pooled_prompt_embeds` (CLIP's vector) and `text_ids` (zeros), and a JSON list of captions. Files are safetensors
// or torch's .pt; a folder that those scripts made is read as it is, and they read what is written here as .pt. Models that
// take no pooled text (FLUX.2) have the states alone.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { parseJson } from "../formats/jsonl.ts";
import { Safetensors } from "../formats/safetensors.ts";
import { writeSafetensors } from "../formats/safetensors_write.ts";
import { TorchArchive } from "../formats/torch_archive.ts";
import { torchTensorFile } from "../formats/torch_write.ts";
import { type PromptItem, promptItem } from "./prompts.ts";

/** What the reference's trainer opens, and what its preprocessing script writes. */
export const INDEX_NAMES = ["videos2caption2.json", "videos2caption.json"] as const;
/** Folder and key in the list of each tensor. */
export const PARTS = {
  states: { folder: "prompt_embed", key: "prompt_embed_path" },
  pooled: { folder: "pooled_prompt_embeds", key: "pooled_prompt_embeds_path" },
  ids: { folder: "text_ids", key: "text_ids" },
} as const;
export type Part = keyof typeof PARTS;

export type EmbeddingForm = "safetensors" | "torch";
export type EmbeddingType = "F32" | "BF16";

export interface TextEmbedding {
  /** States [length · width]. */
  states: Float32Array;
  /** CLIP's pooled vector; empty for models that take none. */
  pooled: Float32Array;
}

export const endingOf = (form: EmbeddingForm) => (form === "torch" ? "pt" : "safetensors");

const ALL_PARTS: readonly Part[] = ["states", "pooled", "ids"];

/** The parts that a model's embeddings have. */
export const partsOf = (pooled: boolean): readonly Part[] => (pooled ? ALL_PARTS : ["states"]);

/** The files of prompt `stem`; all three by default. */
export function embeddingPaths<P extends Part = Part>(
  folder: string,
  stem: string,
  form: EmbeddingForm,
  parts = ALL_PARTS as readonly P[],
): Record<P, string> {
  const paths = parts.map((part) => [part, `${folder}/${PARTS[part].folder}/${stem}.${endingOf(form)}`]);
  return Object.fromEntries(paths) as Record<P, string>;
}

/** Writes the files of one prompt; an empty pooled vector has none. @param width of a state */
export async function writeEmbedding(
  files: FileStore,
  folder: string,
  stem: string,
  { states, pooled }: TextEmbedding,
  width: number,
  { form, dtype }: { form: EmbeddingForm; dtype: EmbeddingType },
): Promise<void> {
  const parts = partsOf(pooled.length > 0);
  const paths = embeddingPaths(folder, stem, form, parts);
  const tensors: Record<Part, readonly [Float32Array, readonly number[]]> = {
    states: [states, [states.length / width, width]],
    pooled: [pooled, [pooled.length]],
    // One row of the transformer's text positions, all of them zero.
    ids: [new Float32Array(3), [3]],
  };
  for (const part of parts) {
    const [data, shape] = tensors[part];
    const path = paths[part];
    if (form === "torch") await files.writeAtomic(path, torchTensorFile(data, shape, dtype));
    else
      await writeSafetensors(files, path, [{ name: "tensor", dtype, shape, data }], {
        metadata: { format: "pt" },
      });
  }
}

/** Writes the list that names the files: one entry an item, what the item says besides kept. */
export async function writeEmbeddingIndex(
  files: FileStore,
  folder: string,
  items: readonly { stem: string; caption: string; fields: Readonly<Record<string, unknown>> }[],
  form: EmbeddingForm,
  parts: readonly Part[] = ALL_PARTS,
): Promise<string> {
  const path = `${folder}/${INDEX_NAMES[0]}`;
  const entries = items.map(({ stem, caption, fields }) => ({
    ...fields,
    caption,
    ...Object.fromEntries(parts.map((part) => [PARTS[part].key, `${stem}.${endingOf(form)}`])),
  }));
  await files.writeAtomic(path, `${JSON.stringify(entries, null, 1)}\n`);
  return path;
}

/** A folder of embeddings that is there. */
export class PromptEmbeddings {
  readonly folder: string;
  readonly items: readonly PromptItem[];
  private readonly files: FileStore;

  private constructor(files: FileStore, folder: string, items: readonly PromptItem[]) {
    this.files = files;
    this.folder = folder;
    this.items = items;
  }

  /** Whether a folder has such a list. */
  static async isFolder(files: FileStore, folder: string): Promise<boolean> {
    for (const name of INDEX_NAMES) if (await files.exists(`${folder}/${name}`)) return true;
    return false;
  }

  /**
   * Reads the list; embeddings are read when they are asked for.
   * @throws LongtailError E-FILE-001 no list, E-DATA-010 not JSON, E-DATA-030 an entry that cannot be used, E-DATA-031 none
   */
  static async open(files: FileStore, folder: string): Promise<PromptEmbeddings> {
    let path: string | null = null;
    for (const name of INDEX_NAMES) if (!path && (await files.exists(`${folder}/${name}`))) path = `${folder}/${name}`;
    if (!path)
      throw new LongtailError("E-FILE-001", {
        what: "there is no list of captions",
        where: folder,
        why: `a folder of prompt embeddings has ${INDEX_NAMES.join(" or ")}`,
        fix: "make one with longtail preprocess",
      });
    const list = parseJson(await files.readText(path), path);
    if (!Array.isArray(list) || list.length === 0)
      throw new LongtailError("E-DATA-031", {
        what: "there is no prompt",
        where: path,
        why: Array.isArray(list) ? "the list is empty" : "the file does not hold a list",
        fix: "make the folder anew with longtail preprocess",
      });
    return new PromptEmbeddings(
      files,
      folder,
      list.map((value, i) => promptItem(value, i, `${path}[${i}]`)),
    );
  }

  /**
   * The embeddings of item `index`.
   * @throws LongtailError E-DATA-070 a file name that leads elsewhere, E-FILE-001 a file is missing, E-DATA-071 a tensor of
   * another shape, E-DATA-075 a value that is not finite, and what a torn file says
   */
  async load(index: number): Promise<TextEmbedding & { length: number; width: number }> {
    const item = this.items[index]!;
    const states = await this.tensor(item, "states");
    const pooled = item.fields[PARTS.pooled.key] === undefined ? null : await this.tensor(item, "pooled");
    const [length, width] = states.shape.slice(-2) as [number, number];
    return { states: states.values, pooled: pooled?.values ?? new Float32Array(0), length, width };
  }

  private async tensor(item: PromptItem, part: Part): Promise<{ values: Float32Array; shape: readonly number[] }> {
    const { folder, key } = PARTS[part];
    const name = item.fields[key];
    if (typeof name !== "string" || !/^[^/\\]+$/.test(name) || name === "..")
      throw new LongtailError("E-DATA-070", {
        what: `${key} is not the name of a file`,
        where: item.where,
        why: `it is ${JSON.stringify(name ?? null)}, and files are looked for in ${folder} alone`,
        fix: "make the folder anew with longtail preprocess",
      });
    const source = await this.openTensor(`${this.folder}/${folder}/${name}`);
    try {
      const names = [...source.names()];
      const shape = names.length === 1 ? source.shape(names[0]!) : [];
      // A batch of one is the same numbers.
      const dimensions = shape.length - (shape[0] === 1 && shape.length > 1 ? 1 : 0);
      if (dimensions !== (part === "states" ? 2 : 1))
        throw new LongtailError("E-DATA-071", {
          what: names.length === 1 ? `the tensor has shape [${shape.join(", ")}]` : `it holds ${names.length} tensors`,
          where: source.name,
          why: `one ${part === "states" ? "matrix of states [tokens, width]" : "pooled vector [width]"} is expected`,
          fix: "make the folder anew with longtail preprocess",
        });
      const values = await source.load(names[0]!);
      const at = values.findIndex((value) => !Number.isFinite(value));
      if (at >= 0)
        throw new LongtailError("E-DATA-075", {
          what: `the embedding is not finite: value ${at} of ${values.length} is ${values[at]}`,
          where: source.name,
          why: "a NaN or an infinity in one prompt makes every weight NaN in one update",
          fix: "encode this prompt again: take the file away and run longtail preprocess",
        });
      return { values, shape };
    } finally {
      await source.close();
    }
  }

  /** The file itself, or the one of the other form beside it: a folder may have been converted. */
  private async openTensor(path: string): Promise<Pick<RangedSource, "name" | "names" | "shape" | "load" | "close">> {
    const other = path.endsWith(".pt") ? path.replace(/\.pt$/, ".safetensors") : path.replace(/\.safetensors$/, ".pt");
    const found = !(await this.files.exists(path)) && (await this.files.exists(other)) ? other : path;
    if (!found.endsWith(".safetensors")) return TorchArchive.open(this.files, found);
    const file = await Safetensors.open(this.files, found);
    return {
      name: found,
      names: () => file.names(),
      shape: (name) => file.info(name).shape,
      load: (name) => file.readF32(name),
      close: () => file.close(),
    };
  }
}
