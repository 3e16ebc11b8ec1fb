// Texts as nobody types them, for the tokenizers: letters of many scripts, combining marks, emoji, text that runs from right to
// left, control characters, runs of spaces, look-alikes of special tokens and very long words. A text is a function of its
// number alone, so that ids computed elsewhere (tests/oracle/wild_ids.py) can be kept as hashes.

import { Dice } from "./dice.ts";

const WORDS =
  "a photo of an igbo masquerade, jollof rice! The CAT'S they'll don't I'm we've 12345 3.14 x2 Àbùkù naïve".split(" ");
const MARKED = [
  "<|startoftext|>",
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<pad>",
  "</s>",
  "<unk>",
  "<s>",
  "</w>",
];
const LOOKALIKES = [
  ...MARKED,
  "<extra_id_0>",
  "<extra_id_99>",
  "<|ENDOFTEXT|>",
  "<|StartOfText|>",
  "<think>",
  "</think>",
  "< pad >",
  "<|endoftext",
  "|>",
  "▁",
  "##",
];
const SPACES = [
  " ",
  "  ",
  "\t",
  "\n",
  "\r\n",
  "\n\n",
  "\u00a0",
  "\u2003",
  "\u3000",
  "\u200b",
  "\u2028",
  "\u202f",
  "\u205f",
  "\u1680",
];
const ODD = [
  "\u0000",
  "\u0001",
  "\u0007",
  "\u001b",
  "\u007f",
  "\u0085",
  "\u00ad",
  "\u200d",
  "\u200e",
  "\u202e",
  "\ufeff",
  "\ufffd",
  "\ufffe",
  "\ufe0f",
];
const EMOJI = ["😀", "👩🏽‍🌾", "🇳🇬", "👨‍👩‍👧", "❤️", "🧕🏿", "1️⃣", "🏴\u{e0067}\u{e0062}\u{e007f}", "☺"];
const FOLDED = [
  "ﬁ",
  "½",
  "²",
  "Ⅳ",
  "ａＢ",
  "㎏",
  "①",
  "…",
  "™",
  "ß",
  "İ",
  "ſ",
  "Σς",
  "ΟΔΟΣ",
  "ǅ",
  "Å",
  "ｶﾞ",
  "ﷺ",
  "Ω",
  "№",
  "—",
  "“q”",
  "´",
  "¨",
  "~",
  "～",
];
/** First and last code point of scripts and of blocks of signs. */
const BLOCKS: readonly (readonly [number, number])[] = [
  [0x20, 0x7e],
  [0xa0, 0xff],
  [0x100, 0x17f],
  [0x180, 0x24f],
  [0x250, 0x2af],
  [0x2b0, 0x2ff],
  [0x370, 0x3ff],
  [0x400, 0x4ff],
  [0x531, 0x587],
  [0x590, 0x5f4],
  [0x600, 0x6ff],
  [0x780, 0x7b1],
  [0x900, 0x97f],
  [0xe00, 0xe5b],
  [0x1100, 0x11ff],
  [0x1200, 0x137c],
  [0x1e00, 0x1eff],
  [0x1f00, 0x1fff],
  [0x2000, 0x206f],
  [0x2070, 0x209c],
  [0x20a0, 0x20c0],
  [0x2100, 0x218b],
  [0x2190, 0x23ff],
  [0x2460, 0x24ff],
  [0x3000, 0x30ff],
  [0x3200, 0x33ff],
  [0x4e00, 0x9fff],
  [0xac00, 0xd7a3],
  [0xf900, 0xfad9],
  [0xfb00, 0xfdff],
  [0xfe20, 0xfe6b],
  [0xff01, 0xffee],
  [0x10300, 0x1034a],
  [0x1d400, 0x1d7ff],
  [0x1f300, 0x1faff],
  [0x20000, 0x20100],
];
const isSurrogate = (code: number) => code >= 0xd800 && code <= 0xdfff;

/** One to six characters of one block. */
function characters(dice: Dice): string {
  const [first, last] = dice.pick(BLOCKS);
  let text = "";
  for (let i = dice.below(6); i >= 0; i--) {
    const code = first + dice.below(last - first + 1);
    if (!isSurrogate(code)) text += String.fromCodePoint(code);
  }
  return text;
}

/** Letters with marks of their own, in no normal form. */
function marks(dice: Dice): string {
  let text = dice.pick(["e", "o", "ọ", "A", "ạ", "क", "ﬁ", "ㅎ"]);
  for (let i = dice.below(4); i >= 0; i--) text += String.fromCharCode(0x300 + dice.below(0x70));
  return text;
}

/** One piece; the last kinds are rare, because they are long. */
function piece(dice: Dice): string {
  switch (dice.below(20)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return dice.pick(WORDS);
    case 4:
    case 5:
    case 6:
      return dice.pick(SPACES).repeat(1 + (dice.below(8) === 0 ? dice.below(40) : dice.below(2)));
    case 7:
      return dice.pick(LOOKALIKES);
    case 8:
      return dice.pick(ODD);
    case 9:
      return dice.pick(EMOJI);
    case 10:
      return dice.pick(FOLDED);
    case 11:
    case 12:
      return marks(dice);
    case 13:
      return String(dice.next());
    case 14:
      return dice.below(10) === 0
        ? dice.pick(["ab", "z", "aeiou", "é", "漢", "!?"]).repeat(100 + dice.below(200))
        : "-";
    default:
      return characters(dice);
  }
}

/** A hash of ids in 16 bits (FNV-1a over each id's two low bytes, folded), in four hexadecimal digits. */
export function idsHash(ids: readonly number[]): string {
  let hash = 0x811c9dc5;
  for (const id of ids) {
    hash = Math.imul(hash ^ (id & 0xff), 0x01000193);
    hash = Math.imul(hash ^ ((id >>> 8) & 0xff), 0x01000193);
  }
  return ((hash ^ (hash >>> 16)) & 0xffff).toString(16).padStart(4, "0");
}

/** Text number `index`; well-formed Unicode, of no length up to a few hundred characters. */
export function wildText(index: number): string {
  const dice = new Dice(index + 1);
  let text = "";
  for (let i = dice.below(12); i > 0; i--) text += piece(dice);
  return text;
}
