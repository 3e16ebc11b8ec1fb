// The character map of a SentencePiece tokenizer as `tokenizer.json` carries it ("Precompiled"): a double-array trie over UTF-8
// (Yata et al. 2007) from characters to their replacements. It is read exactly, because the models were trained behind it: the
// usual stand-in, NFKC, composes and orders marks otherwise and gives other tokens for about one in fifteen unusual texts.

/** Longer clusters are replaced character by character. */
const CLUSTER_BYTES = 6;

/** What `tokenizer.json` says about a normalizer; only the kinds that T5 uses are read here. */
export interface NormalizerDefinition {
  type?: string;
  normalizers?: NormalizerDefinition[];
  precompiled_charsmap?: string;
  pattern?: { Regex?: string; String?: string };
  content?: string;
  strip_left?: boolean;
  strip_right?: boolean;
}

export class CharacterMap {
  readonly #trie: Uint32Array;
  readonly #replacements: Uint8Array;
  readonly #known = new Map<string, string | null>();
  readonly #clusters = new Intl.Segmenter("und", { granularity: "grapheme" });

  /** @param bytes length of the trie in bytes (u32), the trie (u32 each), replacements that end with 0 */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (size < 4 || size % 4 !== 0 || size + 4 > bytes.length) throw new Error("the character map is cut off");
    this.#trie = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#replacements = bytes.subarray(4 + size);
  }

  /** Each cluster of characters by its replacement, else each of its characters by its own. */
  normalize(text: string): string {
    let out = "";
    for (const { segment } of this.#clusters.segment(text)) {
      const whole = utf8Length(segment) < CLUSTER_BYTES ? this.#replacement(segment) : null;
      if (whole !== null) out += whole;
      else for (const character of segment) out += this.#replacement(character) ?? character;
    }
    return out;
  }

  /** What the shortest known beginning of `text` becomes; the rest of it is dropped, as in the reference. */
  #replacement(text: string): string | null {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const found = this.#find(new TextEncoder().encode(text));
    if (this.#known.size > 20_000) this.#known.clear();
    this.#known.set(text, found);
    return found;
  }

  #find(key: Uint8Array): string | null {
    const trie = this.#trie;
    let at = childrenOf(trie[0]!);
    for (const byte of key) {
      if (byte === 0) return null;
      at ^= byte;
      const unit = trie[at];
      // A unit's label is its low byte; the top bit marks a value, which no byte equals.
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return null;
      at ^= childrenOf(unit);
      if ((unit >>> 8) & 1) {
        const from = trie[at]! & 0x7fffffff;
        const to = this.#replacements.indexOf(0, from);
        return new TextDecoder().decode(this.#replacements.subarray(from, to < 0 ? undefined : to));
      }
    }
    return null;
  }
}

/** Distance to a unit's children. */
function childrenOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function utf8Length(text: string): number {
  return new TextEncoder().encode(text).length;
}

/**
 * The normalizer of a SentencePiece tokenizer as a function; null where it has parts of another kind.
 * Space is what Unicode calls so (with U+0085, without U+FEFF), unlike in JavaScript's trim.
 */
export function exactNormalizer(definition: NormalizerDefinition): ((text: string) => string) | null {
  switch (definition.type) {
    case "Sequence": {
      const parts = (definition.normalizers ?? []).map(exactNormalizer);
      if (parts.includes(null)) return null;
      return (text) => parts.reduce((t, part) => part!(t), text);
    }
    case "Precompiled": {
      if (definition.precompiled_charsmap === undefined) return null;
      const map = new CharacterMap(Uint8Array.from(atob(definition.precompiled_charsmap), (c) => c.charCodeAt(0)));
      return (text) => map.normalize(text);
    }
    case "Strip": {
      const ends = [definition.strip_left && "^\\p{White_Space}+", definition.strip_right && "\\p{White_Space}+$"];
      const pattern = new RegExp(ends.filter(Boolean).join("|") || "(?!)", "gu");
      return (text) => text.replace(pattern, "");
    }
    case "Replace": {
      const { pattern, content } = definition;
      if (pattern?.Regex === undefined || content === undefined) return null;
      const regex = new RegExp(pattern.Regex, "gu");
      return (text) => text.replace(regex, () => content);
    }
    default:
      return null;
  }
}
