// Texts of pictures. Where a picture's text comes from and what of a text file counts are decided here; so is what a text
// becomes when a batch is made: trigger word, shuffled tags, dropped caption (as kohya's and ostris' trainers do it, with
// random numbers that depend on the draw alone).

import { LongtailError } from "../../base/errors.ts";
import { RandomStream } from "../../base/random.ts";

/** A text encoder reads some hundred words; a longer text is a mistake. */
export const LONGEST_CAPTION = 16_384;

/** Which lines of a text are captions: the first that is not empty, each of them in turn, or all as one text. */
export type CaptionLines = "first" | "each" | "whole";

const UTF8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The captions in the bytes of a text file; none where there is only white space.
 * @throws E-DATA-043 too long, E-DATA-044 not a text
 */
export function captionsOfBytes(bytes: Uint8Array, where: string, lines: CaptionLines): string[] {
  if (bytes.length > 4 * LONGEST_CAPTION) throw tooLong(where, `${bytes.length} bytes`);
  let text: string;
  try {
    const wide =
      bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : null;
    text = wide === null ? UTF8.decode(bytes) : new TextDecoder(wide, { fatal: true }).decode(bytes);
  } catch (error) {
    throw notText(where, "it is not UTF-8", error);
  }
  return captionsOfText(text, where, lines);
}

/** The same for a text from a list. */
export function captionsOfText(text: string, where: string, lines: CaptionLines): string[] {
  if (text.length > LONGEST_CAPTION) throw tooLong(where, `${text.length} characters`);
  if (text.includes("\0")) throw notText(where, "it holds NUL characters");
  const clean = (part: string) =>
    part
      .replace(/[\u0000-\u001f\u007f\ufeff]+/g, " ")
      .replace(/ {2,}/g, " ")
      .trim();
  if (lines === "whole") return [clean(text)].filter((caption) => caption !== "");
  const found = text
    .split(/\r\n|\r|\n/)
    .map(clean)
    .filter((caption) => caption !== "");
  return lines === "first" ? found.slice(0, 1) : found;
}

export function tooLong(where: string, size: string): LongtailError {
  return new LongtailError("E-DATA-043", {
    what: "the caption is too long",
    where,
    why: `it has ${size}, at most ${LONGEST_CAPTION} characters are read`,
    fix: "shorten the caption; text encoders read some hundred words",
  });
}

function notText(where: string, why: string, cause?: unknown): LongtailError {
  return new LongtailError("E-DATA-044", {
    what: "the caption is not a text",
    where,
    why,
    fix: "save the text as UTF-8",
    cause,
  });
}

export interface CaptionOptions {
  /** Takes the place of `[trigger]` in captions; put in front of a caption that does not hold it. */
  trigger?: string | undefined;
  /** Put in front of every caption, behind the trigger word. */
  prefix?: string | undefined;
  /** Share of draws without caption (the empty text), 0 by default. */
  dropout?: number;
  /** Shuffles the parts between separators. */
  shuffleTags?: boolean;
  /** The first parts stay in place while shuffling. */
  keepTags?: number;
  /** "," by default. */
  separator?: string;
}

/** What of a draw a caption depends on. */
export interface CaptionDraw {
  /** Which of the captions. */
  caption: number;
  /** A number in [0, 1): the caption is dropped where it is below the share. */
  dropCaption: number;
  /** Number of the draw, which orders the tags. */
  number: number;
  seed: number;
}

/** The text that a picture is trained with in one draw. */
export function captionOf(captions: readonly string[], draw: CaptionDraw, options: CaptionOptions = {}): string {
  if (draw.dropCaption < (options.dropout ?? 0)) return "";
  return captionText(captions[draw.caption % captions.length] ?? "", options, draw);
}

/** The same without a draw, for validation and previews: nothing is dropped or shuffled. */
export function captionText(caption: string, options: CaptionOptions = {}, draw: CaptionDraw | null = null): string {
  const { trigger, prefix, keepTags = 0, separator = "," } = options;
  let text = trigger === undefined ? caption : caption.replaceAll("[trigger]", trigger);
  if (options.shuffleTags && draw !== null) {
    const tags = text
      .split(separator)
      .map((tag) => tag.trim())
      .filter((tag) => tag !== "");
    const moved = tags.slice(keepTags);
    const order = new RandomStream(draw.seed, "tag order").permutation(draw.number, moved.length);
    text = [...tags.slice(0, keepTags), ...Array.from(order, (i) => moved[i]!)].join(`${separator} `);
  }
  const parts = [prefix?.trim() ?? "", text].filter((part) => part !== "");
  const whole = parts.join(" ");
  return trigger === undefined || whole.includes(trigger) ? whole : `${trigger}, ${whole}`.replace(/, $/, "");
}
