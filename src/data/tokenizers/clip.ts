// The byte-pair tokenizer of CLIP (Radford et al. 2021), used by FLUX's first text encoder and by every CLIP-type reward.
// Built from OpenAI's merge list alone. Texts are split as `transformers` does it; `open_clip` differs in what it pads with, and
// it repairs wrongly decoded characters first (ftfy), which is left out here.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { gunzip } from "../../formats/gzip.ts";

export const CLIP_START = 49406;
export const CLIP_END = 49407;
/** `transformers` (and so FLUX) fills up with the end token, `open_clip` with 0. */
export const CLIP_PADDING = { transformers: CLIP_END, open_clip: 0 } as const;
/** Positions of the public CLIP text encoders. */
export const CLIP_LENGTH = 77;

const MERGES = 48_894;
const WORD_END = "</w>";
/** The two marks, as they stand in a text. In capitals they are three words. */
const MARKS = /(<\|(?:start|end)oftext\|>)/;
const MARK_IDS: Record<string, number> = { "<|startoftext|>": CLIP_START, "<|endoftext|>": CLIP_END };
/**
 * English endings, runs of letters, single digits, runs of anything else. Space is what Unicode calls so, with U+0085 and
 * without U+FEFF, unlike JavaScript's `\s`.
 */
const WORDS = /<\|(?:start|end)oftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const CACHED_WORDS = 20_000;

/** One visible character for each byte: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100 on. */
function byteSymbols(): { symbols: string[]; order: number[] } {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const order = [...bytes.filter(printable), ...bytes.filter((byte) => !printable(byte))];
  const symbols: string[] = [];
  let next = 256;
  for (const byte of order) symbols[byte] = String.fromCharCode(printable(byte) ? byte : next++);
  return { symbols, order };
}

/** Letter by letter: JavaScript's lower case turns a capital sigma at the end of a word into a final one. */
function lowerCase(text: string): string {
  return text.includes("Σ") ? text.replaceAll("Σ", "σ").toLowerCase() : text.toLowerCase();
}

export class ClipTokenizer {
  readonly #ids = new Map<string, number>();
  /** Rank of a pair of symbols; a space parts them, because no symbol holds one. */
  readonly #ranks = new Map<string, number>();
  readonly #symbols: string[];
  readonly #words = new Map<string, readonly number[]>();

  /** @param merges lines of two symbols each, in order of rank */
  constructor(merges: readonly string[]) {
    const { symbols, order } = byteSymbols();
    this.#symbols = symbols;
    for (const byte of order) this.#ids.set(symbols[byte]!, this.#ids.size);
    for (const byte of order) this.#ids.set(symbols[byte]! + WORD_END, this.#ids.size);
    for (const [rank, pair] of merges.entries()) {
      this.#ranks.set(pair, rank);
      this.#ids.set(pair.replace(" ", ""), 512 + rank);
    }
  }

  /**
   * Reads `bpe_simple_vocab_16e6.txt.gz` as OpenAI publishes it.
   * @throws E-FILE-020 the file is not that list
   */
  static async load(files: FileStore, path: string): Promise<ClipTokenizer> {
    const lines = new TextDecoder().decode(await gunzip(await files.readBytes(path), path)).split("\n");
    // The first line is a heading; the list goes on behind the merges that CLIP uses.
    const merges = lines.slice(1, MERGES + 1);
    if (merges.length < MERGES || merges.some((line) => !/^\S+ \S+$/.test(line))) {
      throw new LongtailError("E-FILE-020", {
        what: "is not CLIP's merge list",
        where: path,
        why: `${MERGES} lines of two symbols are expected after the first line`,
        fix: "restore models/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz",
      });
    }
    return new ClipTokenizer(merges);
  }

  /** Ids of a text between start and end token, without padding and of any length. */
  encode(text: string): number[] {
    const ids = [CLIP_START];
    for (const part of text.split(MARKS)) {
      const mark = MARK_IDS[part];
      if (mark !== undefined) ids.push(mark);
      else for (const [word] of lowerCase(part.normalize("NFC")).matchAll(WORDS)) ids.push(...this.#encodeWord(word));
    }
    ids.push(CLIP_END);
    return ids;
  }

  /**
   * Ids cut and filled up to `length`; the last one stays the end token when a text is cut.
   * @param padding the id that fills up, see CLIP_PADDING
   * @returns int32 [length]
   */
  encodeFixed(text: string, length = CLIP_LENGTH, padding: number = CLIP_PADDING.transformers): Int32Array {
    const ids = this.encode(text);
    if (ids.length > length) {
      ids.length = length;
      ids[length - 1] = CLIP_END;
    }
    const out = new Int32Array(length).fill(padding);
    out.set(ids);
    return out;
  }

  #encodeWord(word: string): readonly number[] {
    const known = this.#words.get(word);
    if (known) return known;
    const ids = MARKS.test(word) ? word.split(/\b/).flatMap((w) => this.#merge(w)) : this.#merge(word);
    if (this.#words.size >= CACHED_WORDS) this.#words.clear();
    this.#words.set(word, ids);
    return ids;
  }

  /** Joins the pair of lowest rank, wherever it stands, until no pair is left that the list knows. */
  #merge(word: string): number[] {
    let parts = Array.from(new TextEncoder().encode(word), (byte) => this.#symbols[byte]!);
    parts[parts.length - 1] += WORD_END;
    while (parts.length > 1) {
      let best = Number.POSITIVE_INFINITY;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.#ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? best);
      }
      if (best === Number.POSITIVE_INFINITY) break;
      const joined: string[] = [];
      for (let i = 0; i < parts.length; i++) {
        const isPair = i + 1 < parts.length && this.#ranks.get(`${parts[i]} ${parts[i + 1]}`) === best;
        joined.push(isPair ? parts[i]! + parts[++i]! : parts[i]!);
      }
      parts = joined;
    }
    return parts.map((part) => this.#ids.get(part)!);
  }
}
