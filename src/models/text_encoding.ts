// What pipelines know of their text encoders, whichever family they are of: prompts become rows of tables on the host, and the
// rows become states on the device. Here is also what all encoders share: how large matrices and tables are kept.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { Storage } from "../base/quantize.ts";
import type { Safetensors } from "../formats/safetensors.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Session } from "../tensor/session.ts";
import { BYTES, type DType, type Shape } from "../tensor/shape.ts";
import { DEVICE_TABLE_BYTES, FileRows } from "./token_rows.ts";
import type { WeightsPart } from "./weights_file.ts";

/** What an encoder reads of a batch: rows of its table (u32), or values, as the embeddings themselves where the table is in a file. */
export interface TokenInput {
  shape: Shape;
  dtype: "u32" | "f32";
}

export type TokenValues = Readonly<Record<string, Uint32Array | Float32Array>>;

export interface Tokenized {
  /** By the names of the encoders' inputs: rows of tables, and what else follows from the tokens. */
  tokens: TokenValues;
  /** Texts with words that the embedding tables do not hold. */
  unknown: string[];
  /** Texts with more tokens than the encoder that gives the states reads. */
  cut: string[];
}

/** The text encoders of a pipeline with their tokenizers. */
export interface TextEncoding {
  /** What has to be loaded. */
  readonly parts: readonly WeightsPart[];
  /** Bytes of the largest value of one prompt's way through the encoders. */
  readonly largestValue: number;
  /** Token rows of prompts. */
  tokenize(texts: readonly string[]): Tokenized;
  /** What `trace` reads of a batch of prompts, by name. */
  inputs(batch: number): Readonly<Record<string, TokenInput>>;
  /** The values of `inputs`: the tokens as they are, or the embeddings that they mean. */
  gather(tokens: TokenValues): Promise<TokenValues>;
  /** Tokens as `inputs` says -> states [B, L, J], and the pooled text [B, P] of families that have one. */
  trace(
    graph: Graph,
    session: Session,
    tokens: Readonly<Record<string, Tensor>>,
  ): { states: Tensor; pooled: Tensor | null };
}

export interface TextEncoderOptions {
  /** Folder with the tokenizers of FLUX.1's encoders, which come along; FLUX.2's lies in the pipeline's folder. */
  tokenizers: string;
  precision: DType;
  /** What the transformer takes. */
  transformer: { jointWidth: number; pooledWidth: number };
  /** Largest embedding table that goes to the device whole, in bytes. */
  deviceTableBytes?: number;
  /** An encoder whose matrices would take more bytes than this in f32 keeps the halves of its file: the same values. */
  halvesFromBytes?: number;
}

/** CLIP has 0.4 GB of matrices in f32, T5-XXL 18.5 GB. */
const HALVES_FROM_BYTES = 1 << 30;

/** How the weights of `file` are kept: matrices of a large encoder stay the halves that its file holds. */
export function storageOfEncoder(
  file: Safetensors,
  { precision, halvesFromBytes = HALVES_FROM_BYTES }: TextEncoderOptions,
): { dtype: DType; storage?: Storage } {
  const matrices = file.names().flatMap((name) => {
    const info = file.info(name);
    return info.shape.length === 2 && !/embed_tokens|embedding|^shared\./.test(name) ? [info] : [];
  });
  const elements = matrices.reduce((n, { shape }) => n + shape[0]! * shape[1]!, 0);
  if (precision !== "f32" || 4 * elements <= halvesFromBytes) return { dtype: precision };
  const all = (dtype: string) => matrices.every((info) => info.dtype === dtype);
  return { dtype: precision, ...(all("BF16") ? { storage: "bf16" } : all("F16") ? { storage: "f16" } : {}) };
}

/** The table `name` of `file` where it is too large for the device, and null where it is declared as a tensor. */
export function tableInFile(
  files: FileStore,
  file: Safetensors,
  name: string,
  shape: [number, number],
  { precision, deviceTableBytes = DEVICE_TABLE_BYTES }: TextEncoderOptions,
): FileRows | null {
  if (shape[0] * shape[1] * BYTES[precision] <= deviceTableBytes) return null;
  // A table that stays in its file is not among the parameters that are checked.
  file.expectShape(name, shape);
  return new FileRows(files, file.path, name, shape);
}

/** An input of `length` tokens. */
export function tokenInput(batch: number, length: number, table: FileRows | null): TokenInput {
  return table ? { shape: [batch, length, table.width], dtype: "f32" } : { shape: [batch, length], dtype: "u32" };
}

/** @throws LongtailError E-FILE-032 where an encoder's width is not what the transformer takes */
export function checkWidth(folder: string, encoder: string, key: string, given: number, taken: number): void {
  if (given === taken) return;
  throw new LongtailError("E-FILE-032", {
    what: `${encoder} gives vectors of ${given} numbers, and the transformer takes ${taken} (${key})`,
    where: folder,
    why: "the parts of the pipeline come from different models",
    fix: "use the text encoders that belong to the transformer",
  });
}
