// Compact token tables for a grammar of captions: the ids that its captions can hold, and captions as rows of the tables.

import { caption, QUALITIES, STYLES } from "../../data/embedded.ts";
import type { PromptItem } from "../../data/prompts.ts";
import { CLIP_END, CLIP_PADDING, type ClipTokenizer } from "../../data/tokenizers/clip.ts";
import { T5_PADDING, type T5Tokenizer } from "../../data/tokenizers/t5.ts";

type Named = Pick<PromptItem, "item" | "category" | "region">;

export interface CaptionRows {
  /** Rows of the CLIP table [clipLength] and the place of the end token. */
  clip: Uint32Array;
  end: number;
  /** Rows of the T5 table [t5Length]; captions with a quality word have none. */
  t5: Uint32Array;
}

const sorted = (ids: Iterable<number>): Int32Array => Int32Array.from(new Set(ids)).sort();

export class Vocabulary {
  /** Token ids of the tables' rows, rising. */
  readonly clipIds: Int32Array;
  readonly t5Ids: Int32Array;
  private readonly tokenizers: { clip: ClipTokenizer; t5: T5Tokenizer };
  private readonly lengths: { clip: number; t5: number };
  private readonly clipRow: Map<number, number>;
  private readonly t5Row: Map<number, number>;
  private readonly cache = new Map<string, CaptionRows>();

  /** @param items all items, so that a model trained on a few of them has the same tables as one trained on all */
  constructor(
    items: readonly Named[],
    tokenizers: { clip: ClipTokenizer; t5: T5Tokenizer },
    lengths: { clip: number; t5: number },
  ) {
    this.tokenizers = tokenizers;
    this.lengths = lengths;
    const clip = new Set<number>([CLIP_END]);
    const t5 = new Set<number>([T5_PADDING]);
    const take = (text: string, both: boolean): void => {
      for (const id of tokenizers.clip.encode(text)) clip.add(id);
      if (both) for (const id of tokenizers.t5.encode(text)) t5.add(id);
    };
    // Both tokenizers cut words one by one, marks of punctuation included: each form once is enough, and style and
    // quality words need one item alone.
    const flags = [false, true];
    for (const entry of items)
      for (const item of flags)
        for (const category of flags)
          for (const region of flags) take(caption(entry, { item, category, region }), true);
    for (const style of STYLES) take(caption(items[0]!, { style }), true);
    for (const quality of QUALITIES) take(caption(items[0]!, { quality }), false);
    this.clipIds = sorted(clip);
    this.t5Ids = sorted(t5);
    this.clipRow = new Map([...this.clipIds].map((id, row) => [id, row]));
    this.t5Row = new Map([...this.t5Ids].map((id, row) => [id, row]));
  }

  rows(text: string): CaptionRows {
    const known = this.cache.get(text);
    if (known) return known;
    const ids = this.tokenizers.clip.encodeFixed(text, this.lengths.clip, CLIP_PADDING.transformers);
    const t5 = this.tokenizers.t5.encodeFixed(text, this.lengths.t5);
    const rows = {
      clip: Uint32Array.from(ids, (id) => this.clipRow.get(id) ?? this.clipIds.length),
      end: ids.indexOf(CLIP_END),
      t5: Uint32Array.from(t5, (id) => this.t5Row.get(id) ?? this.t5Ids.length),
    };
    this.cache.set(text, rows);
    return rows;
  }
}
