// Prompts to draw: those that a run will be trained on, and things in the same words that it was not trained on, which show whether a
// LoRA learnt a style or learnt its pictures by heart.

import type { PictureChoice } from "../settings.ts";

/** Captions of embedded pictures, as a run on them would have them; none of own pictures, whose captions are their own. */
export function promptsOf(set: PictureChoice | null): string[] {
  if (set?.path !== "embedded") return [];
  const [style] = set.styles;
  return set.items.map((item) => `${style ? `${style} ` : ""}icon of ${item}`);
}

/** Names in one short word make prompts that are read at a glance. */
const LONGEST_NAME = 9;

/**
 * @param trained captions of the run, of which the first gives the words around the thing
 * @param config the run's configuration, whose items are left out
 * @param items of the model's vocabulary; every so many-th is taken, so that kinds of things differ
 */
export function newPrompts(
  trained: readonly string[],
  config: string,
  items: readonly string[],
  most: number,
): string[] {
  const match = /^(.*\bicon of )(.+)$/.exec(trained[0] ?? "");
  if (!match) return [];
  const known = new Set(trained);
  const short = items.filter((item) => item.length <= LONGEST_NAME && !item.includes(" "));
  // A stride without a common divisor with the length meets every item in the end.
  const stride = 101;
  const found: string[] = [];
  for (let n = 0; n < short.length && found.length < most; n++) {
    const item = short[(n * stride + 40) % short.length]!;
    const prompt = `${match[1]}${item}`;
    if (!config.includes(JSON.stringify(item)) && !known.has(prompt) && !found.includes(prompt)) found.push(prompt);
  }
  return found;
}
