// The byte-level BPE tokenizer of Qwen, which feeds FLUX.2 klein's text encoder. The library of Hugging Face runs it from
// `tokenizer.json`. A prompt is a user's message of a chat that the model answers without thinking; the marks around it are
// part of what the transformer was trained with.

import { Tokenizer } from "@huggingface/tokenizers";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { parseJson } from "../../formats/jsonl.ts";

const START = "<|im_start|>";
const END = "<|im_end|>";
const PADDING = "<|endoftext|>";

/** The chat of one message with the beginning of an answer whose thinking is empty, as Qwen3's template writes it. */
export function qwenChat(prompt: string): string {
  return `${START}user\n${prompt}${END}\n${START}assistant\n<think>\n\n</think>\n\n`;
}

export class QwenTokenizer {
  /** Id that texts are filled up with. */
  readonly padding: number;
  readonly #tokenizer: Tokenizer;

  private constructor(tokenizer: Tokenizer, padding: number) {
    this.#tokenizer = tokenizer;
    this.padding = padding;
  }

  /**
   * Reads a `tokenizer.json` of a Qwen model.
   * @throws LongtailError E-FILE-020 the file does not hold a tokenizer with Qwen's chat marks
   */
  static async load(files: FileStore, path: string): Promise<QwenTokenizer> {
    const definition = parseJson(await files.readText(path), path);
    try {
      const tokenizer = new Tokenizer(definition as object, {});
      const [start, end, padding] = [START, END, PADDING].map((mark) => {
        const { ids } = tokenizer.encode(mark);
        if (ids.length !== 1) throw new Error(`${mark} gives ${ids.length} tokens instead of one`);
        return ids[0]!;
      }) as [number, number, number];
      if (new Set([start, end, padding]).size !== 3) throw new Error("the chat marks share an id");
      return new QwenTokenizer(tokenizer, padding);
    } catch (error) {
      throw new LongtailError("E-FILE-020", {
        what: "is not a Qwen tokenizer",
        where: path,
        why: (error as Error).message,
        fix: "use the tokenizer.json that belongs to the text encoder",
        cause: error,
      });
    }
  }

  /** Ids of a text as it is, without chat marks and padding, of any length. */
  encode(text: string): number[] {
    return this.#tokenizer.encode(text).ids;
  }

  /**
   * Ids of a prompt in its chat, cut at the end and filled up behind it to `length`; FLUX.2 klein takes 512.
   * @returns int32 [length], how many of them are no padding, and whether nothing was cut
   */
  encodePrompt(prompt: string, length: number): { ids: Int32Array; count: number; whole: boolean } {
    const found = this.encode(qwenChat(prompt));
    const count = Math.min(found.length, length);
    const ids = new Int32Array(length).fill(this.padding);
    ids.set(found.slice(0, count));
    return { ids, count, whole: found.length <= length };
  }
}
