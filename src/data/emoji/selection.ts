// Which emoji become items of the embedded experiment, and what they are called. The tail is a list by hand with category
// and region; the head takes common things from the emoji list group by group, up to a number for each group and each
// category, without look-alikes.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { parseJson } from "../../formats/jsonl.ts";

export interface EmojiItem {
  item: string;
  /** Label in the emoji list, by which art is found; it may have a typographic apostrophe. */
  label: string;
  category: string;
  region: string;
  tail: boolean;
}

/** Contents of models/emoji/selection.json. */
export interface SelectionRules {
  /** Category of a subgroup of the emoji list, and the most items taken from it. */
  subgroups: Readonly<Record<string, { category: string; most?: number }>>;
  /** Most items of a category. */
  categories: Readonly<Record<string, number>>;
  left_out: readonly string[];
  /** Icon names of labels that do not follow the rule of `iconNames`. */
  icons: Readonly<Record<string, readonly string[]>>;
}

export interface EmojiLists {
  names: readonly { label: string; subgroup: string }[];
  tail: readonly { label: string; category: string; region: string }[];
  rules: SelectionRules;
}

/** Gendered variants, clock faces, banknotes and map symbols; persons and clothes may be gendered. */
const VARIANTS = /banknote|o’clock|-thirty|woman|\bman\b|Japan/;
const GENDERED_SUBGROUPS = ["person", "clothing"];

/** Reads names.tsv, tail.tsv and selection.json of `folder`. @throws E-DATA-080 a list is not valid */
export async function readEmojiLists(files: FileStore, folder: string): Promise<EmojiLists> {
  const table = async (name: string, columns: number): Promise<string[][]> => {
    const path = `${folder}/${name}`;
    const lines = (await files.readText(path)).split("\n").filter((line) => line !== "");
    return lines.map((line, i) => {
      const cells = line.split("\t");
      if (cells.length === columns && cells[0] !== "") return cells;
      throw new LongtailError("E-DATA-080", {
        what: `the line has ${cells.length} columns, not ${columns}`,
        where: `${path}:${i + 1}`,
        fix: "correct the line, or restore the file",
      });
    });
  };
  const path = `${folder}/selection.json`;
  return {
    names: (await table("names.tsv", 2)).map(([label, subgroup]) => ({ label: label!, subgroup: subgroup! })),
    tail: (await table("tail.tsv", 3)).map(([label, category, region]) => {
      return { label: label!, category: category!, region: region! };
    }),
    rules: parseJson(await files.readText(path), path) as SelectionRules,
  };
}

/** Names under which an icon set may hold the art of a label: without accents and apostrophes, in lower case, joined by dashes. */
export function iconNames(label: string, rules: SelectionRules): string[] {
  const own = Object.hasOwn(rules.icons, label) ? rules.icons[label] : undefined;
  if (own) return [...own];
  const dashed = (text: string) =>
    text
      .normalize("NFD")
      .replace(/\p{Mn}/gu, "")
      .toLowerCase()
      .replace(/[’'.]/g, "")
      .split(/[^a-z0-9]+/)
      .filter((part) => part !== "")
      .join("-");
  return [...new Set([dashed(label), dashed(label.replace("’s", "s"))])];
}

/**
 * Items in the order of the experiment: head in the order of the emoji list, then tail in its own.
 * @param hasArt whether all of the generator's styles have art of a label
 */
export function selectItems(lists: EmojiLists, hasArt: (label: string) => boolean): EmojiItem[] {
  const { names, tail, rules } = lists;
  const taken = new Set([...tail.map(({ label }) => label), ...rules.left_out]);
  const ofSubgroup = new Map<string, number>();
  const ofCategory = new Map<string, number>();
  const raise = (counts: Map<string, number>, key: string): number => {
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    return count;
  };
  const head: EmojiItem[] = [];
  for (const { label, subgroup } of names) {
    const rule = rules.subgroups[subgroup];
    if (!rule || taken.has(label)) continue;
    if (VARIANTS.test(label) && !GENDERED_SUBGROUPS.includes(subgroup)) continue;
    if (!hasArt(label)) continue;
    // Counted before the limits are asked, so that a full subgroup does not use up its category.
    if (raise(ofSubgroup, subgroup) > (rule.most ?? Number.POSITIVE_INFINITY)) continue;
    if (raise(ofCategory, rule.category) > (rules.categories[rule.category] ?? Number.POSITIVE_INFINITY)) continue;
    head.push({ item: label.replace("’", "'"), label, category: rule.category, region: "", tail: false });
  }
  return [...head, ...tail.map((entry) => ({ item: entry.label, ...entry, tail: true }))];
}

/** Every k-th tail item, `count` in all: the ones that alignment trains on. */
export function alignedItems(items: readonly { tail: boolean }[], count: number): Set<number> {
  const tail = items.flatMap((item, i) => (item.tail ? [i] : []));
  const most = Math.min(count, tail.length);
  return new Set(Array.from({ length: most }, (_, i) => tail[Math.floor((i * tail.length) / most)]!));
}
