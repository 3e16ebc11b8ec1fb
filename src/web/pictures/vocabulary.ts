// The words that the embedded model reads. It is small and was trained on captions of emoji alone: a word outside its tables
// reads as nothing, so a caption of such words trains as if it were empty. The page says so where captions are written.

import { signal } from "@preact/signals";

export interface Vocabulary {
  /** Names of the 525 items, as captions have them. */
  items: readonly string[];
  words: ReadonlySet<string>;
}

/** Null until `loadVocabulary` has fetched it. */
export const vocabulary = signal<Vocabulary | null>(null);

const SOURCE = new URL("./vocabulary.json", import.meta.url).href;
let loading: Promise<void> | null = null;

/** Fetches the list once; without it nothing is marked. */
export function loadVocabulary(): Promise<void> {
  loading ??= fetch(SOURCE)
    .then((response) => response.json() as Promise<{ items: string[]; words: string[] }>)
    .then(({ items, words }) => {
      vocabulary.value = { items, words: new Set(words) };
    })
    .catch(() => {
      loading = null;
    });
  return loading;
}

/** Words of a text that the model does not read, each once, in order. */
export function unknownWords(text: string, words: ReadonlySet<string>): string[] {
  const found = text.toLowerCase().split(/[^\p{L}\p{N}]+/u);
  return [...new Set(found.filter((word) => word !== "" && !words.has(word)))];
}

/** Words that the model reads and never saw a picture for: what a trigger word has to be. */
export const FREE_WORDS = ["gloss", "older"] as const;
