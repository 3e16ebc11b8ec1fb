// Prompts for alignment: items in CuRe's schema (arXiv 2506.08071: item, category, region), read from JSON, JSON Lines or
// plain text, and the two texts that SRPO's reward compares. The pair follows MIA (an artefact's text with and without its
// attributes) or SRPO's control words (arXiv 2509.06942); which source wins is fixed here, in one place.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { RandomStream } from "../base/random.ts";
import { parseJson, parseJsonLines } from "../formats/jsonl.ts";

export interface PromptItem {
  /** Position in its file, from 0. */
  readonly index: number;
  /** The artefact's name; the caption where a file has no names. */
  readonly item: string;
  readonly caption: string;
  /** Empty where unknown, like `region`. Underscores are spaces already. */
  readonly category: string;
  readonly region: string;
  /** Texts that the data set itself gives for the pair. */
  readonly pos: string | null;
  readonly neg: string | null;
  /** Belongs to the long tail; true where a file does not say. */
  readonly tail: boolean;
  /** Marked to be trained on. */
  readonly align: boolean;
  /** File and place, for messages. */
  readonly where: string;
  /** All fields as they were read. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Accepted names of each field, the first that is present counts. */
const FIELD_NAMES = {
  item: ["item", "Item"],
  caption: ["caption", "prompt", "text"],
  category: ["mia_category", "category"],
  region: ["mia_region", "region"],
  pos: ["pos_prompt", "pos"],
  neg: ["neg_prompt", "neg"],
} as const;

/**
 * Reads a list of items: `.json` (an array), `.jsonl` (one object or string a line) or `.txt` (one prompt a line).
 * @throws E-DATA-010 not JSON, E-DATA-030 an item that cannot be used, E-DATA-031 no items
 */
export async function readPrompts(files: FileStore, path: string): Promise<PromptItem[]> {
  const text = await files.readText(path);
  const found: { where: string; value: unknown }[] = [];
  if (path.endsWith(".json")) {
    const list = parseJson(text, path);
    if (!Array.isArray(list)) throw badItem(path, "the file does not hold a list", "put the items into one JSON array");
    for (const [i, value] of list.entries()) found.push({ where: `${path}[${i}]`, value });
  } else if (path.endsWith(".jsonl")) {
    for (const { line, value } of parseJsonLines(text, path)) found.push({ where: `${path}:${line}`, value });
  } else if (path.endsWith(".txt")) {
    for (const [i, line] of text
      .replace(/^\ufeff/, "")
      .split("\n")
      .entries()) {
      if (line.trim() !== "") found.push({ where: `${path}:${i + 1}`, value: line.trim() });
    }
  } else throw badItem(path, "the ending of its name is not known", "use .json, .jsonl or .txt");
  if (found.length === 0) {
    throw new LongtailError("E-DATA-031", {
      what: "there is no prompt",
      where: path,
      why: "the file is empty",
      fix: "give at least one item with a caption",
    });
  }
  return found.map(({ where, value }, index) => promptItem(value, index, where));
}

/**
 * An item of one object (or of a string, its caption).
 * @throws E-DATA-030 no caption, or a field of another type
 */
export function promptItem(value: unknown, index: number, where: string): PromptItem {
  if (typeof value !== "string" && (typeof value !== "object" || value === null || Array.isArray(value))) {
    throw badItem(
      where,
      "it is neither an object nor a text",
      "give an object with item, caption, category and region",
    );
  }
  const fields = typeof value === "string" ? { caption: value } : (value as Record<string, unknown>);
  const text = (names: readonly string[]): string | null => {
    for (const name of names) {
      const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
      if (field === undefined || field === null) continue;
      if (typeof field !== "string") throw badItem(where, `${name} is not a text`, `put ${name} in double quotes`);
      if (field.trim() !== "") return field.trim();
    }
    return null;
  };
  const flag = (name: string, otherwise: boolean): boolean => {
    const field = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (field === undefined || field === null) return otherwise;
    if (typeof field !== "boolean")
      throw badItem(where, `${name} is neither true nor false`, `write true or false for ${name}`);
    return field;
  };
  const caption = text(FIELD_NAMES.caption);
  if (caption === null) {
    const name = text(FIELD_NAMES.item);
    throw badItem(
      where,
      `item ${index}${name === null ? "" : ` (${name})`} has no caption`,
      "add a caption, or take the item out of the list",
    );
  }
  return {
    index,
    item: text(FIELD_NAMES.item) ?? caption,
    caption,
    category: spaced(text(FIELD_NAMES.category) ?? ""),
    region: spaced(text(FIELD_NAMES.region) ?? ""),
    pos: text(FIELD_NAMES.pos),
    neg: text(FIELD_NAMES.neg),
    tail: flag("tail", true),
    align: flag("align", false),
    where,
    fields,
  };
}

/** CuRe writes `Rice_Dish` and `South_America`. */
export const spaced = (text: string) => text.replaceAll("_", " ");

function badItem(where: string, why: string, fix: string): LongtailError {
  return new LongtailError("E-DATA-030", { what: "the item cannot be used", where, why, fix });
}

/**
 * A text from a template: `{item}`, `{caption}`, `{category}`, `{region}` and `{style}` are filled in, what else is in
 * braces stays. A missing value leaves no double space behind.
 */
export function fillTemplate(template: string, item: PromptItem, style: string | null = null): string {
  const values: Record<string, string> = {
    item: item.item,
    caption: item.caption,
    category: item.category,
    region: item.region,
    style: style ?? "",
  };
  const filled = template.replace(/\{([a-z]+)\}/g, (whole, name: string) =>
    Object.hasOwn(values, name) ? values[name]! : whole,
  );
  return filled.replace(/ {2,}/g, " ").trim();
}

export type Attribute = "category" | "region";

/** MIA's text with attributes: `<caption>. <category>, <region>`, whichever of them exist; the caption alone without any. */
export function attributeText(
  caption: string,
  item: PromptItem,
  attributes: readonly Attribute[] = ["category", "region"],
): string {
  const present = attributes.map((name) => item[name]).filter((value) => value !== "");
  return present.length === 0 ? caption : `${caption}. ${present.join(", ")}`;
}

/** SRPO's control words: a list for each side, taken in turn, update by update. */
export interface ControlWords {
  positive: readonly string[];
  negative: readonly string[];
}

/** The lists of the public script. */
export const CONTROL_WORDS: ControlWords = {
  positive: ["Natural-lighting", "Detail", "Detailed", "Real"],
  negative: ["Concept art", "Painting", "Anime", "Flat", "Oil"],
};

export interface PairRule {
  /** Where the pair comes from: by MIA's order of priority, always from control words, or no pair (the reward alone). */
  kind: "mia" | "control-words" | "none";
  /** Texts of the command line, templates for every item. They win over everything else. */
  pos?: string | undefined;
  neg?: string | undefined;
  attributes?: readonly Attribute[] | undefined;
  words?: ControlWords | undefined;
  /** Put in front of the caption where nothing else gives a pair and there are no control words. */
  posPrefix?: string | undefined;
  negPrefix?: string | undefined;
}

export interface TextPair {
  pos: string;
  /** null: no negative side, the reward is the positive score alone. */
  neg: string | null;
  source: "command line" | "data set" | "attributes" | "control words" | "prefix" | "none";
}

/**
 * The texts t+ and t− of the reward for one item in one update.
 * Kind `mia`: command line > the item's own pos and neg > category and region > control words > prefixes; a missing side
 * of the first two is the caption.
 * @param caption the generation prompt (with its style word); by default the item's caption
 * @param step number of the update; control words are P[step mod |P|] and Q[step mod |Q|]
 * @throws E-DATA-032 no source gives a pair
 */
export function promptPair(item: PromptItem, rule: PairRule, step: number, caption = item.caption): TextPair {
  if (rule.kind === "none") return { pos: caption, neg: null, source: "none" };
  const words = rule.words ?? CONTROL_WORDS;
  const hasWords = words.positive.length > 0 && words.negative.length > 0;
  const worded = (): TextPair => ({
    pos: `${words.positive[step % words.positive.length]}. ${caption}`,
    neg: `${words.negative[step % words.negative.length]}. ${caption}`,
    source: "control words",
  });
  if (rule.kind === "control-words" && hasWords) return worded();
  if (rule.kind === "mia") {
    const styled = { ...item, caption };
    if (rule.pos !== undefined || rule.neg !== undefined) {
      const side = (template: string | undefined) =>
        template === undefined ? caption : fillTemplate(template, styled);
      return { pos: side(rule.pos), neg: side(rule.neg), source: "command line" };
    }
    if (item.pos !== null || item.neg !== null)
      return { pos: item.pos ?? caption, neg: item.neg ?? caption, source: "data set" };
    const pos = attributeText(caption, item, rule.attributes);
    if (pos !== caption) return { pos, neg: caption, source: "attributes" };
    if (rule.words && hasWords) return worded();
  }
  if (rule.posPrefix !== undefined || rule.negPrefix !== undefined) {
    const prefixed = (prefix: string | undefined) => (prefix ? `${prefix} ${caption}` : caption);
    return { pos: prefixed(rule.posPrefix), neg: prefixed(rule.negPrefix), source: "prefix" };
  }
  throw new LongtailError("E-DATA-032", {
    what: `item ${item.index} (${item.item}) gives no pair of texts`,
    where: item.where,
    why:
      rule.kind === "mia" ? "it has neither pos and neg nor category nor region" : "a list of control words is empty",
    fix: "add category or region to the item, or give control words",
  });
}

/** The items to align: of the tail, those marked first, `focus` in all; 0 takes the whole tail. */
export function focusItems<T extends PromptItem>(items: readonly T[], focus: number): T[] {
  const tail = items.filter((item) => item.tail);
  if (focus === 0) return tail;
  const chosen = new Set([...tail.filter((item) => item.align), ...tail.filter((item) => !item.align)].slice(0, focus));
  return tail.filter((item) => chosen.has(item));
}

/** The items to align: the tail items that are named, in the list's order; without names as `focusItems` chooses. */
export function alignedItems<T extends PromptItem>(
  items: readonly T[],
  { items: names, focus }: { items: readonly string[]; focus: number },
): T[] {
  if (names.length === 0) return focusItems(items, focus);
  const named = new Set(names);
  return items.filter((item) => item.tail && named.has(item.item));
}

export interface PromptOrderOptions {
  seed: number;
  /** Share of the prompts that are head items. */
  headShare: number;
  /** Style words, one drawn for each prompt; empty: none. */
  styles: readonly string[];
}

/**
 * Which prompt comes when: passes over the aligned items in an order shuffled once, mixed with a share of head items in
 * theirs. Prompt n is the same however the run was cut into parts.
 */
export class PromptOrder<T extends PromptItem> {
  readonly #lists: [aligned: readonly T[], head: readonly T[]];
  readonly #orders: [Uint32Array, Uint32Array];
  readonly #random: RandomStream;
  readonly #options: PromptOrderOptions;
  /** Number of head prompts among the first n. */
  readonly #headBefore: number[] = [0];

  constructor(aligned: readonly T[], head: readonly T[], options: PromptOrderOptions) {
    if (aligned.length === 0) throw new RangeError("no items to align");
    this.#random = new RandomStream(options.seed, "prompt order");
    this.#lists = [aligned, head];
    this.#orders = [this.#random.permutation(2, aligned.length), this.#random.permutation(3, head.length)];
    this.#options = options;
  }

  /** Prompt number n, from 0. */
  at(n: number): { item: T; style: string | null } {
    while (this.#headBefore.length <= n + 1) {
      const next = this.#headBefore.length - 1;
      this.#headBefore.push(this.#headBefore[next]! + (this.#isHead(next) ? 1 : 0));
    }
    const heads = this.#headBefore[n]!;
    const which = this.#isHead(n) ? 1 : 0;
    const position = which === 1 ? heads : n - heads;
    const list = this.#lists[which];
    const { styles } = this.#options;
    return {
      item: list[this.#orders[which][position % list.length]!]!,
      style: styles.length === 0 ? null : styles[this.#random.integer(1, n, 0, styles.length - 1)]!,
    };
  }

  /** Prompts `first` … `first + count - 1`. */
  slice(first: number, count: number): { item: T; style: string | null }[] {
    return Array.from({ length: count }, (_, i) => this.at(first + i));
  }

  #isHead(n: number): boolean {
    return this.#lists[1].length > 0 && this.#random.uniform(0, n) < this.#options.headShare;
  }
}
