// The three sets that come along, one click each: pictures of the embedded sheets whose licences allow it, chosen because a
// short run on them shows. Thumbnails come from small sheets that `scripts/page_pictures.ts` makes; the sheets that are
// trained on are a megabyte each and are fetched by the run alone.

import type { PictureChoice } from "../settings.ts";

export interface BundledSet {
  id: "gloss" | "rare" | "festivals";
  title: string;
  /** What one learns from it, one sentence. */
  about: string;
  /** What to look for in the samples. */
  shows: string;
  items: readonly string[];
  style: string;
  attribution: string;
  licence: string;
}

const NOTO = { attribution: "Noto Emoji, Google Inc", licence: "Apache-2.0" };

export const BUNDLED: readonly BundledSet[] = [
  {
    id: "gloss",
    title: "A new style",
    about: "Twelve everyday things as glossy 3-D figures. The model knows the things, never saw the style.",
    shows:
      "Flat shapes turn round and shaded. After 100 updates of 4 pictures the ghost has a face and the balloon a string.",
    items: [
      ...["pizza", "hot dog", "sunflower", "mushroom", "rabbit", "penguin"],
      ...["automobile", "light bulb", "ghost", "balloon", "avocado", "unicorn"],
    ],
    style: "gloss",
    attribution: "Fluent UI Emoji, © Microsoft Corporation",
    licence: "MIT",
  },
  {
    id: "rare",
    title: "Rare things",
    about: "Ten things that the model met too seldom to draw. The style is one it knows.",
    shows: "Blots take shape: after 100 updates of 4 pictures there are a lamp with a flame and a stone head.",
    items: [
      ...["diya lamp", "taco", "nesting dolls", "shinto shrine", "moai"],
      ...["sari", "piñata", "sushi", "kimono", "accordion"],
    ],
    style: "noto",
    ...NOTO,
  },
  {
    id: "festivals",
    title: "Festivals",
    about: "Twelve things people celebrate with, from Japan to Mexico, nearly all of them rare in what the model saw.",
    shows: "After 100 updates of 4 pictures carp hang on a pole, the lamp burns and the pumpkin grins.",
    items: [
      ...["carp streamer", "diya lamp", "firecracker", "jack-o-lantern", "red paper lantern", "red envelope"],
      ...["menorah", "wind chime", "pine decoration", "tanabata tree", "Japanese dolls", "moon viewing ceremony"],
    ],
    style: "noto",
    ...NOTO,
  },
];

/** Sheets of thumbnails, 64 pixels a picture, side by side in the order of `items`. */
export const THUMBNAILS: Readonly<Record<BundledSet["id"], string>> = {
  gloss: new URL("./sheets/gloss.png", import.meta.url).href,
  rare: new URL("./sheets/rare.png", import.meta.url).href,
  festivals: new URL("./sheets/festivals.png", import.meta.url).href,
};

/** What the form holds when the set is chosen. */
export function bundledChoice({ title, items, style }: BundledSet): PictureChoice {
  return { label: title.toLowerCase(), path: "embedded", items: [...items], styles: [style], pictures: items.length };
}

/** The set that a choice stands for, as far as it is one of these. */
export function bundledOf(choice: PictureChoice | null): BundledSet | null {
  if (choice?.path !== "embedded") return null;
  const names = choice.items.join("\n");
  return BUNDLED.find((set) => set.items.join("\n") === names && choice.styles.join() === set.style) ?? null;
}
