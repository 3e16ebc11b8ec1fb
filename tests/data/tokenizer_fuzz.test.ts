// The tokenizers on texts as nobody types them. What is right is what Python's `tokenizers` and `transformers` give, because
// the pipelines run on them: their ids are kept as hashes (tests/oracle/wild_ids.py). The library @huggingface/tokenizers runs
// CLIP's tokenizer.json a second time, built here from the merge list. LONGTAIL_LONG=1 takes twenty times as many texts for that.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { describe, expect, test } from "vitest";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { QwenTokenizer } from "../../src/data/tokenizers/qwen.ts";
import { T5Tokenizer } from "../../src/data/tokenizers/t5.ts";
import { gunzip } from "../../src/formats/gzip.ts";
import { MODELS, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";
import { idsHash, wildText } from "../helpers/wild_text.ts";

const files = new NodeFiles();
const MERGES = join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz");
const T5 = join(MODELS, "tokenizers/t5/tokenizer.json");
const QWEN = join(OWN_FIXTURES, "qwen3/tokenizer.json");
const golden = JSON.parse(readFileSync(join(OWN_FIXTURES, "tokenizers/wild_ids.json"), "utf8"));

/** The texts whose ids hash otherwise than in Python, with their numbers. */
function differing(hashes: string, encode: (text: string) => number[]): string[] {
  const out = [];
  for (let i = 0; i < golden.count; i++) {
    const text = wildText(i);
    if (idsHash(encode(text)) !== hashes.slice(4 * i, 4 * i + 4)) out.push(`${i} ${JSON.stringify(text)}`);
  }
  return out;
}

/** CLIP's tokenizer as `transformers` 5 writes it to tokenizer.json. */
async function clipOfLibrary(): Promise<Tokenizer> {
  const text = new TextDecoder().decode(await gunzip(await files.readBytes(MERGES), MERGES));
  const merges = text.split("\n").slice(1, 48_895);
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const bytes = Array.from({ length: 256 }, (_, b) => b).filter(printable);
  const symbols = [
    ...bytes.map((b) => String.fromCharCode(b)),
    ...Array.from({ length: 68 }, (_, i) => String.fromCharCode(256 + i)),
  ];
  const marks = ["<|startoftext|>", "<|endoftext|>"];
  const words = [...symbols, ...symbols.map((s) => `${s}</w>`), ...merges.map((m) => m.replace(" ", "")), ...marks];
  const [start, end] = [49406, 49407];
  const definition = {
    added_tokens: marks.map((content, i) => ({ id: start + i, content, special: true, normalized: false })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: {
            Regex:
              "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
          },
          behavior: "Removed",
          invert: true,
        },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: {
      type: "RobertaProcessing",
      sep: [marks[1], end],
      cls: [marks[0], start],
      add_prefix_space: false,
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: marks[1],
      continuing_subword_prefix: "",
      end_of_word_suffix: "</w>",
      vocab: Object.fromEntries(words.map((w, i) => [w, i])),
      merges,
    },
  };
  return new Tokenizer(definition, {});
}

describe(`on ${golden.count} wild texts`, () => {
  test("the CLIP tokenizer gives the ids of transformers", async () => {
    const clip = await ClipTokenizer.load(files, MERGES);
    expect(differing(golden.clip, (text) => clip.encode(text))).toEqual([]);
  });

  test("the T5 tokenizer gives the ids of tokenizers", async () => {
    const t5 = await T5Tokenizer.load(files, T5);
    expect(differing(golden.t5, (text) => t5.encode(text))).toEqual([]);
  });

  test("the Qwen tokenizer gives the ids of tokenizers", async () => {
    const qwen = await QwenTokenizer.load(files, QWEN);
    expect(differing(golden.qwen, (text) => qwen.encode(text))).toEqual([]);
  });

  // Its normalizer is NFKC with exceptions instead of the file's own character map, which this project reads (charsmap.ts).
  test("the library alone would be wrong about T5, in accents and ligatures", () => {
    const library = new Tokenizer(JSON.parse(readFileSync(T5, "utf8")), {});
    const wrong = differing(golden.t5, (text) => library.encode(text).ids);
    expect(wrong.length).toBeGreaterThan(golden.count / 50);
  });

  // JavaScript's \s, which the library uses, takes U+FEFF for a space and U+0085 for none; Python's libraries see it the other way
  // round, and the CLIP tokenizer with them. Its lower case knows a final sigma, theirs does not; and it takes a mark in capitals,
  // which theirs splits, for one word.
  test("the CLIP tokenizer agrees with the library, where the library's idea of space and of sigma is Unicode's", async () => {
    const [clip, library] = [await ClipTokenizer.load(files, MERGES), await clipOfLibrary()];
    const count = process.env["LONGTAIL_LONG"] === "1" ? 40_000 : 2_000;
    const wrong = [];
    for (let i = 0; i < count; i++) {
      const text = wildText(i);
      if (/[\ufeff\u0085Σ]|<\|(?:END|Start)/.test(text)) continue;
      if (`${clip.encode(text)}` !== `${library.encode(text).ids}`) wrong.push(`${i} ${JSON.stringify(text)}`);
    }
    expect(wrong).toEqual([]);
  });
});

test("a word of 20,000 letters is tokenized at once", async () => {
  const [clip, t5] = [await ClipTokenizer.load(files, MERGES), await T5Tokenizer.load(files, T5)];
  expect([...clip.encodeFixed("ab".repeat(10_000))].slice(-1)).toEqual([49407]);
  expect(t5.encode("é".repeat(20_000)).at(-1)).toBe(1);
});
