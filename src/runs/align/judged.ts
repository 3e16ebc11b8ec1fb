// Which items are judged before and after an alignment, with which prompts and noise.

import { alignedItems, fillTemplate, type PromptItem } from "../../data/prompts.ts";
import type { Group } from "../../evaluation/summary.ts";
import type { Config } from "../config/schema.ts";

/** One judged item and its pictures' prompts. */
export interface Judged {
  item: PromptItem;
  group: Group;
  /** For each picture its style word (or null), its prompt, and the number that its noise is drawn with. */
  pictures: { style: string | null; prompt: string; index: number }[];
}

/** Items of each group, in the order in which they are drawn. */
export function judgedItems(config: Config, items: readonly PromptItem[]): Judged[] {
  const { eval: settings } = config;
  const aligned = alignedItems(items, config.align);
  const alignedSet = new Set(aligned);
  const head = items.filter((item) => !item.tail);
  const otherTail = items.filter((item) => item.tail && !alignedSet.has(item));
  const cap = (list: PromptItem[]) => (settings.items > 0 ? list.slice(0, settings.items) : list);
  const groups: [Group, PromptItem[]][] = [
    ["aligned", cap(aligned)],
    ["other tail", cap(spread(otherTail, settings.other_tail_items))],
    ["head", cap(spread(head, settings.head_items))],
  ];
  const judged: Judged[] = [];
  let index = 0;
  for (const [group, members] of groups) {
    for (const item of members) {
      const pictures = Array.from({ length: settings.pictures }, (_, p) => {
        const style = settings.styles.length > 0 ? settings.styles[p % settings.styles.length]! : null;
        return { style, prompt: fillTemplate(config.data.prompt, item, style), index: index++ };
      });
      judged.push({ item, group, pictures });
    }
  }
  return judged;
}

/** `count` items spread evenly over the list: every ceil(n / count)-th. */
function spread(items: PromptItem[], count: number): PromptItem[] {
  if (count <= 0) return [];
  const stride = Math.max(1, Math.ceil(items.length / count));
  return items.filter((_, i) => i % stride === 0).slice(0, count);
}
