// The SentencePiece unigram tokenizer of T5 (Raffel et al. 2020), which feeds FLUX's second text encoder. The library of
// Hugging Face runs it from `tokenizer.json`, all but the normalizer (charsmap.ts). Its vocabulary has no Chinese or Japanese: such words become unknown.

import { Tokenizer } from "@huggingface/tokenizers";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { parseJson } from "../../formats/jsonl.ts";
import { exactNormalizer, type NormalizerDefinition } from "./charsmap.ts";

export const T5_PADDING = 0;
export const T5_END = 1;
export const T5_UNKNOWN = 2;

export class T5Tokenizer {
  readonly #tokenizer: Tokenizer;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /**
   * Reads a `tokenizer.json` of a T5 model.
   * @throws E-FILE-020 the file does not hold a tokenizer with T5's end token
   */
  static async load(files: FileStore, path: string): Promise<T5Tokenizer> {
    const definition = parseJson(await files.readText(path), path);
    try {
      const tokenizer = new Tokenizer(definition as object, {});
      const { normalizer } = definition as { normalizer: NormalizerDefinition | null };
      const exact = normalizer && exactNormalizer(normalizer);
      if (exact) tokenizer.normalizer = exact as unknown as Tokenizer["normalizer"];
      const found = new T5Tokenizer(tokenizer);
      const ids = found.encode("");
      if (ids.length !== 1 || ids[0] !== T5_END)
        throw new Error(`an empty text gives the ids [${ids.join(", ")}] instead of [1]`);
      return found;
    } catch (error) {
      throw new LongtailError("E-FILE-020", {
        what: "is not a T5 tokenizer",
        where: path,
        why: (error as Error).message,
        fix: "restore models/tokenizers/t5/tokenizer.json",
        cause: error,
      });
    }
  }

  /** Ids of a text with the end token, without padding and of any length. */
  encode(text: string): number[] {
    return this.#tokenizer.encode(text).ids;
  }

  /**
   * Ids cut and filled up with 0 to `length`; a cut text keeps its end token. FLUX.1 [dev] takes 512, [schnell] 256.
   * @returns int32 [length]
   */
  encodeFixed(text: string, length: number): Int32Array {
    const ids = this.encode(text);
    if (ids.length > length) {
      ids.length = length;
      ids[length - 1] = T5_END;
    }
    const out = new Int32Array(length).fill(T5_PADDING);
    out.set(ids);
    return out;
  }
}
